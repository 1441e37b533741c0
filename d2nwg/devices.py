"""Which device to compute on, and one model loaded at a time."""

import threading

from d2nwg.errors import UserError

# While diffusers builds a model it patches torch.nn.Module for the whole process: a network that another thread
# builds meanwhile would be left without its weights.
loading = threading.RLock()


def resolve_device(name: str | None = None) -> str:
    """``name`` if this machine has that device; without a name CUDA where there is one, otherwise the CPU.

    Raises:
        UserError: the machine has no such device.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if cuda else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= cuda:
        has = "none" if not cuda else f"{cuda}, counted from 0"
        raise UserError(
            f"There is no CUDA device {name} here (PyTorch sees {has}): choose another --device, such as cpu."
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no MPS device here: choose another --device, such as cpu.")
    return name
