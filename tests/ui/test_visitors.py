"""Several visitors of one app, each with a token of their own: who sees, stops and takes away what."""

import json
import shutil
from types import SimpleNamespace

import pytest

from d2nwg.jobs import queue as jobs
from d2nwg.jobs.job import Job, jobs_dir
from d2nwg.jobs.owner import owner_of
from d2nwg.ui import visitor as who
from d2nwg.ui.access import ACCESS
from d2nwg.utils.paths import cache_dir
from tests.ui.conftest import HERE, fire

ELSEWHERE = ("203.0.113.9", 5)
A, B = "visitor-a-" + "x" * 32, "visitor-b-" + "y" * 32
NAME = "secret-of-a"
AT_HOME = dict(client=SimpleNamespace(host="127.0.0.1"), headers={"Host": "127.0.0.1:7860"}, session_hash="x")
VERBS = ("pause", "resume", "stop", "delete")


@pytest.fixture
def job(served, monkeypatch):
    """A finished training of visitor A's with its bundle, and a job of nobody's that waits."""
    monkeypatch.setattr(jobs, "_start", lambda job: None)
    parameters = {"zoos": [], "generator": "dual", "config": {}, "device": None}
    jobs.submit("train", "of-the-command-line", parameters)
    refined = jobs.submit("refine", f"refined-{NAME}", {"model": "default"}, owner=owner_of(A))
    refined.log.write_text("the log of a job")
    made = jobs.submit("train", NAME, parameters, owner=owner_of(A))
    made.write(state="finished", message="Finished in 1 s.")
    made.log.write_text("the log of a job")
    made.out.mkdir(parents=True)
    (made.out / "model_index.json").write_text('{"_class_name": "DualHeadPipeline"}')
    (made.out / "training.json").write_text('{"generator": "dual"}')
    (made.out / "metrics.jsonl").write_text('{"stage": "finished"}\n')
    zoo = cache_dir() / "zoos" / f"zoo-{NAME}"
    zoo.mkdir(parents=True)
    (zoo / "zoo.json").write_text("{}")
    (zoo.parent / f".{zoo.name}.owner").write_text(owner_of(A))
    yield made
    shutil.rmtree(cache_dir())


@pytest.fixture
def visits(served):
    """``visits(token, **client)``: somebody's page, as a function that lets an event of it happen."""
    count = iter(range(1000))
    lines = [""] * (len(served.event("wire_jobs.<locals>.look").inputs) - 5)  # what stands under the buttons

    def open_page(token=None, address=ELSEWHERE, base="http://studio.example", **headers):
        client, session = served.client(address, base, **headers), f"page-{next(count)}-{id(served)}"

        def happen(name: str, *data, number: int = 0):
            return fire(client, served.event(name, number), *data, session=session)

        def look() -> str:
            refined = happen("_wire_jobs.<locals>.look", token, None, None, None, "default", None, False, True).text
            return happen("wire_jobs.<locals>.look", token, None, None, None, None, *lines).text + refined

        return SimpleNamespace(happen=happen, look=look, client=client, token=token)

    return open_page


def everything(page) -> str:
    """All that a page says of jobs, zoos and bundles."""
    said = [page.look(), page.look()]
    for name, data in (
        ("_wire_images.<locals>.open_page", [page.token]),
        ("_wire_link.<locals>.open_page", [page.token]),
        ("wire_zoo.<locals>.describe", [page.token, f"zoo-{NAME}"]),
        ("_wire_images.<locals>.fit", [None, "heads-dual", "digits"]),
    ):
        said.append(page.happen(name, *data).text.replace(f'"{page.token}"', ""))
    said += [page.client.get(path).text for path in ("/config", "/gradio_api/info")]
    return "\n".join(said)


