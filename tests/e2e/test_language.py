"""The Language tab as a visitor uses it, on a model of random weights that lies on the disk."""

import json
import shutil
import zipfile
from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError

from tests.e2e.acts import download, open_settings, pick, upload
from tests.helpers.llm_zoo import make_llm_zoo, random_questions, write_questions
from tests.tiny_llm import make_tiny_llm


@pytest.fixture(scope="module")
def tiny(studio):
    """A small model's folder, where visitors may use it, and a delta on it."""
    import torch
    from transformers import AutoModelForCausalLM

    from d2nwg.llm.delta import save_delta

    folder = make_tiny_llm(studio.models / "tiny", layers=6)
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    name = "model.layers.2.mlp.up_proj.weight"
    changed = state[name] + 0.5 * torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))
    return folder, save_delta(state, {name: changed}, folder.parent, name="tiny", facts={"seed": 1})


@pytest.fixture(scope="module")
def written(tiny):
    """What plain transformers writes to a message at temperature 0."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny[0]), AutoTokenizer.from_pretrained(tiny[0])

    def write(message: str, tokens: int) -> str:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**ids, max_new_tokens=tokens, do_sample=False)[0, ids["input_ids"].shape[1] :]
        return tokenizer.decode(made, skip_special_tokens=True)

    return write


def open_tab(visit, tiny, query: str = "", zoo: bool = False, **size):
    """The tab with that model, once it is known whether there is a zoo of it; the default one has one."""
    page = visit(f"?tab=language{query}", ready="#language-look", **size)
    page.fill("#language-model input", str(tiny[0]))
    page.keyboard.press("Enter")
    if not zoo:
        page.wait_for_selector("#language-source", state="hidden")
    return page


def chat_settings(page, **fields):
    open_settings(page, "#language-chat-settings >> text=Settings", "#language-longest input")
    for name, value in fields.items():
        page.fill(f"#language-{name} input", str(value))
        page.keyboard.press("Tab")
        page.wait_for_function(
            "([name, value]) => document.querySelector(`#language-${name} input`).value === value",
            arg=[name, str(value)],
        )


def send(page, message):
    page.fill("#language-message textarea", message)
    page.keyboard.press("Enter")


def answered(page, number=1):
    """Wait until this many messages are answered."""
    page.wait_for_function(
        """n => document.querySelectorAll('#language-pane-left .it .about').length === n
            && !document.querySelector('#language-chat .caret')
            && !document.querySelector('#language-send').disabled""",
        arg=number,
    )


def take_delta(page, tiny):
    upload(page, "#language-delta input[type=file]", tiny[1])
    page.wait_for_selector("#language-chat-status .good:has-text('The delta fits: 1 tensor')")


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_look_and_pick(visit, tiny):
    page = open_tab(visit, tiny)
    assert page.is_visible("#language-places") and "93 MB" in page.inner_text("#language-model-hint")
    page.click("#language-look")
    page.wait_for_selector("#language-sentence:has-text('7 of the 42 matrices of 6 layers are chosen')")
    page.wait_for_selector("#language-spectrum .js-plotly-plot .bars")
    before = page.input_value("#language-matrix input")
    box = page.locator("#language-layers .nsewdrag").bounding_box()
    page.locator("#language-layers").scroll_into_view_if_needed()
    box = page.locator("#language-layers .nsewdrag").bounding_box()
    for column in (5, 0):  # whichever of the two is not shown yet
        place = (box["x"] + box["width"] * (column + 0.2) / 6, box["y"] + box["height"] * 0.93)
        for _ in range(20):  # a figure that is still being drawn does not hear
            page.mouse.move(*place)
            page.mouse.click(*place)
            with suppress(TimeoutError):
                page.wait_for_selector(f"#language-about:has-text('Layer {column}, down')", timeout=6_000)
                break
        assert page.input_value("#language-matrix input").startswith(f"layer {column} · down")
    assert before != page.input_value("#language-matrix input") or "layer 0 · down" in before

    page.click("#language-mode label:has-text('Spectrum')")
    page.wait_for_selector("#language-layers .xtitle:has-text('spectrum')")
    assert "mode=spectrum" in page.url
    page.fill("#language-percent input", "50")
    page.keyboard.press("Enter")
    page.wait_for_selector("#language-sentence:has-text('21 of the 42')")
    page.fill("#language-model input", "/nowhere/at/all")
    page.keyboard.press("Enter")
    page.click("#language-look")
    page.wait_for_selector("#language-look-status .bad:has-text('A model is the default one, a Hub id')")
    assert page.is_visible("#language-looked")  # what was there is kept


def test_a_model_of_ones_own(visit, tiny, tmp_path):
    page = visit("?tab=language", ready="#language-look")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for file in tiny[0].iterdir():
            archive.write(file, f"mine/{file.name}")
    upload(page, "#language-model-file input[type=file]", tmp_path / "mine.zip")
    page.wait_for_function("() => document.querySelector('#language-model input').value.includes('mine.zip')")
    page.click("#language-look")
    page.wait_for_selector("#language-sentence:has-text('7 of the 42 matrices of 6 layers are chosen')")
    assert "from the file mine.zip" in page.inner_text("#language-sentence")


def heads(page) -> list[str]:
    return [page.inner_text(f"#language-pane-{side} h4") for side in ("left", "right")]


def test_side_by_side_blind_vote_again_and_files(visit, studio, tiny, tmp_path):
    page = open_tab(visit, tiny)
    chat_settings(page, temperature=1, longest=24)
    take_delta(page, tiny)
    send(page, "is it hot?")
    answered(page)
    assert heads(page) == ["base", "refined"] and "24 tokens" in page.inner_text("#language-pane-left .about")
    page.check("#language-blind input")  # a new conversation: what was said had names on it
    page.wait_for_selector("#language-pane-left:has-text('Nothing said yet')")
    send(page, "is the water ${1} hot? <b>so</b>")
    answered(page)
    assert page.inner_text("#language-pane-left .me") == "is the water ${1} hot? <b>so</b>"
    assert heads(page) == ["A", "B"] and page.locator("#language-chat mark").count() >= 2
    for side in ("left", "right"):
        assert "token" not in (about := page.inner_text(f"#language-pane-{side} .about")) and "second" not in about
    assert not page.is_visible("#language-talk-json"), "the file names the models"
    left = page.inner_text("#language-pane-left .text")
    page.click("#language-vote-left")
    page.wait_for_selector("#language-chat-status:has-text('Noted: A is better. A was')")
    winner = heads(page)[0]
    assert {winner, heads(page)[1]} == {"base", "refined"} and page.inner_text("#language-pane-left .text") == left
    assert "24 tokens" in page.inner_text("#language-pane-left .about") and page.is_hidden("#language-vote-left")
    tally = f"base {int(winner == 'base')}, refined {int(winner == 'refined')}, the same 0."
    assert tally in page.inner_text("#language-tally")

    kept = json.loads(download(page, "#language-talk-json", tmp_path).read_text("utf-8"))
    assert kept["models"] == ["base", "refined"] and len(kept["turns"]) == 1 and kept["turns"][0]["blind"]
    assert kept["turns"][0]["answers"][1]["tokens"] == 24 and kept["votes"]["first"] == int(winner == "base")
    assert "**refined**" in download(page, "#language-talk-md", tmp_path).read_text("utf-8")
    page.click("#language-again")  # in a new conversation, drawn anew
    page.wait_for_function("() => document.querySelector('#language-pane-left h4').innerText === 'A'")
    answered(page)
    assert page.input_value("#language-chat-seed input") == "1"
    assert "Blind votes so far: 1" in page.inner_text("#language-tally")
    page.uncheck("#language-blind input")
    page.wait_for_function("() => document.querySelector('#language-pane-left h4').innerText !== 'A'")
    page.click("#language-again")
    page.wait_for_function("() => document.querySelector('#language-chat-seed input').value === '2'")
    answered(page)
    kept = json.loads(download(page, "#language-talk-json", tmp_path).read_text("utf-8"))
    assert [turn["settings"]["seed"] for turn in kept["turns"]] == [2] and not kept["turns"][0]["blind"]

    page = open_tab(visit, tiny)  # another visit with the same two
    chat_settings(page)
    take_delta(page, tiny)
    page.wait_for_selector(f"#language-tally:has-text('{tally}')")
    page.click("#language-tally-reset")
    page.wait_for_selector("#language-tally:has-text('No votes yet')")
    assert not list((studio.cache / "votes").rglob("*.json")) and page.is_hidden("#language-tally-reset")


def longest(page, tokens: int):
    """Set the longest answer, where the settings are open."""
    page.fill("#language-longest input", str(tokens))
    page.keyboard.press("Tab")


def test_prompts_that_tell_apart(visit, tiny):
    page = open_tab(visit, tiny)
    chat_settings(page, longest=1)
    assert page.is_hidden("#language-find")
    first = page.inner_text("#language-prompts button >> nth=0")
    page.click("#language-prompts button >> nth=0")
    answered(page)
    assert squeezed(page.inner_text("#language-pane-left .me")) == squeezed(first)
    take_delta(page, tiny)
    page.check("#language-blind input")
    page.click("#language-find")
    page.wait_for_selector("#language-telling:has-text('nats a token')")
    found = page.locator("#language-prompts button").all_inner_texts()
    assert len(set(found)) == 4 and all(found)
    longest(page, 24)
    page.click("#language-prompts button >> nth=0")
    answered(page)
    assert heads(page) == ["A", "B"] and squeezed(page.inner_text("#language-pane-left .me")) == squeezed(found[0])
    assert len({page.inner_text(f"#language-pane-{side} .text") for side in ("left", "right")}) == 2
    page.click("#language-new")
    page.wait_for_selector("#language-pane-left:has-text('Nothing said yet')")
    assert page.locator("#language-prompts button").all_inner_texts() == found


def test_equal_answers_are_put_to_no_vote(visit, tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    from d2nwg.llm.delta import save_delta

    state = AutoModelForCausalLM.from_pretrained(tiny[0]).state_dict()
    changed = {(name := "model.layers.2.mlp.up_proj.weight"): state[name] * (1 + 1e-6)}
    page = open_tab(visit, tiny)
    chat_settings(page, longest=6)
    take_delta(page, (tiny[0], save_delta(state, changed, tmp_path, name="tiny", facts={})))
    page.check("#language-blind input")
    page.wait_for_selector("#language-pane-left h4:has-text('A')")
    send(page, "is it hot?")
    answered(page)
    page.wait_for_selector("#language-tally:has-text('there is nothing to vote on')")
    assert page.is_hidden("#language-vote-left")
    page.uncheck("#language-blind input")
    page.wait_for_selector("#language-tally:has-text('1 pair of equal answers left out')")


def refine(page, **fields):
    """Choose the smallest preset, fill in fields, press the button."""
    pick(page, "#language-preset", "tiny")
    page.wait_for_function("() => document.querySelector('#language-layers-count input').value === '4'")
    for name, value in fields.items():
        page.fill(f"#language-{name} input", str(value))
        page.keyboard.press("Tab")
    page.click("#language-go")


def test_refine_compare_and_take_it_away(visit, tiny, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    page = open_tab(visit, tiny)
    assert page.is_visible("#language-refine-places")
    rows = [
        {"question": f"What is {number} and {number}?", "choices": ["hot", "water", "people"], "answer": number % 3}
        for number in range(60)
    ]
    for name, part in (("mine", rows[:40]), ("both", rows[:20])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    for key in ("select", "report"):
        pick(page, f"#language-{key}", "A JSONL file of mine")
    upload(page, "#language-select-file input[type=file]", tmp_path / "mine.jsonl")
    upload(page, "#language-report-file input[type=file]", tmp_path / "both.jsonl")
    page.wait_for_selector("#language-report-file:has-text('both')")
    page.click("#language-go")
    page.wait_for_selector("#language-status .bad:has-text('have 20 questions in common')")
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows[0]) + "\n{")
    page.click("#language-report-file button[aria-label*='emove'], #language-report-file button[aria-label='Clear']")
    upload(page, "#language-report-file input[type=file]", tmp_path / "broken.jsonl")
    page.wait_for_selector("#language-report-file:has-text('broken')")
    page.click("#language-go")
    page.wait_for_selector("#language-status .bad:has-text('Line 2 of broken.jsonl is not JSON')")

    for key, words in (("select", "even ones"), ("report", "odd ones")):
        pick(page, f"#language-{key}", words)
    page.click("#language-criterion label:has-text('confidence')")
    refine(page, **{"layers-count": 2, "candidates": 4})
    page.wait_for_selector("#language-figure .js-plotly-plot .points")
    page.wait_for_selector("#language-status .good:has-text('Done in')")
    said = page.inner_text("#language-answer")
    assert "On the report set the base is right on" in said and "95 % interval" in said and "McNemar" in said
    assert "chosen by 40 questions, judged by 80 others" in said
    page.wait_for_selector("#language-rows .js-plotly-plot .errorbar")
    table = page.inner_text("#language-log")
    assert table.count("noise · layer") == 2 and table.count("layer") == 8  # of four arms

    report = json.loads(download(page, "#language-download-report", tmp_path).read_text("utf-8"))
    assert set(report["rows"]) == {"base", "refined", "noise", "rank", "rebuilt"} and report["config"]["layers"] == 2
    assert report["accepted"]  # of eight candidates one is a little surer
    chat_settings(page, longest=12)
    send(page, "is it hot?")
    answered(page)
    assert page.inner_text("#language-pane-right h4") == "refined" and page.is_visible("#language-vote-right")
    page.check("#language-beside input")
    nothing = "#language-chat-status:has-text('kept no candidate')"
    page.wait_for_selector(f"#language-pane-third h4:has-text('noise'), {nothing}")
    if page.is_hidden(nothing):
        send(page, "is it hot?")
        page.wait_for_selector("#language-pane-third .it .about")
        answered(page)
        assert page.is_hidden("#language-vote-right") and "Votes are between" in page.inner_text("#language-tally")
        page.uncheck("#language-beside input")
        page.wait_for_selector("#language-pane-third", state="hidden")
    else:
        assert not page.is_checked("#language-beside input")
    page.click("#language-download-model")
    page.wait_for_selector("#language-download-model:has-text('Download')")
    with zipfile.ZipFile(download(page, "#language-download-model", tmp_path)) as archive:
        archive.extractall(tmp_path)
        folder = tmp_path / archive.namelist()[0].split("/")[0]
    delta = download(page, "#language-download-delta", tmp_path)
    from d2nwg.llm.delta import apply_delta

    applied = AutoModelForCausalLM.from_pretrained(tiny[0])
    apply_delta(delta, applied)
    whole = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in applied.state_dict().items())


def pick_refinement(page, number: int = 0):
    """Pick a refinement of the list, by its place in it: 0 is the newest."""
    page.wait_for_selector("#language-refinements:visible")
    pick(page, "#language-job", number=number)


def test_the_page_can_be_closed_and_a_refinement_opened_again(visit, tiny, tmp_path):
    page = open_tab(visit, tiny)
    refine(page, **{"layers-count": 1, "candidates": 2})
    page.wait_for_selector("#language-refinements .job.chosen")
    name = page.inner_text("#language-refinements .job.chosen b")
    page.goto("about:blank")  # a job does not mind
    page = visit("?tab=language", ready="#language-look")
    card = page.locator(f"#language-refinements .job:has(b:text-is('{name}'))")
    card.locator(".state:has-text('finished')").wait_for()
    assert "from the model alone" in card.inner_text()
    page.reload()
    page.wait_for_selector("#language-refinements .job")
    assert page.is_visible("#language-refine-places")  # nothing is opened unasked
    pick_refinement(page)
    page.wait_for_selector("#language-answer:has-text('On the report set the base is right on')")
    page.wait_for_selector("#language-rows .js-plotly-plot .errorbar")
    assert page.input_value("#language-model input") == "tiny"
    report = json.loads(download(page, "#language-download-report", tmp_path).read_text("utf-8"))
    assert report["config"]["layers"] == 1 and report["config"]["candidates"] == 2
    page.click("#language-job-logs button")
    page.wait_for_selector("#language-job-log:has-text('Finished in')")
    page.click("#language-job-delete")
    page.wait_for_selector(f"#language-job-said:has-text('{name} is deleted')")
    page.wait_for_selector("#language-refine-places:visible")


def test_stopping_a_refinement_and_resuming_it(visit, tiny):
    """All matrices are refined, which takes far longer than a slow browser needs for a click."""
    page = open_tab(visit, tiny)
    refine(page, **{"layers-count": 0, "candidates": 20})
    page.wait_for_selector("#language-answer:has-text('The base is right on')")
    page.wait_for_selector("#language-log .log tbody tr")
    page.locator("#language-job-stop").dispatch_event("click")  # the page moves as the log grows
    page.wait_for_selector("#language-status .good:has-text('What was accepted is kept')")
    assert "The report set has not been looked at" in page.inner_text("#language-answer")
    before = page.locator("#language-log tbody tr").count()
    page.goto("about:blank")
    page = open_tab(visit, tiny)
    pick_refinement(page)
    page.wait_for_function(f"() => document.querySelectorAll('#language-log tbody tr').length === {before}")
    page.click("#language-job-resume")
    page.wait_for_function(f"() => document.querySelectorAll('#language-log tbody tr').length > {before}")
    page.locator("#language-job-stop").dispatch_event("click")
    page.wait_for_selector("#language-status .good:has-text('What was accepted is kept')")
    assert page.is_enabled("#language-go")


@pytest.fixture
def tuned(studio):
    """A small model's folder, and a zoo of two fine-tunes of it in the cache."""
    folder = make_tiny_llm(studio.models / "tuned", width=16, layers=2)
    zoo = studio.cache / "zoos" / "tunes"
    make_llm_zoo(str(folder), zoo)
    yield [folder]
    shutil.rmtree(zoo)


