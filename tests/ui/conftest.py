"""The app in this process, without a browser: its endpoints, and the events of its pages."""

from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = ("127.0.0.1", 5)


@dataclass
class Served:
    """A running app.

    Attributes:
        demo: its Blocks.
        app: what answers requests.
    """

    demo: object
    app: object

    def client(self, address: tuple = HERE, base: str = "http://127.0.0.1:7860", **headers: str):
        """A program at an address, asking for the app under a name."""
        from starlette.testclient import TestClient

        return TestClient(self.app, base_url=base, client=address, headers=headers, raise_server_exceptions=False)

    def event(self, name: str, number: int = 0):
        """The event of a page whose handler has this name; of several, the one with this number."""
        found = [fn for fn in self.demo.fns.values() if getattr(fn.fn, "__qualname__", "") == name]
        return found[number]

    def endpoints(self) -> dict:
        """The documented endpoints by name."""
        return {fn.api_name: fn for fn in self.demo.fns.values() if fn.fn and fn.api_visibility == "public"}

    def upload(self, name: str, content: bytes) -> dict:
        """A file as gradio keeps an upload, as a call names it."""
        from d2nwg.ui.session import new_folder

        path = new_folder("upload") / name
        path.write_bytes(content)
        return file_data(path)


def file_data(path: Path | str) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def fire(client, event, *data, session: str | None = None):
    """Let an event of a page happen; what it answers."""
    body = {"data": list(data), "fn_index": event._id, "session_hash": session}
    return client.post("/gradio_api/run/predict", json=body)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from gradio.routes import App

    from d2nwg.ui.app import build_app, launch_options
    from d2nwg.ui.session import private_root

    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_EXAMPLES_CACHE", "")
        patch.setenv("D2NWG_CACHE", str(folder / "cache"))
        patch.delenv("SPACE_ID", raising=False)
        private_root.cache_clear()
        demo = build_app()
        demo.app = App.create_app(demo, app_kwargs=launch_options()["app_kwargs"])
        yield Served(demo, demo.app)
        private_root.cache_clear()
