"""Answers of one or several language models to a conversation, generated side by side, one token at a time.

Nothing is kept between calls: the caller passes the whole conversation, so the conversations of two visitors cannot
mix. Models are shared within a process and only read. Each has a lock that is held for one token, so that concurrent
conversations alternate.
"""

import re
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from d2nwg.llm.models import check_tokens, context_length
from d2nwg.llm.templates import in_template
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import MOST_SEED, whole
from d2nwg.utils.text import is_utf8

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PIECE = 256  # tokens of a conversation read at a time: cancellation is possible between pieces
PLAIN_END = "\nUser:"  # where a model without a chat template goes on to speak for the person

Message = dict[str, str]  # role (system, user, assistant) and content, as chat templates take them
Speaker = tuple["PreTrainedModel", "PreTrainedTokenizerBase"]

_locks: "weakref.WeakKeyDictionary[PreTrainedModel, threading.Lock]" = weakref.WeakKeyDictionary()
_guard = threading.Lock()


@dataclass(frozen=True)
class ChatSettings:
    """Generation settings.

    Attributes:
        system: the system prompt; empty for the default of the model's template.
        temperature: of sampling; 0 is greedy decoding.
        top_p: nucleus sampling: draw from the smallest set of likeliest tokens with this probability.
        seed: of sampling; models that answer side by side use the same random numbers, so that differences come from
            their weights.
        max_tokens: most tokens of an answer.

    Raises:
        UserError: a value out of its limits.
    """

    system: str = ""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 256

    def __post_init__(self):
        for name, value, low, high in (
            ("Temperature", self.temperature, 0, 5),
            ("Top-p", self.top_p, 0.01, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(f"{name} should be a number from {low:,} to {high:,}.")
        whole(self.seed, "Seed", 0, MOST_SEED)
        whole(self.max_tokens, "The longest answer", 1, 8192)
        if not isinstance(self.system, str):
            raise UserError("The system prompt should be a text.")


@dataclass(frozen=True)
class Answer:
    """An answer, complete or so far.

    Attributes:
        text: without special tokens.
        tokens: how many were generated.
        seconds: time for all tokens but the first, which is computed together with reading the conversation.
        ended: why it is complete: ``end`` (an end token), ``length`` (`max_tokens`), ``stopped`` (cancelled); empty
            while it is being generated.
        notice: a sentence about messages left out of a long conversation; may be empty.
    """

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    ended: str = ""
    notice: str = ""

    @property
    def speed(self) -> float:
        """Tokens per second after the first; 0 while unknown."""
        return (self.tokens - 1) / self.seconds if self.seconds and self.tokens > 1 else 0.0


def answer_together(
    speakers: Sequence[Speaker],
    conversations: Sequence[Sequence[Message]],
    settings: ChatSettings,
) -> Iterator[list[Answer]]:
    """Generate the answers of several models side by side, one token of each in turn.

    Args:
        speakers: models with their tokenizers.
        conversations: for each speaker, messages that end with the user's; they differ by the earlier answers.
        settings: of all answers.
    Yields:
        All answers so far, after every round. The last round's are complete; a caller that stops earlier completes
        what it has by `stopped`.
    Raises:
        UserError: the last message alone is longer than a model's context, or is not the user's.
    """
    writers = [
        _Writer(model, tokenizer, conversation, settings)
        for (model, tokenizer), conversation in zip(speakers, conversations, strict=True)
    ]
    while any(not writer.answer.ended for writer in writers):
        for writer in writers:
            writer.step()
        yield [writer.answer for writer in writers]


def stopped(answers: Sequence[Answer]) -> list[Answer]:
    """Answers so far, marked as stopped where they were not complete."""
    return [one if one.ended else replace(one, ended="stopped", text=one.text.strip()) for one in answers]


def fit(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], system: str, context: int, reserve: int
) -> tuple[list[int], int]:
    """Tokenise a conversation, dropping its oldest messages until it fits.

    The system prompt is kept, and a message is dropped together with its answers.

    Args:
        context: tokens that the model can read and write.
        reserve: how many of them to leave free for the answer.
    Returns:
        The tokens, and the number of messages dropped.
    Raises:
        UserError: the last message alone is too long.
    """
    turns = [message for message in messages if message["role"] != "system"]
    if not turns or turns[-1]["role"] != "user":
        raise UserError("A conversation should end with your message.")
    if not all(is_utf8(text) for text in (system, *(message["content"] for message in turns))):
        raise UserError("A message or the system prompt holds half a character, which is not UTF-8: write it anew.")
    starts = [i for i, message in enumerate(turns) if i == 0 or message["role"] == "user"]
    for some in (starts[:1], starts[1:]):  # mostly the first fits
        for start, tokens in zip(some, tokens_of(tokenizer, [turns[start:] for start in some], system), strict=True):
            if not tokens:
                raise UserError("The model's chat template makes an empty text: choose another model.")
            if len(tokens) <= context - reserve:
                return tokens, start
    raise UserError(
        f"Your message is too long: with what goes around it, it has {len(tokens):,} tokens, and the model reads "
        f"{context - reserve:,}; shorten it."
    )


def tokens_of(tokenizer, conversations: Sequence[Sequence[Message]], system: str) -> Iterator[list[int]]:
    """The tokens of conversations, each up to where the assistant answers, in order."""
    if getattr(tokenizer, "chat_template", None):
        for text in in_template(tokenizer, conversations, system.strip()) if conversations else []:
            yield tokenizer(text, add_special_tokens=False).input_ids
        return
    prompt = f"{system.strip()}\n\n" if system.strip() else ""
    roles = {"user": "User", "assistant": "Assistant"}
    for messages in conversations:
        lines = [f"{roles[message['role']]}: {message['content'].strip()}" for message in messages]
        yield tokenizer("\n".join([prompt + lines[0], *lines[1:], "Assistant:"])).input_ids


@dataclass
class _Writer:
    """The generation of one answer by one model."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    conversation: Sequence[Message]
    settings: ChatSettings
    answer: Answer = field(default_factory=Answer)

    def __post_init__(self):
        import torch
        from transformers import DynamicCache

        context = context_length(self.model)
        reserve = min(self.settings.max_tokens, max(1, context // 2))
        system = self.settings.system
        self._unread, dropped = fit(self.tokenizer, self.conversation, system, context, reserve)
        check_tokens(self.model, self._unread)
        self._most = min(self.settings.max_tokens, context - len(self._unread))
        self._written: list[int] = []
        self._cache = DynamicCache(config=self.model.config)
        self._random = torch.Generator().manual_seed(int(self.settings.seed))
        self._ends = end_tokens(self.model, self.tokenizer)
        self._plain = not getattr(self.tokenizer, "chat_template", None)
        if dropped:
            self.answer = Answer(
                notice=f"The first {dropped} messages no longer fit into the {context:,} tokens that the model reads, "
                "and are left out."
            )

    def end(self, why: str) -> None:
        """Complete the answer, unless it is complete."""
        if not self.answer.ended:
            self.answer = replace(self.answer, ended=why, text=self._text(last=True))
            self._cache = None

    def step(self) -> None:
        """Read the next piece of the conversation, or generate one token."""
        if self.answer.ended:
            return
        began = time.monotonic()
        piece, self._unread = self._unread[:PIECE], self._unread[PIECE:]
        logits = self._forward(piece)
        if self._unread:
            return
        token = draw(logits, self.settings.temperature, self.settings.top_p, self._random)
        seconds = self.answer.seconds + (time.monotonic() - began if self._written else 0.0)
        if token in self._ends:
            self.answer = replace(self.answer, seconds=seconds)
            self.end("end")
            return
        self._written.append(token)
        self._unread = [token]
        self.answer = replace(self.answer, text=self._text(), tokens=len(self._written), seconds=seconds)
        if self._plain and PLAIN_END in self.tokenizer.decode(self._written, skip_special_tokens=True):
            self.end("end")
        elif len(self._written) >= self._most:
            self.end("length")

    def _forward(self, tokens: list[int]) -> "torch.Tensor":
        import torch

        with lock_of(self.model), torch.inference_mode():
            ids = torch.tensor([tokens], device=self.model.device)
            read = self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            return read.logits[0, -1].float().cpu()

    def _text(self, last: bool = False) -> str:
        text = self.tokenizer.decode(self._written, skip_special_tokens=True)
        if self._plain:
            text = text.split(PLAIN_END)[0]
        text = text if last else text.rstrip("\ufffd")  # a character of which only the first bytes are there
        return text.strip() if last else text.lstrip()


def draw(logits: "torch.Tensor", temperature: float, top_p: float, random: "torch.Generator") -> int:
    """Sample a token from logits (V,): greedily at temperature 0, otherwise by nucleus sampling (Holtzman et al., 2020)
    with probability `top_p`."""
    import torch

    if temperature <= 0:
        return int(logits.argmax())
    order = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    chances = order.values
    if top_p < 1:
        chances = chances.masked_fill(chances.cumsum(-1) - chances >= top_p, 0)
    return int(order.indices[torch.multinomial(chances, 1, generator=random)])


def lock_of(model: "PreTrainedModel") -> threading.Lock:
    """The lock to hold during a forward pass of a model."""
    with _guard:
        return _locks.setdefault(model, threading.Lock())


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that end an answer."""
    ends: list = []
    for found in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        ends += found if isinstance(found, (list, tuple)) else [found]
    return {token for token in ends if isinstance(token, int)}


def words_of(text: str) -> list[str]:
    """Split a text into words and the spaces between them; joined, they are the text."""
    return re.findall(r"\s+|\S+", text)
