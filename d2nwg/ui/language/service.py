"""What the Language tab does, without gradio: library calls, and the files they leave."""

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.jobs.owner import Viewer
from d2nwg.llm.chat import Answer, ChatSettings, answer_together, stopped
from d2nwg.llm.conversation import Conversation, Turn
from d2nwg.llm.prompts import PROMPTS
from d2nwg.llm.tally import Ballots, Tally, pair_of
from d2nwg.ui.access import ACCESS, on_a_space
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.language.models import UPLOADED, located, named
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import Cancelled, UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import shown

MODES = {"paper's": "paper", "Spectrum's": "spectrum"}
DEFAULTS: dict[str, Any] = dict(mode="paper", percent=25, temperature=0, top_p=0.9, seed=0, longest=200)
LINKED = ("model", "mode", "percent")  # what a link may hold
MOST_MESSAGE = 20_000  # characters
MOST_TURNS = 200
WRITING = "Writing"  # the stage in which answers grow


class Looked(NamedTuple):
    """What one look at a model has made."""

    model: str  # what it calls itself
    source: str  # where it comes from, in words
    size: int  # its parameters
    matrices: list
    ranked: list
    mode: str


@dataclass
class Talk:
    """A visitor's conversation.

    Attributes:
        model: what the base was asked for by.
        kept: the conversation.
        blind: whether it is hidden which of the two models is which, from the first message to the vote.
        swapped: whether the second model stands left.
        writing: the message that is being answered, or None, and its answers so far.
        pair: what the two models are known by; empty for one.
        tally: the blind votes between them, in this conversation and earlier ones.
        lasting: whether those stay when the visit ends.
        prompts: those found to tell the two apart, with their differences.
        noise: whether there is a third model to compare with, that of the same search with noise.
    """

    model: str
    kept: Conversation
    blind: bool = False
    swapped: bool = False
    writing: str | None = None
    answers: list[Answer] = field(default_factory=list)
    pair: str = ""
    tally: Tally = field(default_factory=Tally)
    lasting: bool = False
    prompts: list[tuple[str, float]] = field(default_factory=list)
    noise: bool = False

    @property
    def done(self) -> bool:
        """Whether there are answers, and none is being written."""
        return self.writing is None and bool(self.kept.turns)

    @property
    def open(self) -> bool:
        """Whether the last answers can be voted for: a blind vote is cast once, and equal answers are left out."""
        last = self.kept.turns[-1] if self.done and len(self.kept.names) == 2 else None
        return last is not None and not last.equal and not (last.blind and last.vote is not None)


def check_look(mode, percent) -> dict:
    """The settings of a look. Raises UserError for a number out of its limits."""
    if mode not in MODES.values():
        raise UserError(f"The ratio is the {' or '.join(MODES)}.")
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 < percent <= 100:
        raise UserError("The share of each type should be above 0 and at most 100 percent.")
    return {"mode": mode, "percent": float(percent)}


def from_link(query: Mapping[str, str]) -> dict:
    """The control values that a link's query asks for; what is not to be had is left out. A link cannot name a folder:
    whoever opens it should not find their machine reading what a stranger wrote."""
    values: dict = {}
    if query.get("mode") in MODES.values():
        values["mode"] = query["mode"]
    with contextlib.suppress(UserError, ValueError, KeyError):
        values["percent"] = check_look("paper", float(query["percent"]))["percent"]
    return values


def fetch(name: str, progress: Progress = silent) -> None:
    """On a Space, have the files of a model there before a GPU is asked for; elsewhere `load` sees to that."""
    if on_a_space():
        import_libraries()
        from d2nwg.llm.models import locate_language_model

        locate_language_model(located(name, progress), progress=progress)


def load(name: str, progress: Progress = silent):
    """A model that `check_model` let pass, shared by all visitors."""
    import_libraries()
    from d2nwg.llm.models import load_language_model

    place = located(name, progress)
    with named(name, place):
        return load_language_model(place, progress=progress)


