"""Several architectures, whole networks, other architectures and ablations: tables 9–11, 15, 16, 21 and 23, figures 2,
6, 7 and 9."""

from collections.abc import Callable

from benchmarks.papers.spec import (
    NOT,
    NOT_MEASURED,
    OUT_OF_REACH,
    PARTLY,
    Entry,
    Grid,
    Published,
    Verdict,
    always,
    grid,
    waits,
)

CLOSE = 2.0  # points within which samples count as good as what was trained
TRANSFER, ABLATIONS = "benchmarks.transfer", "benchmarks.ablations"
ALIGNED, JOINT = "Set Transformer, aligned", "Set Transformer, joint with the denoiser"
WHOLE = Published(
    "Whole models",
    "python -m benchmarks.whole_models",
    keep=lambda cells: cells[0].startswith(("the zoo", "sampled", "zoo members", "average", "distance")),
    title="fifty small networks of two architectures, trained on MNIST and notMNIST, learnt as one zoo",
)


RECONSTRUCTED = Published(
    "", f"python -m {TRANSFER}", table="checkpoint", title="checkpoints of CIFAR-10, one generator"
)
ASSEMBLED = Published(
    "", f"python -m {TRANSFER}", table="architecture", label=(0, 1), title="from the layers of ResNet-32"
)


def ablation(*marks: str) -> Published:
    """The rows of the ablations that bear one of these marks, and those beside all: what nothing was changed in too."""
    return Published(
        "",
        f"python -m {ABLATIONS}",
        table="table",
        keep=lambda cells: (
            cells[1].startswith(ALIGNED) or not cells[0] or any(mark in cells[0].split(", ") for mark in marks)
        ),
        label=(1,),
        title="seen tasks of a small zoo of heads",
    )


def ablated(judge: Callable[[Callable[[str], float]], Verdict]) -> Callable[[dict[str, Grid]], Verdict]:
    """A verdict on the ablations, from ``judge``, which is given the mean accuracy of a row's single samples by its
    label; not measured while their table does not stand in its page."""

    def verdict(found: dict[str, Grid]) -> Verdict:
        one = found.get("published-0")
        if one is None:
            return Verdict(NOT_MEASURED, why=f"`{ABLATIONS}` measures it")
        return judge(lambda label: one[label if label in one else f"{label}: one sample", "mean"])

    return verdict


def condition_verdict(right: Callable[[str], float]) -> Verdict:
    """Table 11. A zoo of one task, as the paper's, has no need of a condition; this one has many tasks."""
    with_it, without = right(ALIGNED), right("no condition")
    why = "a zoo of many tasks needs its condition, and the paper's zoo is of one task: its claim was not tried so"
    return Verdict(PARTLY, f"with a condition {with_it:.1f}, without {without:.1f}", why)


def encoders_verdict(right: Callable[[str], float]) -> Verdict:
    """Table 21: the order of the encoders, and what the predictor adds."""
    own, mlp = right(ALIGNED), right("two-layer MLP, aligned")
    gain = right("with a predictor that ranks samples") - own
    said = f"trained {right('heads of the zoo'):.1f}, MLP {mlp:.1f}, aligned Set Transformer {own:.1f}"
    order = "holds" if own > mlp else "does not hold"
    return Verdict(
        PARTLY, f"{said}, with predictor {own + gain:.1f}", f"the order of the encoders {order}; predictor {gain:+.1f}"
    )


def zoo_size_verdict(right: Callable[[str], float]) -> Verdict:
    """Figure 6."""
    sizes = [right(label) for label in ("an eighth of the zoo", "half of the zoo", ALIGNED)]
    raw = right("no VAE, diffusion of weights")
    grows = "a larger zoo is better" if sizes == sorted(sizes) else "a larger zoo is not always better"
    fails = "diffusion of the weights themselves works too" if raw > sizes[-1] - CLOSE else "the VAE is needed"
    words = f"an eighth, half, all of 1,000 heads: {', '.join(f'{one:.1f}' for one in sizes)}"
    words = f"{words}; without the VAE {raw:.1f}"
    return Verdict(PARTLY, words, f"{grows}; {fails}; scored on tasks of the zoo")


