"""The Language tab's actions as named endpoints, for programs. None of them needs a session."""

import json
from collections.abc import Sequence
from functools import partial

import gradio as gr

from d2nwg.jobs.owner import STRANGER
from d2nwg.llm.conversation import Turn
from d2nwg.llm.prompts import PROMPTS
from d2nwg.llm.questions import BUILT_IN
from d2nwg.ui.access import on_a_space
from d2nwg.ui.api import PROGRESS, refusals, reports_to
from d2nwg.ui.events import MINUTES
from d2nwg.ui.language import html, refining
from d2nwg.ui.language import service as own
from d2nwg.ui.language.chat import NAMES, TALKING
from d2nwg.ui.language.models import DEFAULT, UPLOAD, check_model
from d2nwg.ui.language.refine import REFINING
from d2nwg.ui.language.service import DEFAULTS, MODES
from d2nwg.ui.parts import Upload
from d2nwg.ui.session import call_folder
from d2nwg.ui.work import call
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import whole
from d2nwg.utils.text import is_utf8

MOST_PROMPTS = 200  # of a call


async def spectrum(
    model: str = DEFAULT,
    mode: str = "paper",
    percent: float = 25,
    model_file: str | None = None,
    progress=PROGRESS,
) -> dict:
    with refusals():
        asked = own.check_look(mode, percent)
        looked = await call(partial(own.look, _model(model, model_file), **asked), reports_to(progress))
    return {
        "model": looked.model,
        "mode": mode,
        "percent": percent,
        "matrices": [row.to_json() for row in looked.ranked],
    }


async def chat(
    message: str,
    history: str = "[]",
    model: str = DEFAULT,
    delta: str | None = None,
    system: str = "",
    temperature: float = DEFAULTS["temperature"],
    top_p: float = DEFAULTS["top_p"],
    seed: int = 0,
    longest: int = DEFAULTS["longest"],
    model_file: str | None = None,
    progress=PROGRESS,
) -> tuple[str, str | None, dict]:
    with refusals():
        text, settings = own.check_message(message), own.chat_settings(system, temperature, top_p, seed, longest)
        name = _model(model, model_file)
        variant = await call(partial(own.variant_from_file, delta, name)) if delta else None
        talk = own.new_talk(name, NAMES[: 2 if variant else 1])
        talk.kept.turns = _history(history, len(talk.kept.names))
        turn = await call(partial(own.answer, talk, text, settings, variant), reports_to(progress))
    facts = [
        {"tokens": a.tokens, "tokens_a_second": round(a.speed, 2), "ended": a.ended, "notice": a.notice}
        for a in turn.answers
    ]
    return turn.answers[0].text, turn.answers[1].text if variant else None, dict(zip(NAMES, facts, strict=False))


async def prompts(
    model: str = DEFAULT,
    delta: str | None = None,
    prompts: str = "[]",
    count: int = 4,
    model_file: str | None = None,
    progress=PROGRESS,
) -> tuple[str, list[dict]]:
    with refusals():
        most, asked = whole(count, "The number of prompts", 1, MOST_PROMPTS), _prompts(prompts)
        name = _model(model, model_file)
        if not delta:
            raise UserError("Give the delta.safetensors of a refined model: its base is the other one.")
        variant = await call(partial(own.variant_from_file, delta, name))
        found = await call(partial(own.find_prompts, name, variant, most, asked), reports_to(progress))
    return html.telling_words(found), [{"prompt": prompt, "difference": value} for prompt, value in found]


async def refine(
    model: str = DEFAULT,
    selection: str | None = None,
    report: str | None = None,
    preset: str = "tiny",
    layers: int = 4,
    candidates: int = 3,
    seed: int = 0,
    mode: str = "paper",
    percent: float = 25,
    model_file: str | None = None,
    zoo: str | None = None,
    shots: int | None = None,
    progress=PROGRESS,
) -> tuple[str, dict, str | None, str]:
    with refusals():
        if on_a_space():
            raise UserError(refining.CLOSED)
        sets = {
            "select": (refining.OWN, selection) if selection else (f"{BUILT_IN}:selection", None),
            "report": (refining.OWN, report) if report else (f"{BUILT_IN}:report", None),
        }
        name = _model(model, model_file)
        folder = refining.check_zoo(zoo, name, STRANGER)
        criterion = "confidence" if folder else "accuracy"
        numbers = preset, layers, candidates, seed, criterion, shots or 0
        asked = refining.check(name, own.check_look(mode, percent), sets, *numbers, zoo=folder)
        made = await call(partial(refining.make, asked, call_folder() / "refined"), reports_to(progress))
        delta, report = refining.files_of(made, call_folder())
    return " ".join(made.report["words"]), made.report, str(delta) if delta else None, str(report)


def _model(name: str | None, file: str | None) -> str:
    """The model that a call is for. Raises UserError for one that may not be asked for, and for two."""
    if file and name not in (None, "", DEFAULT, UPLOAD):
        raise UserError("Give a model or a model_file, not both.")
    return check_model(UPLOAD if file else name, file)


