"""A path between two descriptions: adapters, heads, scores, distances, files, the verb, and what is refused."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from d2nwg.adapters import Adapter, strength
from d2nwg.bundles import load_adapter_pipeline
from d2nwg.cli import main
from d2nwg.data.sources import load_data
from d2nwg.data.text_set import TextSet
from d2nwg.encoders.lora import AdaptedEncoder
from d2nwg.interpolation.descriptions import description_path
from d2nwg.interpolation.methods import CONDITION, WEIGHTS
from d2nwg.utils.errors import UserError
from d2nwg.weights.lora import distances, mix_adapters
from tests.helpers.text_tasks import DESCRIBED, opinions

ENDS = ["Did the reviewer enjoy the film?", "Tell whether a legal agreement is invalid."]


def texts(classes=("no", "yes"), name: str = "mine", number: int = 30, wrong: float = 0.0) -> TextSet:
    """Opinions with these labels, of which some are wrong."""
    rows = opinions(number, 7)
    labels = np.array([row["label"] for row in rows])
    labels[: int(wrong * number)] = 1 - labels[: int(wrong * number)]
    items = tuple(row["text"] for row in rows)
    return TextSet(name, tuple(classes), items, labels, np.zeros(number, bool))


@pytest.fixture(scope="module")
def made(adapters):
    data = [texts(name="films", wrong=0.2), texts(name="law")]
    return description_path(ENDS, data, bundle=adapters, points=5, num_samples=3)


def test_by_the_condition_the_points_are_the_pipelines(made, adapters):
    _, pipe = load_adapter_pipeline(adapters)

    def at(share):
        return pipe(ENDS[0], 3, torch.Generator().manual_seed(0), to=ENDS[1], share=share)

    chosen = at(0.0).central()
    for share, state in zip(made.share.tolist(), made.stretches[CONDITION].states, strict=True):
        expected, _ = at(share).one(chosen)
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    heads = [at(share).one(chosen)[1] for share in (0.0, 1.0)]
    for end, head in zip(made.ends, heads, strict=True):
        assert end.head_from == "generated"
        assert all(torch.equal(end.adapter.head[name], head[f"head.{name}"]) for name in ("weight", "bias"))


def test_by_the_weights_they_are_mixed(made):
    ends = [made.stretches[CONDITION].states[n] for n in (0, -1)]
    for share, state in zip(made.share.tolist(), made.stretches[WEIGHTS].states, strict=True):
        assert float(distances(state, mix_adapters(ends, (1 - share, share)))) < 1e-5
    far = made.stretches[WEIGHTS].far
    torch.testing.assert_close(far[0] + far[1], far[0, -1].expand(5), atol=0.05, rtol=0.2)
    assert float(far[0, 0]) < 1e-3 and float(far[1, -1]) < 1e-3


def test_each_task_keeps_its_head(made):
    encoder = AdaptedEncoder(made.shape)
    for method, stretch in made.stretches.items():
        for point in (0, 2, 4):
            encoder.load(stretch.states[point])
            for number, end in enumerate(made.ends):
                said = encoder.embed(end.texts) @ end.adapter.head["weight"].T + end.adapter.head["bias"]
                right = float((said.argmax(1).numpy() == end.targets).mean())
                assert float(stretch.scores[number, point]) == pytest.approx(right), (method, point)
    sentences = [words[0] for words in DESCRIBED.values()]
    assert float(made.stretches[WEIGHTS].degrees[4]) == pytest.approx(
        float(strength(encoder, sentences).mean()), rel=1e-3
    )
    encoder.reset()
    for plain, end in zip(made.plain.tolist(), made.ends, strict=True):
        said = encoder.embed(end.texts) @ end.adapter.head["weight"].T + end.adapter.head["bias"]
        assert plain == pytest.approx(float((said.argmax(1).numpy() == end.targets).mean()))


def test_distances_are_in_lengths_of_a_zoo_adapter(made, adapters):
    _, pipe = load_adapter_pipeline(adapters)
    space = pipe.weight_space
    zoo = {name: tensor for name, tensor in space.to_states(space.zoo_vectors, 2).items() if ".lora_" in name}
    flat = torch.cat(
        [(zoo[a.replace("_A", "_B")] @ zoo[a]).flatten(1) for a in zoo if ".lora_A" in a], 1
    )  # (Z, all numbers of B A)
    unit = flat.norm(dim=1).median()
    state = made.stretches[CONDITION].states[2]
    own = torch.cat([(state[a.replace("_A", "_B")] @ state[a]).flatten() for a in state if ".lora_A" in a])
    far = (flat - own).norm(dim=1) / unit
    assert float(made.stretches[CONDITION].far[2, 2]) == pytest.approx(float(far.min()), rel=1e-3)
    owner = space.tasks[int(space.zoo_tasks[int(far.argmin())])].name
    assert made.stretches[CONDITION].owners[2] == owner
    between = torch.cdist(flat, flat).masked_fill(space.zoo_tasks[:, None] != space.zoo_tasks[None], torch.inf)
    nearest = between.fill_diagonal_(torch.inf).amin(1)
    assert float(made.within) == pytest.approx(float(nearest.median() / unit), rel=1e-2)


def test_sentences(made, adapters):
    first, second, *rest = made.sentences()
    shown = f"{100 * float(made.stretches[CONDITION].scores[0, 2]):.1f} %"
    assert first.startswith("On 30 texts of A (films): ") and f"halfway {shown} by the condition" in first
    assert second.startswith("On 30 texts of B (law): ") and "without an adapter" in second
    assert rest[0].startswith("Halfway the adapter by the condition is ")
    assert made.notes[0].startswith("A is a task that the generator knows, tone.")
    bare = description_path(ENDS, bundle=adapters, points=2, num_samples=1)
    assert bare.scored == [] and bare.sentences()[-1].startswith("Give a table of texts")
    assert bare.report()["points"][0]["score_a"] is None


def test_a_new_task_has_a_head_of_names_or_a_borrowed_one(adapters):
    new, options = [ENDS[0], "How hot is this soup?"], {"bundle": adapters, "points": 2, "num_samples": 1}
    borrowed = description_path(new, **options)
    assert borrowed.ends[1].head_from == "nearest task" and "name the classes of B" in borrowed.notes[2]
    named = description_path(new, labels=([], ["cold", "warm", "hot"]), **options)
    assert named.ends[1].adapter.head["weight"].shape == (3, 16) and named.ends[1].adapter.classes == (
        "cold",
        "warm",
        "hot",
    )
    tabled = description_path(new, [None, texts(("cold", "hot"))], **options)
    assert tabled.ends[1].adapter.classes == ("cold", "hot") and tabled.ends[1].head_from == "names"


def test_labels_may_be_numbers_of_classes(adapters):
    data = [texts(("0", "1"), "films"), None]
    found = description_path(ENDS, data, bundle=adapters, points=2, num_samples=1)
    assert any(note == "A: The labels are numbers, taken as places: 0 as no, 1 as yes." for note in found.notes)
    assert np.array_equal(found.ends[0].targets, data[0].labels)
    turned = description_path(ENDS, [texts(("Yes", "no")), None], bundle=adapters, points=2, num_samples=1)
    assert np.array_equal(turned.ends[0].targets, 1 - data[0].labels)


@pytest.mark.parametrize(
    ("ends", "data", "options", "words"),
    [
        (ENDS[:1], None, {}, "give two, not 1"),
        ([ENDS[0], " "], None, {}, "Describe the task in a sentence"),
        ([ENDS[0], ENDS[0]], None, {}, "read the same"),
        (ENDS, texts(("bad", "good")), {}, r"A: mine has labels that .* \(bad, good\): its own are no, yes"),
        (ENDS, texts(("bad", "good")), {"labels": (["a", "b"], [])}, "its own are a, b"),
        (ENDS, None, {"labels": (["a", "a"], [])}, "given twice"),
        (ENDS, None, {"points": 1}, "number of points"),
        (ENDS, None, {"num_samples": 0}, "number of samples"),
        (ENDS, None, {"bundle": "heads-dual"}, "There is no bundle heads-dual"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(ends, data, options, words, adapters):
    options = {"bundle": adapters, "points": 2, "num_samples": 1, **options}
    with pytest.raises(UserError, match=words):
        description_path(ends, [data, None], **options)


def test_pairs_of_texts_do_not_fit(adapters):
    single = texts()
    pairs = replace(single, items=tuple((text, text) for text in single.items))
    with pytest.raises(UserError, match="A: mine holds pairs, and this adapter reads single texts"):
        description_path(ENDS, [pairs, None], bundle=adapters, points=2, num_samples=1)


def test_files(made, tmp_path):
    made.save(tmp_path)
    report = json.loads((tmp_path / "path.json").read_text())
    assert [point["share"] for point in report["points"]] == [0, 0.25, 0.5, 0.75, 1] * 2
    assert report["ends"][1]["data"] == "law" and report["ends"][0]["metric"] == "accuracy"
    with open(tmp_path / "points.csv", encoding="utf-8") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["condition"] * 5 + ["weights"] * 5
    folder = tmp_path / "adapters" / "weights-0.75"
    loaded = Adapter.load(folder)
    state = made.stretches[WEIGHTS].states[3]
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in state.items())
    assert torch.equal(loaded.head["weight"], made.ends[1].adapter.head["weight"]), "that of the nearer end"
    assert torch.equal(load_file(folder / "head-A.safetensors")["bias"], made.ends[0].adapter.head["bias"])
    assert len(list((tmp_path / "adapters").iterdir())) == 10


def test_the_command_line(adapters, tmp_path, capsys):
    tables = [str(adapters.parents[1] / name / "test.jsonl") for name in ("tone", "contrary")]
    line = ["interpolate", "--describe", *ENDS, "--bundle", str(adapters), "--points", "3", "--num-samples", "1"]
    out = tmp_path / "out"
    assert main([*line, *tables, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "On 60 texts of A (test): " in said and "On 60 texts of B (test): " in said
    assert {"path.json", "points.csv", "scores-a.html", "scores-b.html", "distance.html", "degrees.html"} <= {
        path.name for path in out.iterdir()
    }
    assert isinstance(load_data(tables[0]), TextSet)
    assert main([*line, "-", tables[1], "--labels", "-", "no, yes", "--out", str(tmp_path / "b")]) == 0
    assert "of A (" not in capsys.readouterr().out
    for given, words in (
        (["--names", "a, b"], "leave out --names and --method"),
        (["example:digits"], "holds images"),
        (["--labels", "a, a", "-"], "given twice"),
    ):
        assert main([*line, *given, "--out", str(tmp_path / "none")]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(["interpolate", "--labels", "a", "b", "--out", str(tmp_path / "none")]) == 2
    assert "give both" in capsys.readouterr().err
