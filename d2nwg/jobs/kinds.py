"""The kinds of jobs, and in what they differ. Their work stands in `d2nwg.jobs.worker`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        words: what a person calls it.
        place: the cache's folder for what it makes; None where that stays in the job's own folder and goes with it.
        resuming: what resuming one that was stopped or killed does.
    """

    words: str
    place: str | None
    resuming: str


KINDS = {
    "train": Kind("training", "bundles", "goes on from the last checkpoint"),
    "zoo": Kind("zoo", "zoos", "begins again"),
    "networks": Kind("zoo of networks", "zoos", "goes on after the last group of networks"),
    "finetunes": Kind("zoo of fine-tunes", "zoos", "goes on after the last fine-tune that was finished"),
    "refine": Kind("refinement", None, "goes on after the last decision"),
}
