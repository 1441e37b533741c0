"""What is imported when."""

import subprocess
import sys

OPENED = """
import sys
from d2nwg.ui.app import build_app
from d2nwg.ui.libraries import import_first
build_app()
import_first()
before = set(sys.modules)
from d2nwg.ui.generate import service
from d2nwg.ui.generate.first import first_result
from d2nwg.ui.interpolate import html
first_result().table()
service.read_choice("clothes")
html.endpoint_strip("digits-on-white")
service.read_choice("digits")
print(sorted(name for name in set(sys.modules) - before if not name.startswith("d2nwg")), "torch" in sys.modules)
"""


def test_a_page_that_opens_imports_nothing_beside_the_warm_up(tmp_path, monkeypatch):
    """Two threads that import the same packages can lock each other out."""
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    done = subprocess.run([sys.executable, "-c", OPENED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == ["[] False"]
