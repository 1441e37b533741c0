"""Adapters from descriptions, and language models: tables 5–7, 13, 14, 17 and 18."""

import json
from statistics import mean

from benchmarks.papers.markdown import ROOT
from benchmarks.papers.run import Run
from benchmarks.papers.spec import (
    FACT,
    NOT,
    OUT_OF_REACH,
    PARTLY,
    Entry,
    Grid,
    Published,
    Verdict,
    always,
    grid,
)

GLUE = ("sst2", "mrpc", "cola (Matthews)", "qnli", "rte", "stsb (Pearson)")  # in the paper's order
ADAPTERS = Published(
    "Adapters from descriptions",
    "python -m benchmarks.adapters",
    keep=lambda cells: cells[0] in GLUE,
    columns=("head", "trained", "description", "paraphrase", "look up", "oracle5"),
    title="all-MiniLM-L6-v2; `description`: generated from words that training saw, `paraphrase`: from others",
)


def adapters_verdict(found: dict[str, Grid]) -> Verdict:
    """Generated adapters are as good as trained ones."""
    one = found["published-0"]
    trained, made, told, best = (
        mean(one[label, column] for label in GLUE) for column in ("trained", "description", "paraphrase", "oracle5")
    )
    ours = f"average: trained {trained:.1f}, generated {made:.1f} (oracle, best 5 of 8: {best:.1f})"
    words = f"{made - trained:+.1f} points from trained ones where the words are known"
    words += f", {told - trained:+.1f} from a paraphrase"
    return Verdict(PARTLY, ours, f"{words}; no RoBERTa, at most 1,500 texts a task to train on")


def descriptions(run: Run) -> list[Grid]:
    """The descriptions that adapters are generated from here, of the paper's six tasks."""
    said = json.loads((ROOT / "benchmarks" / "text_tasks.json").read_text(encoding="utf-8"))
    names = [label.partition(" ")[0] for label in GLUE]
    return [
        grid("a description that training saw, and one that it did not", "seen | unseen", {
            name: [said[name]["descriptions"][0], said[name]["aside"][0]] for name in names
        })
    ]  # fmt: skip


_DESCRIPTIONS = {
    "STS-B": ["Predict the similarity score between two sentences. Rate their similarity on a scale from 0 to "
    "5, where 0 "
              "indicates no meaning overlap, 1 indicates very little overlap, and 5 indicates complete overlap "
              "in meaning."],
    "MRPC": ["Determine the semantic equivalence of two given sentences (Sentence 1 and Sentence 2). If the "
    "sentences are "
             "semantically equivalent, return 1. If they are not, return 0."],
    "SST-2": ["Determine the sentiment of a given sentence. Respond with 0 if the sentiment is negative and 1 if the "
              "sentiment is positive."],
    "CoLA": ["Evaluate whether the given sentence is both syntactically and semantically correct. If it is, "
    "respond with "
             "\"1\"; otherwise, respond with \"0\"."],
    "QNLI": ["Evaluate whether the given response properly answers the provided question. If the response answers the "
             "question correctly, return 0; otherwise, return 1."],
    "RTE": ["Determine if a given hypothesis is true (entailment), false (contradiction), or undetermined "
    "(neutral) based "
            "on a provided premise."],
}  # fmt: skip

REFINING = "Refining a language model"
FROM_ZOO = Published(
    REFINING,
    "python -m d2nwg llm refine default --zoo",
    title="SmolLM2-135M-Instruct, from a zoo of eight fine-tunes",
)
FROM_ONE = Published(
    REFINING,
    "python -m d2nwg llm refine default --select … --criterion",
    table=1,
    title="SmolLM2-135M-Instruct, from the model alone, as in the paper",
)


