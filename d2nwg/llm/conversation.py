"""Conversations with one model or several: differing words, votes, and export as JSON or Markdown."""

import difflib
import json
from dataclasses import asdict, dataclass, field, replace

from d2nwg.llm.chat import Answer, ChatSettings, Message, words_of
from d2nwg.llm.tally import Tally
from d2nwg.utils.text import number


@dataclass
class Turn:
    """One message and the answers to it, in the order of the models.

    Attributes:
        vote: the index of the preferred answer, ``same``, or None while there is none.
        blind: whether the person could not see which model was which when voting.
    """

    message: str
    answers: list[Answer]
    settings: ChatSettings
    vote: int | str | None = None
    blind: bool = False

    @property
    def equal(self) -> bool:
        """Whether there are two answers or more, all the same word for word."""
        return len(self.answers) > 1 and len({" ".join(answer.text.split()) for answer in self.answers}) == 1


@dataclass
class Conversation:
    """A conversation with one model or several; `names` are theirs."""

    names: tuple[str, ...]
    turns: list[Turn] = field(default_factory=list)

    def messages(self, model: int, message: str | None = None) -> list[Message]:
        """The conversation with one of the models as chat messages, and a new message after it."""
        messages = []
        for turn in self.turns:
            messages += [
                {"role": "user", "content": turn.message},
                {"role": "assistant", "content": turn.answers[model].text},
            ]
        return messages if message is None else [*messages, {"role": "user", "content": message}]


def differing(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The word-wise difference of two texts: each as pieces, with whether the piece is missing from the other text."""
    left, right = words_of(first), words_of(second)
    a, b = [], []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if i < j:
            a.append(("".join(left[i:j]), kind != "equal"))
        if k < m:
            b.append(("".join(right[k:m]), kind != "equal"))
    return a, b


def tally(conversation: Conversation) -> Tally:
    """The votes of a conversation with two models; pairs of equal answers count as such, voted for or not."""
    found = Tally()
    for turn in conversation.turns:
        if turn.equal:
            found = replace(found, equal=found.equal + 1)
        elif turn.vote is not None:
            found = found.counted(turn.vote)
    return found


def as_json(conversation: Conversation) -> str:
    """The conversation with settings, speeds and votes (two models): ``first``, ``second``, ``same``, ``equal``, and
    ``p`` of the exact binomial test, null without a decided vote."""
    votes = tally(conversation) if len(conversation.names) == 2 else None
    return json.dumps(
        {
            "models": conversation.names,
            "turns": [asdict(turn) for turn in conversation.turns],
            "votes": {**asdict(votes), "p": votes.p} if votes else None,
        },
        indent=1,
        ensure_ascii=False,
    )


def as_markdown(conversation: Conversation) -> str:
    """The conversation as Markdown."""
    names = " and ".join(f"**{name}**" for name in conversation.names)
    parts = [
        f"# A conversation with {' and '.join(conversation.names)}",
        f"{number(len(conversation.turns), 'message')} to {names}.",
    ]
    for turn in conversation.turns:
        settings = turn.settings
        parts.append(
            "## " + " ".join(turn.message.split())
            if len(turn.message) < 80 and "\n" not in turn.message
            else "## Message\n\n" + quoted(turn.message)
        )
        parts.append(
            f"temperature {settings.temperature}, top-p {settings.top_p}, seed {settings.seed}"
            + (f", system prompt: {settings.system}" if settings.system else "")
        )
        for index, (name, answer) in enumerate(zip(conversation.names, turn.answers, strict=True)):
            chosen = " · preferred" if turn.vote == index else ""
            parts.append(
                f"**{name}** ({answer.tokens} tokens, {answer.speed:.1f} a second{chosen})\n\n" + quoted(answer.text)
            )
            if answer.notice:
                parts.append(f"*{answer.notice}*")
    if len(conversation.names) == 2:
        blind = sum(turn.blind and turn.vote is not None and not turn.equal for turn in conversation.turns)
        parts.append(f"Votes ({blind} blind): {tally(conversation).words(conversation.names)}")
    return "\n\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """A text as a quotation in Markdown."""
    return "\n".join(f"> {line}" for line in text.splitlines()) or "> "