def alignment_verdict(right: Callable[[str], float]) -> Verdict:
    """Figure 7."""
    own, joint = right(ALIGNED), right(JOINT)
    alike = "alike, as the paper says of few data sets" if abs(own - joint) < CLOSE else "not alike"
    return Verdict(PARTLY, f"aligned {own:.1f}, joint {joint:.1f}", f"{alike}; three data sets, many were not tried")


def whole_verdict(found: dict[str, Grid]) -> Verdict:
    """Tables 9 and 16: samples are as good as what was trained; but so is noise of their size."""
    one = found["published-0"]
    trained, sampled, noise = ([one[label, i] for i in range(len(one.columns))] for label in
                               ("the zoo", "sampled", "zoo members + noise, as far off as the samples"))  # fmt: skip
    gap = min(s - t for s, t in zip(sampled, trained, strict=True))
    beside = max(abs(s - n) for s, n in zip(sampled, noise, strict=True))
    ours = f"trained {min(trained):.0f} to {max(trained):.0f}, sampled at worst {gap:+.1f} points from them"
    words = f"as good as the zoo, and so are zoo members with noise of that size (within {beside:.1f} points)"
    resnets = resnets_verdict(found, "published-1")
    return Verdict(PARTLY, ours, f"{words}; networks of 4,000 numbers. Of four depths of ResNet: {resnets.why}")


def resnets_verdict(found: dict[str, Grid], key: str = "published-0") -> Verdict:
    """Table 15, and the ResNets of table 9: whether samples are as good as what was trained."""
    if key not in found:
        return Verdict(NOT_MEASURED, why=f"`{TRANSFER}` measures it")
    own, sampled, again = (
        [found[key][label, name] for label, _ in found[key].rows]
        for name in ("its accuracy", "samples", "samples, BatchNorm recalibrated")
    )
    near = min(s - t for s, t in zip(sampled, own, strict=True)) > -CLOSE
    spans = [f"{min(values):.0f} to {max(values):.0f}" for values in (own, sampled, again)]
    said = f"trained {spans[0]}, sampled {spans[1]}, with statistics measured again {spans[2]}"
    return Verdict(PARTLY if near else NOT, said, f"{said}; one checkpoint a depth can only be remembered")


_RESNETS = "ResNet checkpoints for CIFAR-10 of other people, 0.27 to 0.85 million numbers, one of each depth"

