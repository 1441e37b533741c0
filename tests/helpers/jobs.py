"""Jobs, which are processes of their own."""

import time

from d2nwg.jobs.job import Job


def wait(job: Job, *states: str, seconds: float = 600) -> dict:
    """The job's state, once it is one of ``states`` (and has begun to work, where that is ``"running"``)."""
    deadline = time.monotonic() + seconds
    while (state := job.state())["state"] not in states or (states == ("running",) and not state.get("done")):
        assert time.monotonic() < deadline, (state, job.log.read_text() if job.log.exists() else "")
        time.sleep(0.02)
    return state
