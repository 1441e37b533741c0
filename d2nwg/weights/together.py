"""A zoo built by several processes, on one machine or several: ``accelerate launch … -m d2nwg zoo build …``."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from d2nwg.utils.devices import leave_together, resolve_device
from d2nwg.utils.errors import UserError
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights import zoo as alone


def build_together(
    sources: Sequence, encoder, config: alone.ZooConfig, out: Path, *, device: str | None, progress: Progress = silent
) -> alone.Zoo:
    """`build_zoo` in every process: the first one reads the images and writes what is said once, each trains its
    shards. The zoo is the same, bit for bit, as one process builds on the same kind of device. ``out`` must lie on a
    disk that all of them see.

    Raises:
        UserError: in every process, what `build_zoo` refuses.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    device = resolve_device(device) if device else str(encoder.device)
    state = PartialState(cpu=device == "cpu")
    leave_together()
    device = "cpu" if device == "cpu" else str(state.device)  # each its own GPU
    part = out.with_name(f".{out.name}-together")
    refusal: list = [None]
    if state.is_main_process:
        try:
            if out.exists():
                raise UserError(f"{out} exists already: choose another name for the zoo, or remove it.")
            for source in sources:
                if len(source.classes) < config.min_classes:
                    few = f"{source.name} has {len(source.classes)} classes"
                    raise UserError(f"{few}, fewer than {config.min_classes}.")
            shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
            part.mkdir(parents=True)
            images = alone.encode_sets(sources, encoder, config, progress)
            save_file(images, part / "features.safetensors")
        except UserError as reason:
            refusal = [reason]
    refusal = broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise refusal[0]
    images = load_file(part / "features.safetensors")
    quiet = progress if state.is_main_process else silent
    alone.write_records(sources, images, config, part, device, quiet, state.process_index, state.num_processes)
    state.wait_for_everyone()
    if state.is_main_process:
        alone.write_info(sources, encoder, config, images, part)
        os.chmod(part, 0o755)
        part.rename(out)
    state.wait_for_everyone()
    return alone.Zoo(out)
