"""Network-steps a second of training many small networks at once, against a loop of ordinary PyTorch training with the
same data, batches and steps; writes JSON and prints the table.

    python -m benchmarks.populations DATA [--networks cnn …] [--count M] [--steps N] [--batch B] [--repeats R]
                                     [--device D] [--out FILE.json]

The loop is a module, `torch.optim.Adam` with its defaults and batches of ready floats on the device, one network after
another; and the same with modules and images in the memory format ``channels_last``. They take turns within each
repetition, and numbers are medians. On one thread of a CPU the clock is the processor time of this process, which other
programs change little; otherwise it is wall time.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from d2nwg.data.arrays import load_arrays
from d2nwg.utils.devices import resolve_device
from d2nwg.weights.networks import State, pick
from d2nwg.weights.populations import accuracy_of, as_input, orders, stack_states, train_networks
from d2nwg.weights.small_networks import NETWORKS, initial_state

LR = 5e-3


def ordinary(
    module: nn.Module,
    states: State,
    images: Tensor,
    labels: Tensor,
    steps: int,
    batch: int,
    memory: torch.memory_format,
) -> State:
    """The baseline: one network after another."""
    module, trained = copy.deepcopy(module).to(memory_format=memory), []  # type: ignore[call-overload]
    images = as_input(images).clone(memory_format=memory)  # as data loaders make them; with one channel both are alike
    for number in range(len(states["head.bias"])):
        module.load_state_dict(pick(states, number))
        module.train()
        optimiser = torch.optim.Adam(module.parameters(), lr=LR)
        for chosen in islice(orders(number, len(labels), batch), steps):
            chosen = chosen.to(images.device)
            loss = cross_entropy(module(images[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        trained.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    return stack_states(trained)


def measure(name: str, data, args: argparse.Namespace, device: str) -> dict:
    """Both on one architecture."""
    channels, classes = data.channels, len(data.classes)
    module = NETWORKS[name].build(channels, classes, args.size).to(device)
    images, labels, test, test_labels = (
        torch.from_numpy(x).to(device) for x in (data.train, data.train_labels, data.test, data.test_labels)
    )
    start = stack_states([initial_state(name, channels, classes, args.size, 0)] * args.count)
    start = {key: tensor.to(device) for key, tensor in start.items()}

    def together(steps: int) -> State:
        options = {"steps": steps, "batch_size": args.batch, "lr": LR, "seeds": range(args.count)}
        return train_networks(module, start, images[None], labels[None], **options)

    given = module, start, images, labels
    ways: dict[str, Callable[[int], State]] = {
        "ordinary": lambda steps: ordinary(*given, steps, args.batch, torch.contiguous_format),
        "channels_last": lambda steps: ordinary(*given, steps, args.batch, torch.channels_last),
        "together": together,
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    right = {}
    for warm in ways.values():
        warm(min(5, args.steps))  # libraries choose their kernels
    for _ in range(args.repeats):
        for way, train in ways.items():
            began = _clock(device)
            trained = train(args.steps)
            spent[way].append(_clock(device) - began)
            right[way] = float(accuracy_of(module, trained, test[None], test_labels[None]).mean())
    rates = {way: args.count * args.steps / statistics.median(times) for way, times in spent.items()}
    return {
        "network": name,
        "numbers": sum(weight.numel() for weight in module.parameters()),
        "steps_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "ratio": round(rates["together"] / rates["ordinary"], 2),
        "accuracy": {way: round(value, 4) for way, value in right.items()},
        "seconds": {way: [round(one, 3) for one in times] for way, times in spent.items()},
    }


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.process_time() if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as zoo build --network takes it")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--count", type=int, default=8, help="networks (8; some hundreds on CUDA)")
    parser.add_argument("--steps", type=int, default=60, help="of each network")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--size", type=int, default=28, help="pixels a side")
    parser.add_argument("--rows", type=int, default=6_000, help="most training images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    device = resolve_device(args.device)
    data = load_arrays(args.data, size=args.size, rows=args.rows)
    print("| network | numbers | loop | in channels_last | together | ratio to the loop | accuracy, loop | together |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in args.networks:
        rows.append(measure(name, data, args, device))
        rate, right = rows[-1]["steps_per_second"], rows[-1]["accuracy"]
        print(
            f"| {name} | {rows[-1]['numbers']:,} | {rate['ordinary']:,} | {rate['channels_last']:,} | "
            f"{rate['together']:,} | {rows[-1]['ratio']} | {right['ordinary']:.1%} | {right['together']:.1%} |"
        )
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.processor()}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    if args.out:
        args.out.write_text(json.dumps({"settings": settings, "device": device, **machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
