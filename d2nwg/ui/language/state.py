"""What the Language tab keeps for a visitor."""

from dataclasses import dataclass
from typing import Any

from d2nwg.llm.chat import ChatSettings
from d2nwg.llm.tally import Ballots
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
        misranked: whether the line below says that it cannot be ranked as was asked.
        variant: the tensors of the model to compare with (by their names), or None.
        variant_of: the name of the model that they belong to.
        made: the refinement that they were made by, a `d2nwg.llm.refine.Refined`, or None.
        noise: the tensors of the same search with noise, while that is compared with as well, or None.
        talk: the conversation.
        compared: the `variant` that it compares with.
        ballots: where the votes are counted.
        asking: the message that is being answered.
    """

    looked: Looked | None = None
    misranked: bool = False
    variant: dict | None = None
    variant_of: str | None = None
    made: Any = None
    noise: dict | None = None
    talk: Talk | None = None
    compared: dict | None = None
    ballots: Ballots | None = None
    asking: Asking | None = None

    def compare(self, tensors: dict | None, model: str | None, made: Any = None) -> None:
        """Set what the model is compared with."""
        self.variant, self.variant_of, self.made, self.noise = tensors, model, made, None