def test_the_owner_sees_their_own(job, visits):
    page = visits(A)
    said = everything(page)
    assert NAME in page.look() and "of-the-command-line" not in said
    bundles = page.happen("_wire_images.<locals>.open_page", A).text
    assert NAME in bundles and A in bundles, "the token is kept"
    assert "the log of a job" in visits(A).look()
    refined = visits(A).look()
    assert f"refined-{NAME}" in refined and "from the model alone" in refined
    for number, answer in ((1, ".log.txt"), (2, "Tabs"), (3, f"{NAME}.zip")):  # the first one is the Language tab's
        said = page.happen("doing.<locals>.click", A, None, job.id, number=number)
        assert said.status_code == 200 and (answer in said.text or number == 2), said.text


@pytest.mark.parametrize("token", [B, None, "", "short", 3, {"x": 1}, [[A]], A[:-1], owner_of(A), A * 100])
def test_another_visitor_sees_nothing_and_can_do_nothing(job, visits, token):
    page = visits(token)
    said = everything(page)
    assert [words for words in (NAME, "of-the-command-line", "the log of a job") if words in said] == []
    assert said.count("Your jobs will stand here") > 2 and "not to be had here" in said
    before = job.state()
    answers = [page.happen("acting.<locals>.act", token, job.id, number=number) for number in range(8)]
    answers += [page.happen("doing.<locals>.click", token, None, job.id, number=number) for number in range(4)]
    answers += [page.happen("_wire_jobs.<locals>.pack", token, None, job.id)]
    for answer in answers:
        assert answer.status_code == 500 and "Job should be one of" in answer.json()["error"], answer.text
    assert job.state() == before and job.folder.is_dir()


@pytest.mark.parametrize("token", [B, None])
def test_a_handler_does_not_trust_the_page(job, served, token):
    """Also called past the check of the choices, every handler of a job refuses somebody else's."""
    request = SimpleNamespace(client=SimpleNamespace(host="203.0.113.9"), headers={}, session_hash="x")
    before = job.state()
    for number in range(2 * len(VERBS)):
        act = served.event("acting.<locals>.act", number).fn
        assert "not yours" in list(act(request, token, job.id))[-1], VERBS[number % len(VERBS)]
    for number in range(4):
        update = served.event("doing.<locals>.click", number).fn(request, token, None, job.id)
        assert [value for value in update.values() if "not yours" in str(value)] and len(update) == 2
    look = served.event("wire_jobs.<locals>.look")
    shown = look.fn(request, token, None, job.id, {}, None, *[""] * (len(look.inputs) - 5))
    assert NAME not in str(list(shown.values()))
    shown = served.event("_wire_jobs.<locals>.look").fn(request, token, None, job.id, {}, "default", None, False, True)
    assert NAME not in str(list(shown.values()))
    assert job.state() == before and job.folder.is_dir()


@pytest.mark.parametrize("token", [None, B])
def test_a_browser_on_this_machine_sees_all(job, served, visits, token):
    for host in ("http://127.0.0.1:7860", "http://localhost:7860", "http://[::1]:7860"):
        for address in (HERE, ("::1", 5), ("::ffff:127.0.0.1", 5)):
            page = visits(token, address, host)
            assert NAME in page.look() and "of-the-command-line" in page.look()
    assert NAME in visits(token, HERE, "http://127.0.0.1:7860", origin="http://localhost:7860").look()
    job.write(state="queued")
    page.look()
    number = len(VERBS) + VERBS.index("stop")
    said = page.happen("acting.<locals>.act", token, job.id, number=number)
    assert said.status_code == 200 and "Stopping" in said.text, said.text  # a direct call hears the first word only
    request = SimpleNamespace(**AT_HOME, request=SimpleNamespace(scope={"http_version": "1.1"}))
    assert list(served.event("acting.<locals>.act", number).fn(request, token, job.id))[-1] == ""
    assert job.state()["state"] == "stopped"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "198.51.100.1"},
        {"x-forwarded-for": "127.0.0.1"},
        {"X-Forwarded-Host": "studio.example"},
        {"x-forwarded-proto": "https"},
        {"forwarded": "for=198.51.100.1"},
        {"via": "1.1 proxy"},
        {"x-real-ip": "127.0.0.1"},
        {"cf-connecting-ip": "198.51.100.1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:7860"},
        {"host": "studio.local"},
        {"host": "[::1"},
    ],
)
def test_who_comes_through_a_proxy_or_another_site_is_not_at_this_machine(job, visits, headers):
    page = visits(B, HERE, "http://127.0.0.1:7860", **headers)
    assert NAME not in page.look() and NAME in visits(A, HERE, "http://127.0.0.1:7860", **headers).look()


