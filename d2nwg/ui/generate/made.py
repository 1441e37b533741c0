"""What the Generate tab has made, and what the page shows of it: of heads here, of networks in `networks`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2nwg.evaluation.report import advice
from d2nwg.ui.generate import html
from d2nwg.ui.html import percent

SNIPPET = """from d2nwg import Head

head = Head.load("{file}")
probabilities, readable = head.probabilities([{item}])
for name, p in zip(head.classes, probabilities[0]):
    print(f"{{name:20}} {{p:.1%}}")

layer = head.module()  # a plain torch module, on {encoder} features"""
Picked = int | str | None  # the number of a sample, the name of a baseline, None for what is handed out
FILES = {"head": "head.safetensors", "samples": "samples.safetensors", "report": "report.json"}  # of `Generation.save`
ITEMS = {"image": '"picture.jpg"', "text": '"A text."', "pair": '("One text.", "The other.")'}  # in the snippet


@dataclass(eq=False)
class Result:
    """Heads that one press of the button has made.

    Attributes:
        images: the `ImageSet` or `TextSet` they were made from; None for names alone.
        generation: the `Generation`; a `NamedGeneration` for names alone.
        files: head, samples, report.
        figures: samples, confusion; None for names alone, of which nothing is measured.
        known: the likeliest classes of what was tried before, by the number of the sample (None: the chosen head) and
            the picture or text.
        draws: a sentence on several draws of the labelled items, or "" for none; None where they were not drawn yet
            (`d2nwg.ui.generate.luck`).
    """

    images: Any
    generation: Any
    files: dict[str, Path]
    figures: tuple
    known: dict[tuple, dict[str, float]] = field(default_factory=dict)
    draws: str | None = None
    kind = "head"  # a key of `html.TITLES`

    @property
    def seconds(self) -> float:
        """That it took."""
        return self.generation.seconds if self.images is None else self.generation.report.seconds.total

    @property
    def recommended(self) -> str | None:
        """The baseline to take instead, judged on the support; None without."""
        return None if self.images is None or not advice(self.generation.report) else self.generation.report.recommended

    @property
    def noun(self) -> str:
        """What the head tells apart: ``"image"``, ``"text"`` or ``"pair"`` of texts."""
        return "image" if self.images is None else self.images.noun

    @property
    def learns(self) -> bool:
        """Whether the labelled items make the head, so that there is a learning curve."""
        return self.kind == "head" and self.images is not None and self.generation.report.task is None

    @property
    def scale(self):
        """On which images of more than 8 bits a channel become 8 bits (`PixelScale`)."""
        return self.head(None).scale if self.images is None else self.images.scale()

    def baselines(self) -> dict[str, float]:
        """The accuracy of each baseline that can be picked, as a linear head."""
        return {name: self.head(name).info["query_accuracy"] for name in self.generation.baselines}

    def head(self, picked: Picked):
        """A sample, a baseline, or the chosen head: what looks at pictures and texts."""
        if isinstance(picked, str):
            return self.generation.baseline_head(picked)
        return self.generation.head if picked is None else self.generation.sample_head(picked)

    def name(self, picked: Picked) -> str:
        """Of what is in use. Without images there was nothing to choose by."""
        if picked is None:
            return "head" if self.images is None else "chosen head"
        return html.baseline(picked) if isinstance(picked, str) else f"sample {picked}"

    def about(self, picked: Picked) -> str:
        """What is in use, in some more words."""
        if picked is None:
            return self.generation.head.info["selection"]
        return f"right on {percent(self.head(picked).info['query_accuracy'])}"

    def sentence(self) -> str:
        """The result card."""
        if self.images is None:
            return html.named_result(self.generation)
        return html.result(self.generation.report, draws=self.draws)

    def table(self) -> dict | None:
        """The rows to pick from."""
        if self.images is None:
            return None
        report = self.generation.report
        return html.table(
            "chosen", report.query_accuracy.chosen, report.samples, html.HEAD_COLUMNS, baselines=self.baselines()
        )

    def strip(self, picked: Picked = None):
        """The figure of the samples' accuracies, with one of them ringed."""
        from d2nwg.figures.generate import samples_figure

        return samples_figure(self.generation.report, picked if isinstance(picked, int) else None)

    def save(self, picked: Picked, folder: Path) -> dict[str, Path]:
        """What is in use as files in a folder, by the name of what offers them."""
        return {"head": self.head(picked).save(folder / f"{self.stem(picked)}.safetensors")}

    def stem(self, picked: Picked) -> str:
        """Of the names of files of what is in use."""
        if picked is None:
            return self.kind
        return f"{self.kind}-{picked.replace('_', '-') if isinstance(picked, str) else f'sample-{picked}'}"

    def snippet(self, file: Path) -> str:
        """Lines of Python that use the file of what is in use."""
        head = self.generation.head
        return SNIPPET.format(file=file.name, encoder=head.encoder, item=ITEMS[head.noun])

    def held_out(self) -> np.ndarray:
        """Numbers of the images or texts that score."""
        return self.generation.data.query_index

    def truth(self) -> np.ndarray:
        """(m,) the classes of those, numbers."""
        return self.generation.data.query_labels.numpy()

    def predicted(self, picked: Picked) -> np.ndarray:
        """(m,) the classes that those have for what is in use."""
        from d2nwg.weights.networks import logits

        return logits(self.head(picked).state, self.generation.data.query).argmax(-1).numpy()

    def confusion(self, picked: Picked):
        """The figure of which classes are taken for which by what is in use."""
        from d2nwg.evaluation.accuracy import confusion_matrix
        from d2nwg.figures.generate import confusion_figure

        classes = self.head(None).classes
        return confusion_figure(confusion_matrix(self.truth(), self.predicted(picked), len(classes)), classes)

    def draw(self) -> tuple[Any, str]:
        """One of the held-out images or texts, another one each time, and its class, as the head calls it."""
        index = np.random.default_rng().choice(self.held_out())
        return self.images.items[index], self.generation.report.classes[self.images.labels[index]]
