"""A path from one description of a task to another: adapters of a text encoder, by their condition and by weights.

Source: the interpolation between tasks of Zhang et al., arXiv 2506.17807. As in model merging, each of the two tasks
keeps the head that was made for it.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from d2nwg.adapters import strength
from d2nwg.bundles import load_adapter_pipeline
from d2nwg.conditions.class_names import check_names, class_of
from d2nwg.data.text_set import TextSet
from d2nwg.encoders.lora import AdaptedEncoder
from d2nwg.from_description import encoder_of, turned_sentences
from d2nwg.interpolation.description_ends import DescribedEnd, end_of
from d2nwg.interpolation.description_result import DescriptionPath, Stretch
from d2nwg.interpolation.methods import CONDITION, NAME_POINTS, WEIGHTS
from d2nwg.models.adapter_space import AdapterSpace
from d2nwg.pipelines.adapters import STEPS, AdapterGenerationPipeline, AdapterSamples, check_description
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import seed_number, whole
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.lora import distances, inner_products, mix_adapters
from d2nwg.weights.networks import State

MOST_POINTS = 101
ALIKE = 0.999  # cosine of two descriptions that are the same to the sentence encoder
SAMPLES, QUERY = 8, 100
CHUNK = 16  # adapters of the zoo whose matrices are there at once


def description_path(
    descriptions: Sequence[str],
    data: Sequence[TextSet | None] = (None, None),
    labels: Sequence[Sequence[str]] = ((), ()),
    *,
    bundle: str | Path | None = None,
    points: int = NAME_POINTS,
    num_samples: int = SAMPLES,
    max_query: int = QUERY,
    seed: int = 0,
    steps: int = STEPS,
    device: str | None = None,
    progress: Progress = silent,
) -> DescriptionPath:
    """Go from one description to another, by a bundle of adapters.

    All points start from the same noise; of the samples the one that is central for A is taken everywhere. The path by
    weights leads from the adapter of A to that of B: the sum of their B A, cut back to the rank.

    Args:
        descriptions: two.
        data: labelled texts of each task to score on; None for none. Of a set with a test split that, or else all.
        labels: names of the classes of each task; needed where the table's labels are not those of a known task.
        bundle: name or path; by default the shipped one.
        points: P, both ends included.
        num_samples: adapters to sample at a point.
        max_query: most texts of each task to score on, of all classes alike.
        seed: of the noise, and of the choice among more texts.
        steps: denoising steps.
        progress: stages "Opening the bundle", "Sampling adapters", "Scoring adapters".
    Raises:
        UserError: other than two descriptions, or two that are the same; labels or texts that do not fit; or a bundle
            that cannot be opened.
    """
    if len(descriptions) != 2:
        raise UserError(f"A path leads from one description to another: give two, not {len(descriptions):,}.")
    texts = [check_description(text) for text in descriptions]
    labels = [[class_of(name) for name in check_names(names)] if names else [] for names in labels]
    whole(points, "The number of points", 2, MOST_POINTS)
    whole(num_samples, "The number of samples", 1)
    whole(max_query, "The largest number of query texts", 1)
    seed_number(seed)
    progress("Opening the bundle", 0, 1)
    path, pipe = load_adapter_pipeline(bundle, device)
    space = pipe.weight_space
    vectors = pipe.condition_encoder.texts(texts)
    if float(vectors[0] @ vectors[1]) > ALIKE:
        raise UserError("The two descriptions read the same, so that nothing lies between them: describe two tasks.")
    with encoder_of(space, path.name, device) as encoder:
        progress("Opening the bundle", 1, 1)
        started = time.perf_counter()
        share = torch.linspace(0, 1, points)
        made = _sampled(pipe, texts, labels, share, num_samples, seed, steps, progress)
        chosen = made[0].central()
        ends = [
            end_of(letter, text, samples, chosen, given, names, space, encoder, max_query, seed)
            for letter, text, samples, given, names in zip("AB", texts, (made[0], made[-1]), data, labels, strict=True)
        ]
        adapters = [_state(samples, chosen) for samples in made]
        mixed = [mix_adapters([adapters[0], adapters[-1]], (1 - part, part)) for part in share.tolist()]
        scorer, zoo = _Scorer(encoder, (ends[0], ends[1]), turned_sentences(space)), _Zoo(space)
        done, stretches = 0, {}
        for method, states in ((CONDITION, adapters), (WEIGHTS, mixed)):
            rows = []
            for state in states:
                progress("Scoring adapters", done, 2 * points)
                rows.append(scorer(state))
                done += 1
            numbers = torch.stack(rows, 1)
            to = torch.stack([distances(state, end) for end in (adapters[0], adapters[-1]) for state in states])
            near, owners = zoo.nearest(states)
            far = torch.cat([to.reshape(2, points), near[None]]) / zoo.length
            stretches[method] = Stretch(states, numbers[:2], far, owners, numbers[2])
        progress("Scoring adapters", done, 2 * points)
        plain = scorer.plain()
    return DescriptionPath(
        (ends[0], ends[1]),
        path.name,
        encoder.shape,
        share,
        stretches,
        plain,
        zoo.within / zoo.length,
        seed,
        num_samples,
        time.perf_counter() - started,
    )


def _sampled(
    pipe: AdapterGenerationPipeline,
    texts: Sequence[str],
    labels: Sequence[Sequence[str]],
    share: Tensor,
    num_samples: int,
    seed: int,
    steps: int,
    progress: Progress,
) -> list[AdapterSamples]:
    """The samples of every point, all from the same noise."""
    made = []
    for number, part in enumerate(share.tolist()):
        progress("Sampling adapters", number, len(share))
        noise = torch.Generator().manual_seed(seed)
        own, to = labels
        made.append(pipe(texts[0], num_samples, noise, steps, to=texts[1], share=part, labels=own, to_labels=to))
    progress("Sampling adapters", len(share), len(share))
    return made


def _state(samples: AdapterSamples, number: int) -> State:
    return {name: tensor.float().cpu().contiguous() for name, tensor in samples.one(number)[0].items()}


class _Scorer:
    """Scores of an adapter on the texts of both ends, each with its own head, and how far it turns sentences."""

    def __init__(self, encoder: AdaptedEncoder, ends: tuple[DescribedEnd, DescribedEnd], sentences: list[str]):
        self.encoder, self.ends, self.sentences = encoder, ends, sentences
        encoder.reset()
        self._without = encoder.embed(sentences)

    def __call__(self, state: State) -> Tensor:
        """(3,): the score on A's texts and on B's, NaN without texts, and degrees."""
        self.encoder.load(state)
        degrees = float(strength(self.encoder, self.sentences, self._without).mean())
        return torch.tensor([*self._scores(), degrees])

    def plain(self) -> Tensor:
        """(2,) the scores without an adapter."""
        self.encoder.reset()
        return torch.tensor(self._scores())

    def _scores(self) -> list[float]:
        return [end.score(self.encoder) for end in self.ends]


class _Zoo:
    """The zoo's adapters as changes B A of the weights.

    Attributes:
        length: the median ‖B A‖, the unit of distances.
        within: the median distance of an adapter to the nearest other one of its task; NaN where no task has two.
    """

    def __init__(self, space: AdapterSpace):
        self.space, self.owners = space, space.zoo_tasks.long().cpu()
        lengths = [inner_products(part, part).clamp_min(0).sqrt() for part in self._parts()]
        self.length = torch.cat(lengths).median().float().clamp_min(1e-12) if lengths else torch.tensor(1.0)
        found = []
        for i in range(len(self.owners)):
            same = (self.owners == self.owners[i]).nonzero().flatten()
            if len(same := same[same != i]):
                one = self._states(torch.tensor([i]))
                found.append(min(float(distances(one, part).min()) for part in self._parts(same)))
        self.within = float(torch.tensor(found).median()) if found else float("nan")

    def nearest(self, states: Sequence[State]) -> tuple[Tensor, list[str]]:
        """(P,) distances of adapters to the nearest of the zoo, and the names of its tasks."""
        if not len(self.owners):
            return torch.full((len(states),), torch.nan), [""] * len(states)
        far = torch.cat([torch.stack([distances(state, part) for state in states]) for part in self._parts()], 1)
        best = far.min(1)
        return best.values, [self.space.tasks[int(self.owners[n])].name for n in best.indices]

    def _parts(self, numbers: Tensor | None = None):
        numbers = torch.arange(len(self.owners)) if numbers is None else numbers
        return (self._states(part) for part in numbers.split(CHUNK))

    def _states(self, numbers: Tensor) -> State:
        state = self.space.to_states(self.space.zoo_vectors[numbers], 1)
        return {name: tensor.cpu() for name, tensor in state.items() if ".lora_" in name}
