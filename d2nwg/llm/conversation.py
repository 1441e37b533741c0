"""Conversations with one or two models: differing words, votes with a sign test, and export as JSON or Markdown."""

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from d2nwg.llm.chat import Answer, ChatSettings, Message, words_of
from d2nwg.utils.text import number

SAME = "same"  # a vote for neither


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


def tally(conversation: Conversation) -> dict:
    """The votes: ``wins`` for each model, ``same`` (ties), and ``p`` of the sign test (two-sided; None without a
    decided vote)."""
    votes = [turn.vote for turn in conversation.turns if turn.vote is not None]
    wins = [votes.count(model) for model in range(len(conversation.names))]
    return {"wins": wins, "same": votes.count(SAME), "p": coin(wins) if len(wins) == 2 else None}


def coin(wins: Sequence[int]) -> float | None:
    """The two-sided p-value of the exact sign test; None without votes."""
    total, fewer = sum(wins), min(wins)
    if not total:
        return None
    return min(1.0, 2 * sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total)


def tally_words(conversation: Conversation) -> str:
    """The votes in a sentence."""
    counted = tally(conversation)
    first, second = conversation.names
    one, two = counted["wins"]
    if not one + two + counted["same"]:
        return "No votes yet."
    words = f"{first} {one}, {second} {two}, the same {counted['same']}."
    if one + two == 0:
        return words
    if counted["p"] < 0.05:
        ahead = first if one > two else second
        return f"{words} {ahead} is preferred (a fair coin does this with p = {counted['p']:.3f})."
    return f"{words} That is within chance (a fair coin does this with p = {counted['p']:.2f})."


def as_json(conversation: Conversation) -> str:
    """The conversation with settings, speeds and votes."""
    return json.dumps(
        {
            "models": conversation.names,
            "turns": [asdict(turn) for turn in conversation.turns],
            "votes": tally(conversation),
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
        parts.append(f"Votes: {tally_words(conversation)}")
    return "\n\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """A text as a quotation in Markdown."""
    return "\n".join(f"> {line}" for line in text.splitlines()) or "> "
