"""The process that renders a chat template: ``python -m d2nwg.llm.render``, a JSON object in and one out.

It imports little, so that it starts at once, and it is bound before it reads the template.
"""

import json
import sys
from datetime import datetime
from typing import ClassVar

MEMORY, SECONDS = 2**30, 5  # bytes of address space, and seconds of a processor
MOST = 2**22  # characters of all texts together


def render(template: str, conversations: list[list[dict]], system: str, given: dict) -> list[str]:
    """The conversations in a chat template, as transformers' ``apply_chat_template`` renders them.

    Where the template refuses a system prompt, that is put before the first message.

    Args:
        given: more variables of the template: the special tokens.
    Raises:
        jinja2.TemplateError: as the template does.
        ValueError: the texts are longer than `MOST`.
    """
    from jinja2 import TemplateError

    compiled, texts, length = _environment().from_string(template), [], 0
    for messages in conversations:
        prompt = [{"role": "system", "content": system}] if system else []
        try:
            text = _rendered(compiled, [*prompt, *messages], given)
        except TemplateError:
            if not prompt:
                raise
            first = {**messages[0], "content": f"{system}\n\n{messages[0]['content']}"}
            text = _rendered(compiled, [first, *messages[1:]], given)
        length += len(text)
        if length > MOST:
            raise ValueError("it makes a text of millions of characters")
        texts.append(text)
    return texts


def _rendered(compiled, messages: list[dict], given: dict) -> str:
    return compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **given)


def _environment():
    """The environment that chat templates are written for."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what the assistant says; that is rendered as it is."""

        tags: ClassVar = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller) -> str:
            return caller()

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: datetime.now().strftime(form)}
    return made


def _bound() -> None:
    try:
        import resource
    except ImportError:  # Windows: what started this process ends it
        return
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    if sys.platform == "linux":  # elsewhere the bound cannot be set
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> int:
    """Render what stdin asks for; prints ``texts``, or ``error``."""
    _bound()
    try:
        answer: dict = {"texts": render(**json.load(sys.stdin))}
    except MemoryError:
        answer = {"error": "it takes more than a gigabyte of memory"}
    except Exception as reason:  # a template can fail in any way
        answer = {"error": (str(reason).strip().splitlines() or [type(reason).__name__])[0][:200]}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