@pytest.mark.parametrize("address", [ELSEWHERE, ("192.168.0.2", 5), ("testclient", 5), ("10.0.0.1", 5), ("0.0.0.0", 5)])
def test_another_machine_is_another_machine(job, visits, address):
    assert NAME not in visits(B, address, "http://127.0.0.1:7860").look()


def test_a_proxy_that_says_nothing_of_itself():
    """nginx with nothing but ``proxy_pass`` asks by the app's own address."""
    for version, home in (("1.1", True), ("1.0", False)):
        request = SimpleNamespace(**AT_HOME, request=SimpleNamespace(scope={"http_version": version}))
        assert who.at_home(request) == home


def test_on_a_space_nobody_is_at_home(job, visits, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert NAME not in visits(B, HERE, "http://127.0.0.1:7860").look()
    assert NAME in visits(A, HERE, "http://127.0.0.1:7860").look()


def test_behind_a_tunnel_nobody_is_at_home(job, visits, monkeypatch):
    monkeypatch.setattr(ACCESS, "tunnelled", True)
    assert NAME not in visits(B, HERE, "http://127.0.0.1:7860").look()


def test_shared_jobs_are_everybodys(job, visits, monkeypatch):
    monkeypatch.setattr(ACCESS, "shared_jobs", True)
    page = visits(None)
    assert NAME in page.look() and "of-the-command-line" in page.look()
    assert NAME in page.happen("_wire_images.<locals>.open_page", None).text


def test_a_first_visit_gets_a_token(served, visits):
    tokens = set()
    for _ in range(2):
        data = visits().happen("_wire_images.<locals>.open_page", None).json()["data"]
        tokens |= {value for value in data if isinstance(value, str) and owner_of(value)}
    assert len(tokens) == 2 and who.new_token() not in tokens


def test_a_bundle_of_somebody_else_is_none(job, served):
    """Programs send the token in a header."""
    event = served.endpoints()["generate"]
    data = [None if part.label.startswith("An example") else part.value for part in event.inputs]
    data[[part.label for part in event.inputs].index("Bundle")] = NAME

    def error(**headers) -> str:
        client = served.client(ELSEWHERE, "http://studio.example", **headers)
        return client.post("/gradio_api/run/generate", json={"data": data}).json()["error"]

    other = error(**{who.HEADER: B})
    assert other == error() == f"There is no bundle {NAME} here; choose one from the list."
    assert error(**{who.HEADER: A}).startswith("Give image files")


def test_submitting_is_owned(served, visits, monkeypatch, tiny_zoo, job):
    monkeypatch.setattr(ACCESS, "folders", (tiny_zoo.path.resolve().parent,))
    event = served.event("wire_training.<locals>.go")
    boxes = [None] * (len(event.inputs) - 5)

    def submit(page, name: str) -> str:
        return page.happen(
            "wire_training.<locals>.go", page.token, str(tiny_zoo.path), name, "unet", "tiny", *boxes
        ).text

    assert "in the queue" in submit(visits(B), "of-b")
    spec = json.loads((jobs_dir() / "train-of-b" / "job.json").read_text())
    assert spec["owner"] == owner_of(B) and B not in json.dumps(spec), "the token itself is not kept"
    assert "of-b" in visits(B).look() and "of-b" not in visits(A).look()
    assert "keeps no data of this page" in submit(visits(None), "lost")
    assert f"The name {NAME} is taken" in submit(visits(B), NAME)
    assert "in the queue" in submit(visits(None, HERE, "http://localhost:7860"), "at-home")
    assert Job(jobs_dir() / "train-at-home").owner is None
