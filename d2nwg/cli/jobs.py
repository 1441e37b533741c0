"""``jobs``: trainings, zoo builds and refinements in processes of their own."""

import argparse
import json


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``jobs`` and its actions to the command line."""
    parser = subparsers.add_parser(
        "jobs",
        help="list, show, pause, stop or resume trainings, zoo builds and refinements in the background",
        description="List, show, pause, stop, resume or delete the jobs that the app's Train and Language tabs, "
        "`train --job` and `zoo build --llm --job` submit. A job goes on when the app is closed; one that was killed "
        "resumes from its last checkpoint. A refinement's report.json, log.jsonl and delta.safetensors (for `llm "
        "apply`) lie in the folder that jobs show calls out.",
        epilog="example: python -m d2nwg jobs show train-my-bundle",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line a job", description="Print one line a job.")
    listing.set_defaults(run=run_list)
    for name, words in (
        ("show", "print the state of a job as JSON, and the end of its log"),
        ("pause", "suspend a running job; it keeps its memory"),
        ("resume", "continue a paused job, or queue an ended one again, from its last checkpoint"),
        ("stop", "stop a job; its last checkpoint stays"),
        ("delete", "remove a job, its checkpoints and a refinement's result, but not a finished bundle or zoo"),
    ):
        action = actions.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        action.add_argument("job", metavar="JOB", help="its name, or its id as jobs list prints it")
        action.set_defaults(run=run_action)
    runner = actions.add_parser("run")  # the command of a job's process; without help, so that it is not listed
    runner.add_argument("job")
    runner.set_defaults(run=run_here)


def run_list(args: argparse.Namespace) -> None:
    """Print id, state, stage and step of every job."""
    from d2nwg.jobs.job import list_jobs, unreadable_jobs
    from d2nwg.jobs.queue import start_next
    from d2nwg.utils.progress import format_seconds
    from d2nwg.utils.text import shown

    start_next()
    for job in list_jobs():
        state = job.state()
        step = f"{state['done']}/{state['total']}" if state.get("total") else ""
        left = f"{format_seconds(state['left'])} left" if state.get("left") and state["state"] == "running" else ""
        row = (job.id, state["state"], state.get("stage") or "", step, left or state.get("message", ""))
        print("\t".join(shown(field, None) for field in row))
    for name, reason in unreadable_jobs().items():
        print("\t".join((shown(name), "unreadable", "", "", shown(reason, None))))


def run_action(args: argparse.Namespace) -> None:
    """Do one of the actions, and print the job's state after it."""
    from d2nwg.jobs import queue
    from d2nwg.jobs.job import get_job

    queue.start_next()
    job = get_job(args.job)
    if args.action == "show":
        keep = ("loss", "zoo_accuracy", "reconstructed_accuracy", "sampled_accuracy", "step", "stage")
        last = [{key: line[key] for key in keep if key in line} for line in job.metrics()[-3:]]
        print(json.dumps({"job": job.id, **job.spec["parameters"], **job.state(), "last": last}, indent=1))
        if job.log.is_file():
            print("".join(job.log.read_text(errors="replace").splitlines(keepends=True)[-20:]), end="")
        return
    getattr(queue, args.action)(job)
    print(f"{job.id}: deleted." if args.action == "delete" else f"{job.id}: {job.state()['state']}.")


def run_here(args: argparse.Namespace) -> int:
    """Do a job's work in this process."""
    from d2nwg.jobs.job import get_job
    from d2nwg.jobs.worker import run_job

    return run_job(get_job(args.job))
