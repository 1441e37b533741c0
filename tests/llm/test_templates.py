"""Chat templates: as transformers renders them, and bounded where they are hostile."""

import pytest
from transformers import AutoTokenizer

from d2nwg.llm import render, templates
from d2nwg.llm.chat import fit
from d2nwg.llm.templates import in_template
from tests.helpers.refusals import refusal
from tests.tiny_llm import make_tiny_llm

ASK = [{"role": "user", "content": "is it\nhot? <é>"}]
TALK = [*ASK, {"role": "assistant", "content": "no"}, {"role": "user", "content": "and\tnow"}]
EVERY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
STRICT = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny"))


@pytest.fixture
def with_template(tokenizer, monkeypatch):
    """The tokenizer, with another template."""

    def change(template):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        return tokenizer

    return change


@pytest.mark.parametrize(
    "template",
    [
        None,
        EVERY,
        "{{ bos_token }}{% for m in messages %}\n  {% if loop.last %}\n{{ m | tojson }}{% endif %}\n{% endfor %}",
        "{{ messages | tojson(indent=2) }}{{ tools is none }}{{ add_generation_prompt }}",
        "{% for m in messages %}{% if loop.index0 %}{% continue %}{% endif %}{{ m['content'].strip() }}{% endfor %}",
        "{% generation %}{{ messages[0]['content'] }}{% endgeneration %}!",
        "{% set s = namespace(n=0) %}{% for m in messages %}{% set s.n = s.n + 1 %}{% endfor %}{{ s.n }}",
        "{% macro say(m) %}{{ m.role | upper }}{% endmacro %}{{ say(messages[-1]) }}{{ strftime_now('%Y') | length }}",
    ],
)
@pytest.mark.parametrize("system", ["", "be kind"])
def test_it_renders_as_transformers_does(template, system, with_template, tokenizer):
    tokenizer = with_template(template) if template else tokenizer
    prompt = [{"role": "system", "content": system}] if system else []
    wanted = [
        tokenizer.apply_chat_template([*prompt, *talk], tokenize=False, add_generation_prompt=True)
        for talk in (ASK, TALK)
    ]
    assert in_template(tokenizer, [ASK, TALK], system) == wanted


def test_a_system_prompt_goes_before_the_first_message_where_there_is_no_place_for_one(with_template):
    (text,) = in_template(with_template(STRICT + EVERY), [TALK], "be kind")
    assert text.startswith("user: be kind\n\nis it\nhot? <é>\nassistant: no\n")


def test_the_default_of_several_templates(with_template):
    assert in_template(with_template({"default": "a{{ 1 + 1 }}", "tool_use": "b"}), [ASK], "") == ["a2"]
    assert "multiple chat templates" in refusal(in_template, with_template({"x": "a", "y": "b"}), [ASK], "")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if", "unexpected"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('never\nmore') }}", "(never)"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% do messages.append(1) %}", "unknown tag"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ '(' * 9 }}{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", ""),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ 'a' * 10**12 }}", "a gigabyte of memory"),
        ("{{ 'x'.center(10**12) }}", "a gigabyte of memory"),
        ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "memory"),
        ("{{ 'x' * 5000000 }}", "millions of characters"),
        ("{{ '\\ud800' }}", "half a character"),
    ],
)
def test_a_hostile_template_is_refused(template, words, with_template):
    said = refusal(in_template, with_template(template), [ASK], "")
    assert said.startswith("The chat template of tiny cannot be used (") and words in said


def test_an_endless_template_is_stopped(with_template, monkeypatch):
    monkeypatch.setattr(templates, "WAIT", 0.5)  # seconds, of which the interpreter itself takes some
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert "(it takes too long)" in refusal(in_template, with_template(endless), [ASK], "")


def test_the_process_is_bound_before_it_reads(monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    set_to = {}
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: set_to.update({which: limits}))
    monkeypatch.setattr(render.json, "load", lambda stream: 1 / 0)
    assert render.main() == 0 and '"error": "division by zero"' in capsys.readouterr().out
    assert set_to[resource.RLIMIT_CPU] == (5, 6)


def test_conversations_that_cannot_be_answered(with_template):
    assert "makes an empty text" in refusal(fit, with_template("{# nothing #}"), ASK, "", 256, 20)
    for system, text in (("\ud800", "hot"), ("", "\udcff")):
        said = refusal(fit, with_template(EVERY), [{"role": "user", "content": text}], system, 256, 20)
        assert "which is not UTF-8" in said