ENTRIES = (
    Entry(
        "table9",
        "Several architectures in one generator",
        "ResNet-44 (CIFAR-10) trained 94.01, sampled 94.10; ResNet-44 (CIFAR-100) 71.63, 71.64; MobileNetV2 "
        "92.88, 93.11",
        whole_verdict,
        paper=(
            grid(
                "percent right",
                "ResNet-44, CIFAR-10 | ResNet-44, CIFAR-100 | MobileNetV2, CIFAR-10",
                {"pretrained": [94.01, 71.63, 92.88], "D2NWG": ["94.10 ± 0.09", "71.64 ± 0.02", "93.11 ± 0.20"]},
            ),
        ),
        substituted="two architectures of four thousand numbers; of MobileNetV2 and of CIFAR-100 no checkpoint "
        "is at hand",
        published=(WHOLE, RECONSTRUCTED),
    ),
    Entry(
        "table10",
        "Samples for CIFAR-10.1 and STL-10 from a zoo of 19 architectures",
        "CIFAR-10.1 83.1 (one pretrained model 75.2), STL-10 35.4 (32.4)",
        always(OUT_OF_REACH, why="data: CIFAR-10.1, STL-10 and 38 checkpoints are not at hand"),
        paper=(
            grid(
                "percent right",
                "CIFAR-10.1 | STL-10",
                {
                    "pretrained on CIFAR-10": [75.20, 32.37],
                    "pretrained on CIFAR-100": [0.25, 0.12],
                    "D2NWG": ["83.10 ± 0.06", "35.41 ± 0.13"],
                    "D2NWG, conditioned on test images": ["83.04 ± 0.06", "35.47 ± 0.12"],
                },
            ),
        ),
    ),
    Entry(
        "table11",
        "The last BatchNorm layers of a network, against p-diff",
        "CIFAR-10: 94.46 both; CIFAR-100: 76.18 (p-diff 76.10), with 100 and 200 epochs instead of tens of thousands",
        ablated(condition_verdict),
        paper=(
            grid(
                "accuracy of 100 sampled sets of 2,048 weights",
                "CIFAR-10 average | median | best | CIFAR-100 average | median | best | runtime",
                {
                    "p-diff": [94.46, 94.46, 94.52, "76.1028", 76.13, 76.21, "3 h"],
                    "D2NWG": [94.46, 94.47, 94.50, "76.1796", 76.18, 76.24, "1 h 30"],
                },
            ),
        ),
        substituted="heads on EfficientNet-Lite0: hundreds of fine-tuned ResNets are not at hand",
        published=(ablation("11"),),
    ),
    Entry(
        "table15",
        "One generator for one checkpoint each of CIFAR-10, CIFAR-100 and ImageNet",
        "top 1: CIFAR-10 92.98 → 93.14, CIFAR-100 72.39 → 72.60, ImageNet 58.18 → 58.26",
        resnets_verdict,
        paper=(
            grid(
                "percent right",
                "CIFAR-10 top 1 | top 5 | CIFAR-100 top 1 | top 5 | ImageNet top 1 | top 5",
                {
                    "pretrained": [92.98, 99.73, 72.39, 91.46, "58.178", "80.624"],
                    "D2NWG": [
                        "93.14 ± 0.25",
                        "99.76 ± 0.22",
                        "72.60 ± 0.15",
                        "91.29 ± 0.13",
                        "58.257 ± 1.022",
                        "81.01 ± 1.251",
                    ],
                },
            ),
        ),
        substituted=_RESNETS,
        published=(RECONSTRUCTED,),
    ),
    Entry(
        "table16",
        "All weights of a network",
        "ResNet18: MNIST 99.61 → 99.62, CIFAR-10 94.56 → 94.57, CIFAR-100 75.86 → 75.83",
        whole_verdict,
        paper=(
            grid(
                "percent right",
                "MNIST | CIFAR-10 | CIFAR-100",
                {"pretrained": [99.61, 94.56, 75.86], "D2NWG": ["99.62 ± 0.07", "94.57 ± 0.00", "75.83 ± 0.02"]},
            ),
        ),
        substituted="networks of four thousand numbers instead of ResNet18's 11 million: three hundred "
        "ResNet18s cannot "
        "be trained on two cores",
        published=(WHOLE, RECONSTRUCTED),
    ),
    Entry(
        "table21",
        "Encoders of the data set",
        "MNIST: MLP 67.0, pretrained Set Transformer 78.2, aligned Set Transformer 83.9 (with predictor 84.9)",
        ablated(encoders_verdict),
        paper=(
            grid(
                "percent right, seen data sets",
                "MNIST | SVHN | CIFAR-10 | STL-10",
                {
                    "pretrained": ["82.82 ± 1.38", "67.57 ± 0.59", "44.68 ± 3.15", "35.99 ± 1.15"],
                    "SKDE30": ["69.73 ± 5.12", "50.25 ± 6.12", "26.06 ± 3.01", "17.20 ± 3.43"],
                    "MLP encoder": ["67.04 ± 17.73", "35.65 ± 13.03", "17.41 ± 3.02", "20.36 ± 7.38"],
                    "Set Transformer, pretrained": ["78.21 ± 1.76", "60.90 ± 1.08", "28.68 ± 1.84", "34.75 ± 0.38"],
                    "D2NWG": ["83.92 ± 1.92", "61.81 ± 3.13", "43.08 ± 0.55", "31.45 ± 0.35"],
                    "D2NWG, with predictor": ["84.85 ± 0.83", "66.03 ± 1.36", "43.89 ± 0.15", "34.29 ± 0.13"],
                },
            ),
        ),
        substituted="heads on EfficientNet-Lite0 instead of the model zoo of Schürholt et al.",
        published=(ablation("20", "21"),),
    ),
    Entry(
        "table23",
        "Whole MobileNetV3s",
        "MNIST 99.42 → 99.55, SVHN 94.62 → 95.13, CIFAR-10 93.51 → 94.23, STL-10 94.01 → 94.02; across data "
        "sets 35 to 67 "
        "(pretrained 9 to 13)",
        always(
            OUT_OF_REACH,
            why="data and size: SVHN and STL-10 are not at hand, and forty fine-tuned networks of 2.8 million numbers "
            "take a GPU; the same is asked of small networks in table 16",
        ),
        paper=(
            grid(
                "percent right",
                "MNIST | SVHN | CIFAR-10 | STL-10",
                {
                    "pretrained": ["99.42 ± 0.05", "94.62 ± 0.18", "93.51 ± 0.16", "94.01 ± 0.10"],
                    "linear probe": ["96.88 ± 0.45", "57.23 ± 0.28", "82.85 ± 0.25", "95.63 ± 1.23"],
                    "D2NWG, whole": ["99.55 ± 0.02", "95.13 ± 0.10", "94.23 ± 0.27", "94.02 ± 0.10"],
                    "D2NWG, probe": ["97.56 ± 0.26", "57.41 ± 0.17", "83.64 ± 0.47", "95.74 ± 0.74"],
                    "across data sets: pretrained": [13.34, 8.90, 13.34, 8.90],
                    "across data sets: D2NWG, whole": ["66.82 ± 0.65", "35.20 ± 0.65", "36.70 ± 0.18", "51.50 ± 0.37"],
                    "across data sets: D2NWG, probe": ["42.86 ± 0.62", "20.974 ± 0.78", "26.56 ± 1.22", "47.33 ± 0.32"],
                },
            ),
        ),
    ),
    Entry(
        "figure2",
        "From ResNet-32's weights to ResNet-20, 44 and 56 on CIFAR-10",
        "far above the 10 % of random weights without fine-tuning; pretrained up to 93.5",
        waits(TRANSFER, "no CIFAR-100 checkpoint; a test part of 2,000 images", "published-0", "0 steps"),
        substituted=_RESNETS,
        published=(ASSEMBLED,),
    ),
    Entry(
        "figure6",
        "Size of the zoo (a), with and without the VAE (b)",
        "CIFAR-10 39.6, 42.2, 52.6 and STL-10 44.7, 64.8, 80.5 with 5,000, 10,000, 20,000 subsets; diffusion on raw "
        "weights fails",
        ablated(zoo_size_verdict),
        paper=(
            grid(
                "a: percent right, mean of the best 5 of 50 samples",
                "5,000 subsets | 10,000 | 20,000 | best random head",
                {
                    "CIFAR-10": ["39.60 ± 1.31", "42.15 ± 2.12", "52.64 ± 3.12", "12.11"],
                    "STL-10": ["44.66 ± 0.55", "64.83 ± 2.83", "80.49 ± 1.77", "17.12"],
                },
            ),
        ),
        substituted="heads on EfficientNet-Lite0; subsets of 476 classes instead of ImageNet's thousand; "
        "STL-10 is not at hand",
        published=(ablation("figure 6a", "figure 6b"),),
    ),
    Entry(
        "figure7",
        "Set Transformer aligned beforehand, or trained with the diffusion",
        "alike for few data sets; for many, joint training hardly converges",
        ablated(alignment_verdict),
        substituted="heads on EfficientNet-Lite0 instead of MLPs on CLIP",
        published=(ablation("figure 7"),),
    ),
    Entry(
        "figure9",
        "Vision transformers of five data sets",
        "sampled as good as pretrained",
        always(
            OUT_OF_REACH,
            why="data and size: five zoos of transformers of 2.8 million numbers, and SVHN, are not at hand",
        ),
    ),
)