def refining_verdict(found: dict[str, Grid]) -> Verdict:
    """From the model alone, better than chance and than noise?"""
    one, zoo = found["published-1"], found["published-0"]
    gains, beside = ([one[label, i] for i in range(len(one.columns))] for label in ("against the base", _noise(one)))
    of_zoo = [zoo["against the base", i] for i in range(len(zoo.columns))]
    alone, other, all_of_zoo = (", ".join(f"{gain:+.1f}" for gain in row) for row in (gains, beside, of_zoo))
    ours = f"from the model alone {alone} points (noise of the same size {other}); from a zoo {all_of_zoo}"
    words = "from one model no gain beyond noise; a zoo of fine-tunes gains, by its average"
    return Verdict(
        NOT if mean(gains) <= max(mean(beside), 0) else PARTLY,
        ours,
        f"{words}; 135 million parameters instead of 1 to 8 billion",
    )


PARTS = Published(
    REFINING,
    "python -m d2nwg llm refine default --parts",
    table=2,
    title="SmolLM2-135M-Instruct, from the model alone: its output head, and all of its parameters",
)


def head_verdict(found: dict[str, Grid]) -> Verdict:
    """The output head refined from the model alone: better than before, and than noise?"""
    one = found["published-0"]
    before, after, gain, beside = (one[label, 0] for label in ("base", "refined", "against the base", _noise(one)))
    ours = f"{before:.1f} → {after:.1f} (noise of the same size, chosen alike: {beside:+.1f})"
    known = gain > max(beside, 0)
    words = "one seed, within chance" if known else "no gain beyond noise"
    return Verdict(PARTLY if known else NOT, ours, f"{words}; 500 questions of six sets, 135 million parameters")


def whole_verdict(found: dict[str, Grid]) -> Verdict:
    """All parameters: is the model that is generated as good as it was?"""
    one = found["published-0"]
    before, after, beside, rebuilt = (one[label, 1] for label in ("base", "refined", _noise(one), "all of it rebuilt"))
    replaced = dict(one.rows)["parts replaced"][1]
    ours = (
        f"{before:.1f} → {after:.1f}, {replaced} parts replaced (noise of the same size, chosen alike: {beside:+.1f})"
    )
    words = f"as good within chance, as few parts were replaced: generated at once it is right on {rebuilt:.1f} %"
    return Verdict(NOT, ours, f"{words}; 500 questions of six sets, 135 million parameters")


def _noise(one: Grid) -> str:
    return next(label for label, _ in one.rows if label.startswith("noise"))