def _history(text: str, models: int) -> list[Turn]:
    """What was said before, from JSON. Raises UserError."""
    from d2nwg.llm.chat import Answer, ChatSettings

    try:
        said = json.loads(text or "[]")
        turns = [(turn["message"], turn["answers"]) for turn in said]
        if len(turns) > own.MOST_TURNS or any(
            not isinstance(message, str)
            or not isinstance(answers, list)
            or len(answers) != models
            or not all(isinstance(answer, str) for answer in answers)
            for message, answers in turns
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as reason:
        raise UserError(
            'The history should be JSON such as [{"message": "Hello", "answers": ["Hi"]}], with an answer a model.'
        ) from reason
    return [Turn(message, [Answer(answer) for answer in answers], ChatSettings()) for message, answers in turns]


def _prompts(text: str) -> Sequence[str]:
    """The prompts of a JSON list, or those that come with the program. Raises UserError."""
    try:
        given = json.loads(text or "[]")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, list) or not all(isinstance(one, str) and one.strip() and is_utf8(one) for one in given):
        raise UserError('The prompts should be a JSON list of texts, such as ["Why is the sky blue?"].')
    if len(given) > MOST_PROMPTS:
        raise UserError(f"Give at most {MOST_PROMPTS:,} prompts; here are {len(given):,}.")
    return [own.check_message(one) for one in given] or PROMPTS


def add_endpoints() -> None:
    """Declare the endpoints. Their components are never shown: they give names, types and defaults."""
    with gr.Column(visible=False):
        model = gr.Textbox(DEFAULT, label="Model: default, a Hub id, or one in a folder that the app was started with")
        model_file = Upload(label="A model of your own instead: a GGUF file, or a zip of a folder with config.json")
        mode = gr.Dropdown(list(MODES.values()), value=DEFAULTS["mode"], label="Signal-to-noise ratio")
        percent = gr.Number(DEFAULTS["percent"], label="Matrices chosen of each type, in percent")
        message = gr.Textbox(label="Message")
        history = gr.Textbox("[]", label='JSON: [{"message": …, "answers": [base, refined]}, …]')
        delta = Upload(label="A delta.safetensors of a refined model (optional)")
        system = gr.Textbox("", label="System prompt")
        temperature = gr.Number(DEFAULTS["temperature"], label="Temperature; 0 is always the likeliest")
        top_p = gr.Number(DEFAULTS["top_p"], label="Top-p")
        seed = gr.Number(DEFAULTS["seed"], precision=0, label="Seed")
        longest = gr.Number(DEFAULTS["longest"], precision=0, label="Longest answer, in tokens")
        found = gr.JSON(label="Matrices")
        answers = [gr.Textbox(label="Answer of the base"), gr.Textbox(label="Answer of the refined model")]
        facts = gr.JSON(label="Tokens and speed")
        sets = [
            Upload(label=f"{which} questions as JSONL; without, half of the built-in ones")
            for which in ("Selection", "Report")
        ]
        preset = gr.Dropdown([key for _, key in refining.presets()], value="tiny", label="Preset")
        layers = gr.Number(
            4, precision=0, label="Most matrices to refine (0: all that are chosen); groups of layers with a zoo"
        )
        candidates = gr.Number(3, precision=0, label="Candidates for each matrix")
        zoo = gr.Textbox("", label="A zoo of fine-tunes of the model, by its name; empty: the model alone")
        shots = gr.Number(0, precision=0, label="Solved selection questions before each question, at most 100")
        asked = gr.Textbox("[]", label='JSON: ["a prompt", …]; empty: those that come with the program')
        count = gr.Number(4, precision=0, label="How many to return, at most")
        said, telling = gr.Textbox(label="In words"), gr.JSON(label="Prompts")
        words, measured = gr.Textbox(label="In words"), gr.JSON(label="Report")
        made = [gr.File(label="What changed, for `llm apply`"), gr.File(label="Report file")]
        run = gr.Button()
    run.click(
        spectrum,
        [model, mode, percent, model_file],
        found,
        api_name="language_spectrum",
        **MINUTES,
        api_description=(
            "The signal-to-noise ratio of every weight matrix of a language model, its rank within its type, and which "
            "are chosen. Reports progress; cancelling the job stops the work."
        ),
    )
    run.click(
        refine,
        [model, *sets, preset, layers, candidates, seed, mode, percent, model_file, zoo, shots],
        [words, measured, *made],
        api_name="language_refine",
        **REFINING,
        api_description=(
            "Refine a language model layer by layer: candidates are kept only where it answers the selection questions "
            "better; the base, the refined model and the same search with noise, cut ranks and the VAE's "
            "reconstruction (with a zoo: the best fine-tune, the average, and that fine-tune with noise) are compared "
            "on the report questions. Returns the result in words, the report, and as files what changed (nothing "
            "where no candidate was better) and the report. Reports progress; cancelling the job stops the work."
        ),
    )
    run.click(
        chat,
        [message, history, model, delta, system, temperature, top_p, seed, longest, model_file],
        [*answers, facts],
        api_name="language_chat",
        **TALKING,
        api_description=(
            "The answer of a language model to a message, and of its refinement where a delta is given, with the same "
            "settings and seed. Nothing is remembered: the history comes with the call. Reports progress; "
            "cancelling the job stops the work."
        ),
    )
    run.click(
        prompts,
        [model, delta, asked, count, model_file],
        [said, telling],
        api_name="language_prompts",
        **MINUTES,
        api_description=(
            "Of a list of prompts, those that tell a language model and its refinement (a delta) apart, the furthest "
            "first: how far it is from log p(answer | base) to log p(answer | refined), a token of the answer, which "
            "is the base's likeliest, of up to 24 tokens. A positive difference: less likely under the refined model. "
            "It says where the models differ, not which is better. Returns that in words, and the prompts with their "
            "differences in nats. Reports progress; cancelling the job stops the work."
        ),
    )
