"""``llm chat`` and ``llm apply``: talk with language models in the terminal, and put a delta on its base."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from d2nwg.cli.common import finite, positive


def add_actions(actions, parent: argparse.ArgumentParser) -> None:
    """Add ``chat`` and ``apply`` to the actions of ``llm``."""
    chat = actions.add_parser(
        "chat",
        parents=[parent],
        help="talk with a model, or with several side by side",
        description="Answer every line of the standard input, in a terminal or from a pipe, until its end. With "
        "--against all models answer each line, and the words that differ from the first one's stand in [brackets] (in "
        "the first one's own answer those that the second did not write).",
        epilog="example: python -m d2nwg llm chat default --against refined/delta.safetensors --telling 4",
    )
    chat.add_argument("model", metavar="MODEL", help="a Hub id, a folder, a GGUF file, or default")
    chat.add_argument(
        "--against", metavar="MODEL", nargs="+", default=[], help="other models, or deltas of the first one"
    )
    chat.add_argument(
        "--telling",
        type=positive,
        metavar="N",
        help="answer first, each in a conversation of its own, the N short messages of a list that tell the first two "
        "models apart: the first one's answers differ most in likelihood between them (not saved)",
    )
    chat.add_argument("--system", default="", metavar="TEXT", help="the system prompt")
    chat.add_argument("--temperature", type=finite, default=0.0, metavar="T", help="0: always the likeliest (0)")
    chat.add_argument(
        "--top-p", type=finite, default=0.9, metavar="P", help="draw from the likeliest of this sum (0.9)"
    )
    chat.add_argument("--max-tokens", type=positive, default=256, metavar="N", help="the longest answer (256)")
    chat.add_argument("--save", metavar="FILE", help="keep the conversation, as .json or .md")
    chat.set_defaults(run=run_chat)

    apply = actions.add_parser(
        "apply",
        parents=[parent],
        help="put a delta on its base",
        description="Write the refined model that a delta and its base make, as a folder for transformers. Of several "
        "deltas of one base, the average is taken.",
        epilog="example: python -m d2nwg llm apply refined/delta.safetensors default --out refined-model",
    )
    apply.add_argument("delta", metavar="DELTA", nargs="+", help="delta.safetensors, or the folder that holds it")
    apply.add_argument("model", metavar="MODEL", help="the base: a Hub id, a folder, a GGUF file, or default")
    apply.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    apply.set_defaults(run=run_apply)


def run_apply(args: argparse.Namespace) -> None:
    """Apply a delta, or the average of several, and save the model."""
    from d2nwg.llm.delta import apply_delta, check_base, merge_deltas, read_delta
    from d2nwg.llm.export import THERE, save_model
    from d2nwg.llm.models import load_language_model
    from d2nwg.utils.outputs import claimed
    from d2nwg.utils.progress import TerminalProgress

    with claimed(args.out, empty=True, there=THERE):
        deltas = [read_delta(path) for path in args.delta]
        dtype = str(deltas[0].dtype).removeprefix("torch.")
        progress = TerminalProgress()
        base = load_language_model(args.model, device=args.device, dtype=dtype, fresh=True, progress=progress)
        delta = merge_deltas(deltas, base.model) if len(deltas) > 1 else deltas[0]
        check_base(delta, base.model.state_dict())
        apply_delta(delta, base.model)
        save_model(
            base.model,
            base.tokenizer,
            args.out,
            base=delta.base,
            source=base.folder,
            report={**delta.facts, "licence": base.licence},
            dtype=base.stored_dtype,
        )
    print(f"The refined model is in {args.out}.")


def run_chat(args: argparse.Namespace) -> None:
    """Read lines, print answers."""
    from d2nwg.utils.outputs import claimed

    with claimed(args.save) if args.save else nullcontext() as file:
        _talk(args, file)


def _talk(args: argparse.Namespace, file: Path | None) -> None:
    """The conversation, kept in ``file`` after each answer."""
    import sys
    from dataclasses import replace

    from d2nwg.llm.chat import ChatSettings
    from d2nwg.llm.conversation import Conversation, as_json, as_markdown
    from d2nwg.llm.delta import check_base, read_delta, variant_of
    from d2nwg.llm.models import load_language_model
    from d2nwg.llm.telling import telling_prompts
    from d2nwg.utils.errors import UserError
    from d2nwg.utils.paths import write_whole
    from d2nwg.utils.progress import TerminalProgress
    from d2nwg.utils.text import shown

    settings = ChatSettings(args.system, args.temperature, args.top_p, args.seed, args.max_tokens)
    if args.telling and not args.against:
        raise UserError("Messages tell two models apart: name the other one with --against.")
    progress = TerminalProgress()
    models = [load_language_model(args.model, device=args.device, progress=progress)]
    names = [str(models[0].name)]
    for other in args.against:
        if _is_delta(Path(other)):
            delta = read_delta(other)
            check_base(delta, models[0].model.state_dict())
            models.append(replace(models[0], model=variant_of(models[0].model, delta.tensors)))
            name = "refined"
        else:
            models.append(load_language_model(other, device=args.device, progress=progress))
            name = str(models[-1].name)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    speakers = [(one.model, one.tokenizer) for one in models]
    talk = Conversation(tuple(map(shown, names)))
    for prompt, difference in (
        telling_prompts(models[0], models[1], count=args.telling, progress=progress) if args.telling else ()
    ):
        print(f"> {prompt}\n(the first model's answer: {difference:+.3f} nats a token likelier under it)")
        _answer(speakers, Conversation(talk.names), prompt, settings)
    if sys.stdin.isatty():
        print("Write a message; an empty line ends the conversation.")
    while message := _next():
        talk.turns.append(_answer(speakers, talk, message, settings))
        if file:
            write_whole(file, as_markdown(talk) if file.suffix == ".md" else as_json(talk))


def _is_delta(path: Path) -> bool:
    return path.suffix == ".safetensors" or (
        (path / "delta.safetensors").is_file() and not (path / "config.json").is_file()
    )


def _next() -> str:
    """The next message; nothing at the end."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _answer(speakers, talk, message: str, settings):
    """Answer one message, printing it as it is written, or all answers where there are several."""
    from d2nwg.llm.chat import answer_together
    from d2nwg.llm.conversation import Turn, differing

    asked = [talk.messages(index, message) for index in range(len(speakers))]
    answers, shown = [], ""
    for answers in answer_together(speakers, asked, settings):
        text = answers[0].text
        if len(speakers) == 1 and text.startswith(shown):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    if len(speakers) == 1:
        print()
    for notice in {answer.notice for answer in answers if answer.notice}:
        print(f"({notice})")
    for index, name in enumerate(talk.names if len(speakers) > 1 else ()):
        pieces = differing(answers[0].text, answers[index or 1].text)[bool(index)]
        print(
            f"{name}: "
            + "".join(
                f"[{text.strip()}]{text[len(text.rstrip()) :]}" if other and text.strip() else text
                for text, other in pieces
            )
        )
    print(
        "\n".join(
            f"{name}: {answer.tokens} tokens, {answer.speed:.1f} a second"
            for name, answer in zip(talk.names, answers, strict=True)
        )
    )
    return Turn(message, answers, settings)
