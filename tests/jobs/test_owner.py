"""Whose jobs, zoos and bundles are, and who may see them."""

import json

import pytest

from d2nwg.bundles import list_zoos
from d2nwg.jobs import owner as owners
from d2nwg.jobs import queue as jobs
from d2nwg.jobs.owner import EVERYTHING, STRANGER, Viewer, find_job, jobs_of, owner_of
from d2nwg.utils.errors import UserError

A, B = Viewer("a" * 64), Viewer("b" * 64)


@pytest.fixture
def still(cache, monkeypatch):
    """No job begins."""
    monkeypatch.setattr(jobs, "_start", lambda job: None)


def submit(name: str, owner: str | None):
    return jobs.submit("zoo", name, {"data": [], "encoder": "e", "config": {}, "device": None}, owner=owner)


def zoo(name: str, cache):
    """A finished zoo, as far as a list of them goes."""
    (cache / "zoos" / name).mkdir(parents=True)
    (cache / "zoos" / name / "zoo.json").write_text("{}")
    return cache / "zoos" / name


def test_tokens():
    assert owner_of("x" * 32) == owner_of("x" * 32) != owner_of("y" * 32)
    assert "x" * 32 not in owner_of("x" * 32)
    for none in (
        None,
        "",
        "short",
        "x" * 31,
        "x" * 300,
        3,
        ["x" * 32],
        {"x": 1},
        "ü" * 40,
        "a b" * 20,
        "x" * 32 + "\n",
    ):
        assert owner_of(none) is None


def test_a_job_is_seen_by_its_owner_and_by_those_who_see_everything(still):
    own, others, nobodys = submit("own", A.owner), submit("other", B.owner), submit("nobodys", None)
    assert [job.id for job in jobs_of(A)] == ["zoo-own"] and [job.id for job in jobs_of(B)] == ["zoo-other"]
    assert not jobs_of(STRANGER) and len(jobs_of(EVERYTHING)) == 3
    assert find_job("zoo-own", A).id == own.id and find_job("zoo-own", EVERYTHING).id == own.id
    said = set()
    for viewer, name in ((A, others.id), (A, nobodys.id), (A, "zoo-none"), (B, "own"), (STRANGER, own.id), (A, "")):
        with pytest.raises(UserError) as refusal:
            find_job(name, viewer)
        said.add(str(refusal.value))
    assert len(said) == 1, "somebody else's and none at all are answered alike"
    assert "owner" not in json.loads((nobodys.folder / "job.json").read_text())
    assert A.owner == own.owner and nobodys.owner is None


def test_a_damaged_owner_is_nobodys(still):
    job = submit("own", A.owner)
    spec = json.loads((job.folder / "job.json").read_text())
    for owner in (None, 3, ["x"], {}):
        (job.folder / "job.json").write_text(json.dumps({**spec, "owner": owner}))
        assert job.owner is None and not jobs_of(STRANGER) and not jobs_of(A)


def test_results_belong_with_their_jobs(still, cache):
    job = submit("mine", A.owner)
    path, shared = zoo("mine", cache), zoo("from-the-command-line", cache)
    assert A.sees(path) and EVERYTHING.sees(path) and not B.sees(path) and not STRANGER.sees(path)
    assert all(viewer.sees(shared) for viewer in (A, B, STRANGER, EVERYTHING))
    assert set(list_zoos()) == {"mine", "from-the-command-line"}
    jobs.delete(job)
    assert not B.sees(path), "a zoo outlives its job, and so does its owner"


def test_a_name_that_is_somebody_elses_is_taken(still, cache):
    submit("mine", A.owner)
    zoo("shared", cache)
    for name in ("mine", "shared"):
        with pytest.raises(UserError, match=f"The name {name} is taken") as refusal:
            submit(name, B.owner)
        assert str(cache) not in str(refusal.value)
    assert not B.sees(cache / "zoos" / "mine")
    assert STRANGER.sees(cache / "zoos" / "shared"), "nobody becomes the owner of what is everybody's"
    with pytest.raises(UserError, match="is taken"):
        owners.claim(cache / "zoos" / "mine", B.owner)


def test_a_name_is_free_again(still, cache):
    jobs.delete(submit("mine", A.owner))
    assert submit("mine", B.owner).owner == B.owner
    assert owners.claim(cache / "zoos" / "new", A.owner) and not owners.claim(cache / "zoos" / "new", A.owner)
    owners.release(cache / "zoos" / "new")
    assert owners.result_owner(cache / "zoos" / "new") is None and not owners.claim(cache / "zoos" / "new", None)


def test_the_command_line_sees_all(still, capsys):
    from d2nwg.cli import main

    submit("own", A.owner)
    submit("nobodys", None)
    assert main(["jobs", "list"]) == 0
    said = capsys.readouterr().out
    assert "zoo-own\tqueued" in said and "zoo-nobodys\tqueued" in said
    assert main(["jobs", "stop", "own"]) == 0 and find_job("zoo-own", A).state()["state"] == "stopped"