def look(name: str, mode: str, percent: float, progress: Progress = silent) -> Looked:
    """Load a model, measure its matrices, and rank them."""
    fetch(name, progress)
    return _measured(name, mode, percent, progress=progress)


@on_gpu
def _measured(name: str, mode: str, percent: float, progress: Progress = silent) -> Looked:
    from d2nwg.llm.spectrum import measure, rank

    model = load(name, progress)
    matrices = measure(model, progress=progress)
    ranked = rank(matrices, mode, percent)
    return Looked(model.name, model.source, model.model.num_parameters(), matrices, ranked, mode)


def again(looked: Looked, mode: str, percent: float) -> Looked:
    """The same matrices ranked otherwise."""
    from d2nwg.llm.spectrum import rank

    return looked._replace(ranked=rank(looked.matrices, mode, percent), mode=mode)


def layers_chart(looked: Looked):
    """The heat map of layers and types."""
    from d2nwg.figures.language import layers_figure

    return layers_figure(looked.ranked, looked.mode)


def spectrum_chart(looked: Looked, name: str):
    """One matrix's spectrum. Raises UserError where the model has no such matrix."""
    from d2nwg.figures.language import spectrum_figure

    return spectrum_figure(find(looked, name).matrix, looked.mode)


def find(looked: Looked, name: str):
    """The `Ranked` matrix of this name. Raises UserError where there is none."""
    for row in looked.ranked:
        if row.matrix.name == name:
            return row
    raise UserError(f"The model has no matrix {shown(name)}: pick one from the list.")


def first_pick(looked: Looked) -> str:
    """The matrix to show at first: of those chosen, the one whose ratio stands out most."""
    rows = [row for row in looked.ranked if row.chosen and row.snr is not None] or looked.ranked
    return max(rows, key=lambda row: row.snr or 0).matrix.name


def new_talk(model: str, names: tuple[str, ...], before: Talk | None = None) -> Talk:
    """An empty conversation; what is known of the two models from one before is kept."""
    if before is None:
        return Talk(model, Conversation(names))
    return replace(before, kept=Conversation(names), blind=False, swapped=False, writing=None, answers=[])


def ballots_of(viewer: Viewer) -> Ballots:
    """Where a visitor's votes are counted: in files, but on a Space, or without a token, for this visit only."""
    if on_a_space() or not (viewer.everything or viewer.owner):
        return Ballots()
    whole_machine = viewer.everything and not ACCESS.shared_jobs
    return Ballots(cache_dir() / "votes" / ("own" if whole_machine else "visitors"))


def known_pair(model: str, tensors: Mapping, viewer: Viewer) -> str:
    """What a visitor's votes between a model and its variant are kept by."""
    name = Path(model).name if model.startswith(UPLOADED) else model
    return f"{pair_of(name, tensors)} {viewer.owner if ACCESS.shared_jobs or not viewer.everything else ''}"


def begin(talk: Talk, blind: bool) -> Talk:
    """The conversation that the next message belongs to. With `blind` (between two models) that is a new one, unless
    this one is blind already; who stands where is drawn with its first message."""
    blind = blind and len(talk.kept.names) == 2
    if blind and talk.kept.turns and not talk.blind:
        talk = new_talk(talk.model, talk.kept.names, talk)
    if not talk.kept.turns:
        talk.swapped = blind and random.random() < 0.5
    talk.blind = blind
    return talk


def check_message(message: str | None) -> str:
    """A message as it may be sent. Raises UserError."""
    message = (message or "").strip()
    if not message:
        raise UserError("Write a message first.")
    if len(message) > MOST_MESSAGE:
        raise UserError(f"A message may have {MOST_MESSAGE:,} characters; yours has {len(message):,}.")
    return message


