"""Weights of causal language models, read whole or not at all; code that comes with a model is never run."""

from pathlib import Path
from typing import TYPE_CHECKING

from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory, out_of_memory
from d2nwg.utils.paths import read_json
from d2nwg.utils.text import shown, some

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# For every `from_pretrained`: unless it is False, transformers asks on stdin whether to run a model's own code.
SAFE = dict(trust_remote_code=False)
MAX_CONFIG = 2**24  # bytes of a JSON file that is looked into


def read_weights(folder: str | Path, label: str, **options) -> "PreTrainedModel":
    """Load a causal language model, and check that every tensor came from the files.

    Args:
        folder: a ``save_pretrained`` folder, or that of a GGUF file.
        label: the name of the model in sentences.
        options: of `AutoModelForCausalLM.from_pretrained`.
    Raises:
        UserError: tensors (tied ones aside) are missing, of another shape, left over, or not finite (transformers would
            use random numbers for the first two).
    """
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **SAFE, **options
    )
    for names, what in (
        (found["missing_keys"], "missing from its files"),
        ({name for name, *_ in found["mismatched_keys"]}, "of another shape in its files than in its config.json"),
        (found["unexpected_keys"], "in its files without a place in its config.json"),
    ):
        if names:
            are = "tensor is" if len(names) == 1 else "tensors are"
            raise UserError(
                f"{label} is not whole: {len(names):,} {are} {what} ({some(sorted(names))}); fetch or save it again."
            )
    check_finite(model, label)
    return model


def check_index(folder: Path, label: str) -> None:
    """Raises UserError where an index of shards names anything but files of the folder: transformers would read it."""
    for file in folder.glob("*.index.json"):
        try:
            shards = list(read_json(file)["weight_map"].values())
        except (TypeError, KeyError, AttributeError):
            continue  # what transformers cannot read either
        outside = [name for name in shards if not isinstance(name, str) or name != Path(name).name]
        if outside:
            raise UserError(f"The {file.name} of {label} names weights outside of its folder: {some(outside)}.")


def check_fits(folder: Path, config: object, label: str, device: str, dtype: "torch.dtype") -> None:
    """Refuse a model whose configuration asks for more layers than its files hold tensors, or for more memory than is
    free: transformers would make what is missing, whatever its size.

    Raises:
        UserError: it asks for too much.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    held = 0
    for path in folder.glob("*.safetensors"):
        if not path.is_file():  # a FIFO would block
            raise UserError(f"{label} cannot be loaded: {shown(path.name)} is no regular file.")
        with safe_open(path, "pt") as file:
            held += len(file.keys())
    if not held:
        raise FileNotFoundError(folder / "model.safetensors")
    layers = getattr(config, "num_hidden_layers", 0)
    if not isinstance(layers, int) or layers > held:
        raise UserError(
            f"{label} is not whole: its config.json asks for {shown(layers)} layers, and its files hold "
            f"{held:,} tensors."
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, **SAFE)
    numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    advice = "choose a smaller model, or another device"
    check_memory(numbers * dtype.itemsize, f"{label}, of {numbers:,} numbers,", advice, device)


def check_runs(model: "PreTrainedModel", tokenizer, label: str) -> None:
    """Raises UserError for a model or a tokenizer whose configuration lets it load, but not run."""
    import torch

    try:
        tokenizer.decode(tokenizer.encode("Is it hot?"), skip_special_tokens=True)
        tokenizer("Is it hot?", add_special_tokens=False)
        with torch.inference_mode():
            logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False).logits
        if logits.shape[:2] != (1, 2):
            raise ValueError("other shapes")
    except Exception as reason:  # a configuration can be wrong in any way
        if out_of_memory(reason):
            raise
        raise UserError(
            f"{label} cannot be run: its configuration does not suit its weights or its tokenizer; fetch it again."
        ) from reason


def check_finite(model: "PreTrainedModel", label: str) -> None:
    """Raises UserError where weights of a model are NaN or infinite; it names them."""
    broken = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise UserError(
            f"{label} has weights that are not finite numbers, in {some(broken)}: fetch it again, or choose another."
        )


def own_code(folder: Path) -> str | None:
    """The configuration file of a model folder that names code of the model's own (``auto_map``); None without one."""
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        found = read_json(folder / name, MAX_CONFIG)
        if isinstance(found, dict) and "auto_map" in found:
            return name
    return None