def test_sampling_and_refining_from_a_zoo(visit, tuned):
    page = open_tab(visit, tuned, zoo=True)
    page.wait_for_selector("#language-source label.selected:has-text('a zoo of fine-tunes: tunes')")
    page.wait_for_selector("#language-layers-count:has-text('Groups of layers')")
    page.click("#language-sample")
    page.wait_for_selector("#language-status .note:has-text('It was not scored')")
    chat_settings(page, longest=6)
    send(page, "is it hot?")
    answered(page)
    assert page.inner_text("#language-pane-right h4") == "refined"
    pick(page, "#language-preset", "tiny: 3 candidates, 40 questions")
    page.wait_for_function("() => document.querySelector('#language-candidates input').value === '3'")
    page.fill("#language-layers-count input", "2")
    page.keyboard.press("Tab")
    page.click("#language-go")
    page.wait_for_selector("#language-status .good:has-text('Done in')")
    said = page.inner_text("#language-result")
    assert "from the zoo tunes of 2 checkpoints" in said or "the model is that average" in said
    assert "The best fine-tune was chosen by the same questions" in said and "best checkpoint" in said
    assert "from the zoo tunes" in page.inner_text("#language-refinements .job.chosen")


def test_making_a_zoo_and_choosing_it(visit, studio, tmp_path):
    folder = make_tiny_llm(studio.models / "plain", width=16, layers=2, seed=3)
    page = open_tab(visit, [folder])
    page.click("#language-make >> text=Make a zoo of fine-tunes")
    page.click("#language-make-go")
    page.wait_for_selector("#language-make-status .bad:has-text('Give a name')")
    upload(
        page, "#language-make-files input[type=file]", write_questions(tmp_path / "q.jsonl", random_questions(20, 3))
    )
    page.wait_for_selector("#language-make-found:has-text('20 questions: a fifth')")
    assert page.input_value("#language-make-name input, #language-make-name textarea") == "q"
    for name, value in (("seeds", 1), ("epochs", 2)):
        page.fill(f"#language-make-{name} input", str(value))
        page.keyboard.press("Tab")
    page.click("#language-make-measure")
    page.wait_for_selector("#language-make-time:has-text('1 fine-tune, 2 epochs of 16 questions each')")
    page.click("#language-make-go")
    page.wait_for_selector("#language-make-status .good:has-text('The zoo q is being made')")
    page.wait_for_selector("#language-answer:has-text('The best of 2 checkpoints is right on')")
    page.wait_for_selector("#language-status .good:has-text('The zoo q is ready')")
    page.click("#language-source label:has-text('a zoo of fine-tunes: q')")
    page.wait_for_selector("#language-layers-count:has-text('Groups of layers')")
    page.wait_for_selector("#language-sample:visible")
    shutil.rmtree(studio.cache / "zoos" / "q")