def chat_settings(system, temperature, top_p, seed, longest) -> ChatSettings:
    """What the controls say. Raises UserError for a number out of its limits."""
    if len(system or "") > MOST_MESSAGE:
        raise UserError(f"The system prompt may have {MOST_MESSAGE:,} characters.")
    numbers = (temperature, top_p, seed, longest)
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise UserError("Temperature and top-p should be numbers, the seed and the longest answer whole numbers.")
    return ChatSettings((system or "").strip(), temperature, top_p, int(seed), int(longest))


def answer(
    talk: Talk,
    message: str,
    settings: ChatSettings,
    variant: dict | None,
    noise: dict | None = None,
    progress: Progress = silent,
) -> Turn:
    """Answer a message with the base and, where there is a `variant` or also `noise` (name → tensor), with the base so
    changed; what is written so far stands in `talk`. Stopping keeps it."""
    talk.writing, talk.answers = message, [Answer() for _ in talk.kept.names]
    asked = [talk.kept.messages(i, message) for i in range(len(talk.kept.names))]
    changes = [variant or {}, noise or {}][: len(asked) - 1]
    fetch(talk.model, progress)
    with contextlib.closing(_written(talk.model, asked, settings, changes, progress=progress)) as rounds:
        for answers in rounds:
            talk.answers = answers
            try:
                progress(WRITING, sum(answer.tokens for answer in answers), 0)
            except Cancelled:
                talk.answers = stopped(answers)
                break
    return Turn(message, talk.answers, settings)


@on_gpu
def _written(
    name: str, asked: list, settings: ChatSettings, changes: list[dict], progress: Progress = silent
) -> Iterator[list[Answer]]:
    """The answers of the base and of the base with each of the changes, as they grow. All share the memory of what is
    not changed."""
    from d2nwg.llm.delta import variant_of

    model = load(name, progress)
    models = [model.model]
    for tensors in changes:
        needed = sum(tensor.numel() for tensor in tensors.values()) * model.model.dtype.itemsize
        check_memory(needed, "Another model to compare with", "compare fewer of them", model.device)
        models.append(variant_of(model.model, tensors))
    yield from answer_together([(one, model.tokenizer) for one in models], asked, settings)


@on_gpu
def find_prompts(
    name: str, variant: dict, count: int, prompts: Sequence[str] = PROMPTS, progress: Progress = silent
) -> list[tuple[str, float]]:
    """Of a list of prompts, those that tell a model and its variant apart, with their differences
    (`d2nwg.llm.telling.telling_prompts`)."""
    from d2nwg.llm.delta import variant_of
    from d2nwg.llm.telling import telling_prompts

    model = load(name, progress)
    other = replace(model, model=variant_of(model.model, variant))
    return telling_prompts(model, other, prompts, count, progress=progress)


def finish(talk: Talk, turn: Turn | None) -> None:
    """Put an answered message into the conversation; None: it came to nothing."""
    talk.writing, talk.answers = None, []
    if turn is not None:
        talk.kept.turns.append(replace(turn, blind=talk.blind))
        del talk.kept.turns[:-MOST_TURNS]


@on_gpu
def variant_from_file(path: str, name: str, progress: Progress = silent) -> dict:
    """The tensors of an uploaded delta, after a look whether it belongs to the model.

    Raises:
        UserError: it does not, or is damaged.
    """
    from d2nwg.llm.delta import check_base, read_delta

    delta = read_delta(own_file(path))
    check_base(delta, load(name, progress).model.state_dict())
    return delta.tensors


def write_talk(talk: Talk, folder: Path) -> tuple[Path, Path]:
    """The conversation as JSON and as Markdown."""
    from d2nwg.llm.conversation import as_json, as_markdown

    paths = folder / "conversation.json", folder / "conversation.md"
    paths[0].write_text(as_json(talk.kept), "utf-8")
    paths[1].write_text(as_markdown(talk.kept), "utf-8")
    return paths
