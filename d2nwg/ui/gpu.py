"""Computing on a Space whose GPU is lent by the call (ZeroGPU): the one place that knows of the package ``spaces``.

There a function that computes carries `spaces.GPU`: each call runs in a process of its own, to which the arguments are
pickled, and from which comes back what a generator yields, pickled too. So progress is yielded, and tensors come home
to the CPU. Without the package nothing is changed.
"""

import inspect
import io
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps

from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.progress import silent

SECONDS = 120  # a GPU is lent for at most so long
TAKEN_BACK = "The GPU was taken back before the end: please try again."


def on_gpu(function: Callable) -> Callable:
    """Decorates a function, or a generator function, that computes on the GPU where there is one. It may take
    ``progress=``, which is called in the caller's process and may raise `Cancelled`; what it raises of our own errors
    arrives as it is."""
    try:
        import spaces
    except ImportError:
        return function

    @spaces.GPU(duration=SECONDS)
    def steps(watched: bool, args: tuple, kwargs: dict):
        yield from _steps(function, watched, args, kwargs)

    def values(*args, **kwargs):
        watched = "progress" in kwargs
        progress = kwargs.pop("progress", silent)
        with closing(steps(watched, args, kwargs)) as messages, _refusals():
            for kind, *content in messages:
                if kind == "stage":
                    progress(*content)
                elif kind == "refused":
                    raise content[0]
                elif kind == "value":
                    yield pickle.loads(content[0])
                else:
                    return
        raise UserError(TAKEN_BACK)

    def value(*args, **kwargs):
        with closing(values(*args, **kwargs)) as only:
            return next(only)

    return wraps(function)(values if inspect.isgeneratorfunction(function) else value)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the lender says, such as that the visitor's share is used up, as our own error."""
    import gradio as gr

    try:
        yield
    except gr.Error as refusal:
        if refusal.title == "ZeroGPU worker error":  # of the work itself; the message is the name of its error
            if refusal.message == "GPU task aborted":
                raise UserError(TAKEN_BACK) from refusal
            raise
        raise UserError(str(refusal.message)) from refusal


def _steps(function: Callable, watched: bool, args: tuple, kwargs: dict):
    """Run a function in a thread, yielding ``("stage", name, done, total)`` as it reports, ``("value", pickled)`` for
    what it returns or each thing that it yields, and at the end ``("end",)`` or ``("refused", error)``."""
    messages: queue.Queue[tuple | None] = queue.Queue()
    stop = threading.Event()
    last: list[tuple | BaseException] = []  # the last message, or the exception that ended the work

    def progress(*stage) -> None:
        if stop.is_set():
            raise Cancelled
        messages.put(("stage", *stage))

    def work() -> None:
        try:
            made = function(*args, **kwargs, **({"progress": progress} if watched else {}))
            for value in made if inspect.isgenerator(made) else (made,):
                if stop.is_set():
                    raise Cancelled
                messages.put(("value", _packed(value)))
            last.append(("end",))
        except (UserError, Cancelled) as refusal:
            last.append(("refused", refusal))
        except BaseException as failure:
            last.append(failure)
        finally:
            messages.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (message := messages.get()) is not None:
            yield message
    finally:  # also when the visitor has gone
        stop.set()
    if isinstance(last[0], BaseException):
        raise last[0]
    yield last[0]


def device_words() -> str:
    """What the work runs on, in words."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


class _Pickler(pickle.Pickler):
    """Leaves no tensor on a device that the reader does not have."""

    def reducer_override(self, value):
        import torch

        if isinstance(value, torch.Tensor) and value.device.type != "cpu":
            return value.detach().cpu().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


def _packed(value) -> bytes:
    packed = io.BytesIO()
    _Pickler(packed, pickle.HIGHEST_PROTOCOL).dump(value)
    return packed.getvalue()