def test_again_at_temperature_0_says_why_nothing_changes(visit, tiny):
    page = open_tab(visit, tiny)
    chat_settings(page, longest=6)
    send(page, "is it hot?")
    answered(page)
    text = page.inner_text("#language-pane-left .text")
    page.click("#language-again")
    page.wait_for_selector("#language-chat-status .bad:has-text('stays the same')")
    page.click("#language-new")
    page.wait_for_selector("#language-pane-left:has-text('Nothing said yet')")
    send(page, "is it hot?")
    answered(page)
    assert page.inner_text("#language-pane-left .text") == text


def test_stop_keeps_what_is_written(visit, studio):
    """The model could write for a minute more, so that the answer is not over before the click arrives."""
    page = open_tab(visit, [make_tiny_llm(studio.models / "endless", layers=6, context=16_384)])
    chat_settings(page, longest=8000)
    send(page, "how many people?")
    page.wait_for_selector("#language-pane-left .it .about:has-text('tokens')")
    page.locator("#language-stop").dispatch_event("click")  # the button moves as the answer grows
    page.wait_for_selector("#language-pane-left .about:has-text('stopped')")
    answered(page)
    assert page.inner_text("#language-pane-left .text")


def test_a_message_too_long_stays_in_its_field(visit, tiny):
    page = open_tab(visit, tiny)
    send(page, "a number " * 200)
    page.wait_for_selector("#language-chat-status .bad:has-text('Your message is too long')")
    assert page.input_value("#language-message textarea").startswith("a number")


def test_two_visitors_at_once_do_not_mix(visit, tiny, written):
    asked = ("is the water hot?", "who is the first?")
    expected = [written(message, 40) for message in asked]
    assert expected[0] != expected[1]
    pages = [open_tab(visit, tiny) for _ in asked]
    for page in pages:
        chat_settings(page, temperature=0, longest=40)
    for page, message in zip(pages, asked, strict=True):
        send(page, message)
    for page, message, words in zip(pages, asked, expected, strict=True):
        answered(page)
        assert page.inner_text("#language-pane-left .me") == message
        assert "40 tokens" in page.inner_text("#language-pane-left .about")
        assert squeezed(page.inner_text("#language-pane-left .text")) == squeezed(words)


def test_a_telephone(visit, tiny):
    page = open_tab(visit, tiny, "&percent=40&__theme=dark", width=390, height=844)
    assert page.input_value("#language-percent input") == "40"
    page.click("#language-look")
    page.wait_for_selector("#language-spectrum .js-plotly-plot")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("layers", "spectrum"):
        box = page.locator(f"#language-{name} .js-plotly-plot").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
