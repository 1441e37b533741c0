"""What the Language tab keeps for a visitor."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2nwg.llm.chat import ChatSettings
from d2nwg.ui.language.refining import Asked
from d2nwg.ui.language.service import Looked, Talk


@dataclass(frozen=True)
class Asking:
    """A message that is being answered, as it was sent."""

    talk: Talk
    message: str
    settings: ChatSettings


@dataclass
class LanguageState:
    """What each of the three steps keeps.

    Attributes:
        looked: the model that was looked at last.
        asked: what the last refinement was asked to do.
        folder: where it keeps its state, if somebody else is just at the same.
        log: its decisions so far.
        shown: how many of them the page shows.
        refined: the last refinement, a `d2nwg.llm.refine.Refined`.
        variant: the tensors of the model to compare with (by their names), or None.
        variant_of: the name of the model that they belong to.
        talk: the conversation.
        compared: the `variant` that it compares with.
        asking: the message that is being answered.
    """

    looked: Looked | None = None
    asked: Asked | None = None
    folder: Path | None = None
    log: list[dict] = field(default_factory=list)
    shown: int = 0
    refined: Any = None
    variant: dict | None = None
    variant_of: str | None = None
    talk: Talk | None = None
    compared: dict | None = None
    asking: Asking | None = None
