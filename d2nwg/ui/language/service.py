"""What the Language tab does, without gradio: library calls, and the files they leave."""

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from d2nwg.llm.chat import Answer, ChatSettings, answer_together, stopped
from d2nwg.llm.conversation import Conversation, Turn
from d2nwg.ui.access import on_a_space
from d2nwg.ui.gpu import on_gpu
from d2nwg.ui.language.models import located, named
from d2nwg.ui.libraries import import_libraries
from d2nwg.ui.uploads import own_file
from d2nwg.utils.errors import Cancelled, UserError
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
        swapped: whether the second model stands left.
        writing: the message that is being answered, or None, and its answers so far.
        before: votes of earlier conversations with the same models, as conversations.
    """

    model: str
    kept: Conversation
    swapped: bool = False
    writing: str | None = None
    answers: list[Answer] = field(default_factory=list)
    before: list[Turn] = field(default_factory=list)

    @property
    def votes(self) -> Conversation:
        """All turns that may hold a vote."""
        return Conversation(self.kept.names, [*self.before, *self.kept.turns])


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
    """An empty conversation; who stands where is drawn. Votes of one before with the same models are kept."""
    kept = before.votes.turns if before and (before.model, before.kept.names) == (model, names) else []
    return Talk(model, Conversation(names), random.random() < 0.5, before=kept)


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


def answer(talk: Talk, message: str, settings: ChatSettings, variant: dict | None, progress: Progress = silent) -> Turn:
    """Answer a message with the base and, where there is a `variant` (name → tensor), with the base so changed; what is
    written so far stands in `talk`. Stopping keeps it."""
    talk.writing, talk.answers = message, [Answer() for _ in talk.kept.names]
    asked = [talk.kept.messages(i, message) for i in range(len(talk.kept.names))]
    fetch(talk.model, progress)
    with contextlib.closing(_written(talk.model, asked, settings, variant or {}, progress=progress)) as rounds:
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
    name: str, asked: list, settings: ChatSettings, variant: dict, progress: Progress = silent
) -> Iterator[list[Answer]]:
    """The answers of the base and, if two are asked, of its variant, as they grow."""
    from d2nwg.llm.delta import variant_of

    model = load(name, progress)
    speakers = [(model.model, model.tokenizer)]
    if len(asked) == 2:
        speakers.append((variant_of(model.model, variant), model.tokenizer))
    yield from answer_together(speakers, asked, settings)


def finish(talk: Talk, turn: Turn | None, blind: bool) -> None:
    """Put an answered message into the conversation; None: it came to nothing."""
    talk.writing, talk.answers = None, []
    if turn is not None:
        talk.kept.turns.append(replace(turn, blind=blind))
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