ENTRIES = (
    Entry(
        "table5",
        "Adapters (LoRA) from descriptions of tasks",
        "average of six GLUE tasks: LoRA 85.2, generated 85.3 (best 5 samples)",
        adapters_verdict,
        paper=(
            grid(
                "RoBERTa-base",
                "SST-2 | MRPC | CoLA | QNLI | RTE | STS-B | average",
                {
                    "fine-tuned": [94.8, 90.2, 63.6, 92.8, 78.7, 91.2, 85.2],
                    "LoRA": ["95.1 ± 0.2", "89.7 ± 0.7", "63.4 ± 1.2", "93.3 ± 0.3", "78.4 ± 0.8", "91.5 ± 0.2", 85.2],
                    "FourierFT": [
                        "94.2 ± 0.3",
                        "90.0 ± 0.8",
                        "63.8 ± 1.6",
                        "92.2 ± 0.1",
                        "79.1 ± 0.5",
                        "90.80 ± 0.2",
                        85.0,
                    ],
                    "D2NWG": ["94.3 ± 0.1", "90.3 ± 0.5", "64.3 ± 1.2", "92.6 ± 0.2", "79.6 ± 0.4", "91.0 ± 0.3", 85.3],
                },
            ),
        ),
        substituted="all-MiniLM-L6-v2 (22 million parameters) instead of RoBERTa-base (125), descriptions read "
        "by the same "
        "encoder instead of Llama-3-8B: what two cores can train",
        published=(ADAPTERS,),
    ),
    Entry(
        "table6",
        "Refining a language model from its own weights",
        "Llama-3.1-8B: Winogrande 67.17 → 67.61, ARC-Challenge 64.93 → 65.74, HellaSwag 78.58 → 78.86",
        refining_verdict,
        paper=(
            grid(
                "percent right",
                "Winogrande, 5 shots | ARC-Challenge, 25 shots | HellaSwag, 25 shots",
                {
                    "Llama-3.1-8B-Instruct": ["67.17", "64.93", "78.58"],
                    "D2NWG": ["67.61", "65.74", "78.86"],
                    "Mistral-7B-Instruct": ["69.93", "59.22", "81.97"],
                    "D2NWG ": ["70.80", "59.80", "82.04"],
                    "Llama-3.2-1B-Instruct": ["56.75", "40.96", "61.67"],
                    "D2NWG  ": ["57.17", "41.55", "61.70"],
                },
            ),
        ),
        substituted="SmolLM2-135M-Instruct instead of models of 1 to 8 billion parameters: what two cores can score",
        published=(FROM_ZOO, FROM_ONE),
    ),
    Entry(
        "table7",
        "Open LLM Leaderboard, second version",
        "average: Llama-3.2-1B-Instruct 13.76 → 14.12, Llama-3.1-8B-Instruct 27.91 → 28.50",
        always(
            OUT_OF_REACH,
            why="size, and the leaderboard is closed; `llm refine --report lm-eval:TASK` reports the same "
            "tasks on models "
            "that fit",
        ),
        paper=(
            grid(
                "as the leaderboard counts",
                "IFEval | BBH | GPQA | MATH | MuSR | MMLU-Pro | average",
                {
                    "Llama-3.2-1B-Instruct": [56.78, 8.74, 3.36, 2.96, 2.97, 7.58, 13.76],
                    "D2NWG": [58.44, 8.82, 1.68, 6.04, 0.66, 9.09, 14.12],
                    "SauerkrautLM-8B-Instruct": [80.17, 31.00, 5.37, 11.18, 11.52, 32.12, 28.56],
                    "D2NWG ": [80.33, 31.10, 5.26, 11.56, 11.52, 32.07, 28.64],
                    "Llama-3.1-8B-Instruct": [78.56, 29.89, 2.35, 17.60, 8.41, 30.68, 27.91],
                    "D2NWG  ": [77.85, 30.39, 4.47, 17.52, 9.64, 31.02, 28.50],
                },
            ),
        ),
    ),
    Entry(
        "table13",
        "Answers of a base and a refined model, side by side",
        "two questions, both answered well by both",
        always(
            FACT,
            "`python -m d2nwg llm chat default --against refined`, and the Language tab with a blind vote",
            "two chosen answers measure nothing; a vote on many can be counted",
        ),
        substituted="SmolLM2-135M-Instruct",
    ),
    Entry(
        "table14",
        "Descriptions of the GLUE tasks",
        "one of each task",
        always(
            FACT, "five of each of twenty tasks, two of them kept from training", "descriptions and paraphrases below"
        ),
        paper=(grid("by GPT-4", "description", _DESCRIPTIONS),),
        substituted="written for this project; the vectors are all-MiniLM-L6-v2's instead of Llama-3-8B's",
        measure=descriptions,
    ),
    Entry(
        "table17",
        "The output head of Phi-3-mini",
        "ARC-Challenge 87.16 → 87.36, ARC-Easy 63.23 → 63.74, HellaSwag 73.65 → 73.65, Winogrande 76.64 → 76.72",
        head_verdict,
        paper=(
            grid(
                "percent right",
                "ARC-Challenge | ARC-Easy | HellaSwag | Winogrande",
                {"pretrained": ["87.16", "63.23", "73.65", "76.64"], "D2NWG": ["87.36", "63.74", "73.65", "76.72"]},
            ),
        ),
        substituted="SmolLM2-135M-Instruct, whose head is its embeddings",
        published=(PARTS,),
    ),
    Entry(
        "table18",
        "All weights of GPT-2",
        "leaderboard average 6.3 → 6.29",
        whole_verdict,
        paper=(
            grid(
                "as the leaderboard counts",
                "IFEval | BBH | GPQA | MATH | MuSR | MMLU-Pro | average",
                {
                    "GPT-2": [17.8, 2.83, 1.12, 0.3, 13.91, 1.84, 6.3],
                    "D2NWG": [19.16, 2.85, 1.01, 0.38, 12.68, 1.68, 6.29],
                },
            ),
        ),
        substituted="SmolLM2-135M-Instruct; GPT-2's weights and the leaderboard are not at hand",
        published=(PARTS,),
    ),
)
