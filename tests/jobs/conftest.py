import pytest

from d2nwg.jobs.job import list_jobs
from d2nwg.jobs.queue import delete


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path / "cache"
    for job in list_jobs():
        delete(job)
