"""Small text sets whose classes are easy to tell apart."""

import csv
from itertools import pairwise, product
from pathlib import Path

TOPICS = {
    "cooking": (
        ["The soup", "This bread", "My curry", "Her pie"],
        ["needs more salt", "must bake for an hour", "smells of garlic", "is served with rice"],
    ),
    "football": (
        ["The striker", "Our goalkeeper", "The referee", "Their captain"],
        ["missed a penalty", "was injured in the match", "left the pitch", "talked about the final"],
    ),
    "astronomy": (
        ["The telescope", "This comet", "A distant galaxy", "The moon of Jupiter"],
        ["was seen last night", "orbits the sun", "shines very brightly", "is light years away"],
    ),
}


def topic_rows(per_class: int = 12, classes=tuple(TOPICS)) -> list[tuple[str, str]]:
    """(text, class) of so many texts a class, at most 16."""
    return [(" ".join(words) + ".", name) for name in classes for words in list(product(*TOPICS[name]))[:per_class]]


def write_topics(path: Path, per_class: int = 12, *, header=("text", "label"), classes=tuple(TOPICS)) -> Path:
    """A CSV of them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *topic_rows(per_class, classes)])
    return path


def write_pairs(path: Path, per_class: int = 10) -> Path:
    """A CSV of pairs of texts, of the same topic or not."""
    cooking, football = ([text for text, _ in topic_rows(16, (name,))] for name in ("cooking", "football"))
    rows = [(*pair, "same") for pair in pairwise(cooking)][:per_class]
    rows += [(*pair, "different") for pair in zip(cooking, football, strict=True)][:per_class]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    return path
