"""The papers' tables: every one has its place, each runs at its smallest, and the page says what the numbers say."""

import json
from dataclasses import replace

import pytest

from benchmarks.papers.__main__ import RESULTS, main
from benchmarks.papers.markdown import command, read, section, tables
from benchmarks.papers.page import PAGE, found_for, page, verdict_of
from benchmarks.papers.run import QUICK, Run, load, measure
from benchmarks.papers.spec import NOT_MEASURED, STATUSES, Entry, Grid, Published, always, grid
from benchmarks.papers.tables import ENTRIES, conv4, few_shot
from d2nwg.data.images import load_images
from d2nwg.training.config import DualConfig, UNetConfig
from d2nwg.utils.errors import UserError
from d2nwg.weights.zoo import Zoo, ZooConfig
from tests.helpers.images import make_pattern_folder

NUMBERED = [*(f"table{n}" for n in range(1, 26)), *(f"figure{n}" for n in range(1, 11))]
SCENARIOS = [f"scenario{n}" for n in range(1, 4)]
RUNNABLE = [name for name, entry in ENTRIES.items() if entry.can_run]
NUMBERS = grid("numbers", "first | second", {"a": [1.5, (80.5, 1.2)], "b": ["71.6 ± 0.2", None]}, "A note.")


def entry_of(compute, **changes) -> Entry:
    return Entry("table0", "A table", "a claim", always(NOT_MEASURED), measure=compute, **changes)


def test_every_table_and_figure_has_its_row():
    assert list(ENTRIES) == [*NUMBERED, *SCENARIOS]
    text = PAGE.read_text(encoding="utf-8")
    for name in ENTRIES:
        word = name.rstrip("0123456789")
        assert f"| [{word.capitalize()} {name.removeprefix(word)}](#" in text


def test_the_page_is_what_the_results_and_the_other_benchmarks_say():
    """Who changes a number that it shows writes it anew: ``python -m benchmarks.papers --write-page``."""
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_is_published_is_found_and_judged(name):
    entry = ENTRIES[name]
    sources = [source for source in entry.published if source.heading]  # the others are not measured everywhere
    found, _ = found_for(entry, RESULTS)
    for source in sources:
        made = read(source)
        assert made and made[0].rows, source
    assert verdict_of(entry, found).status in STATUSES
    if sources:
        assert verdict_of(entry, found).status != NOT_MEASURED


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_table_runs_at_its_smallest(name, tmp_path, capsys):
    main([name, "--quick", "--out", str(tmp_path)])
    made = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert made["id"] == name and made["size"] == QUICK and made["versions"]["torch"] and made["machine"]["cores"]
    grids, _ = load(tmp_path, ENTRIES[name])
    assert grids and all(one.rows for one in grids)
    said = capsys.readouterr().out
    assert f"# {name}: " in said and all(one.title in said for one in grids)
    assert ("on handwritten digits" in said) == made["example_instead_of_data"]
    # What only shows that it runs is no measurement.
    assert not any(key.startswith("measured") for key in found_for(ENTRIES[name], tmp_path)[0])


def test_a_conv4_and_its_generators_learn_from_other_classes_than_the_episodes(tmp_path):
    make_pattern_folder(tmp_path / "train-tiny_imagenet", range(16), per_class=24)
    small = dict(vae_steps=2, align_steps=2, diffusion_steps=2, batch_size=8)
    settings = conv4.Settings(
        base=8,
        epochs=1,
        zoo=ZooConfig(subsets=16, min_classes=5, max_classes=5, images=5, max_per_class=12, width=16),
        unet=UNetConfig.preset("tiny", **small),
        dual=DualConfig.preset("tiny", names=False, steps=2, tasks=2),
    )
    run = Run(ENTRIES["table1"], QUICK, data=tmp_path, out=tmp_path / "out")
    one, five = few_shot.few_shot_conv4(run, settings)
    assert "Conv4, 5-way 1-shot" in one.title and 0 <= five[few_shot.ROWS["class_mean"], "mean of the sets"] <= 100
    base, others = conv4.divided(load_images(tmp_path / "train-tiny_imagenet"), 8)
    assert len(base.classes) == len(others.classes) == 8 and not set(base.classes) & set(others.classes)
    assert {item.parent.name for item in others.items} == set(others.classes)
    zoo = Zoo(run.out / "conv4" / "zoo")
    assert zoo.datasets[0]["classes"] == list(base.classes)
    assert few_shot.few_shot_conv4(run, settings)[0] == one  # nothing is trained again


def test_a_stopped_table_goes_on(tmp_path):
    left, computed = [2], []

    def one(key):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        computed.append(key)
        return key

    def compute(run: Run) -> list[Grid]:
        return [grid("keys", "key", {key: [value] for key, value in run.measured("abcd", one).items()})]

    entry = entry_of(compute)
    with pytest.raises(KeyboardInterrupt):
        measure(Run(entry, out=tmp_path), "the command")
    assert not (tmp_path / "table0.json").exists()
    left[0] = 4
    (made,) = measure(Run(entry, out=tmp_path), "the command", resume=True)
    assert [label for label, _ in made.rows] == list("abcd") and computed == list("abcd")
    left[0] = 4
    measure(Run(entry, out=tmp_path), "the command")  # without: anew
    assert computed == list("abcdabcd")


def test_a_spent_budget_begins_no_cell(tmp_path):
    run = Run(entry_of(None), out=tmp_path, minutes=-1.0)
    run.cells["a"] = 1
    assert run.measured(["a", "b"], lambda key: 2) == {"a": 1}
    assert Run(entry_of(None), out=tmp_path, minutes=None).measured(["b"], lambda key: 2) == {"b": 2}


def test_missing_data_is_said_before_anything_is_computed(tmp_path, capsys):
    run = Run(entry_of(lambda run: pytest.fail("computed"), needs=("flowers",)), out=tmp_path)
    with pytest.raises(UserError, match="table0 needs the data set flowers: give --data"):
        measure(run, "")
    with pytest.raises(UserError, match="has none"):
        measure(replace(run, data=tmp_path), "")
    (tmp_path / "roses").mkdir()
    either = replace(run.entry, needs=("flowers", "roses"))
    with pytest.raises(UserError, match="flowers"):
        measure(Run(either, out=tmp_path, data=tmp_path), "")
    some = entry_of(lambda run: [grid("sets", "set", {name: [1] for name in run.present(either.needs)})])
    some = replace(some, needs=either.needs, any_of=True)
    assert "roses" in measure(Run(some, out=tmp_path, data=tmp_path), "")[0]
    with pytest.raises(SystemExit):
        main(["table1", "--out", str(tmp_path)])
    assert "table1 needs the data set unseen-cifar100" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["table99"])
    assert "There is no table99" in capsys.readouterr().err


def test_numbers_are_read_from_grids():
    assert NUMBERS["a", "first"] == 1.5 and NUMBERS["a", "second"] == 80.5 and NUMBERS["b", 0] == 71.6
    with pytest.raises(KeyError):
        NUMBERS["b", "second"]
    assert Grid.from_json(json.loads(json.dumps(NUMBERS.to_json()))) == NUMBERS


PAGE_OF_ANOTHER = """# All

## First

| a | b |
|---|---|
| **x** | 1.0 ± 0.5 |

```
python -m one --a \\
    --b
python -m one --c
```

### Within

## Second

| a | b |
|---|---|
| y | 2 |

`python -m two`
"""


ABLATIONS = """# All

## The ablations

| table | row | mean |
|---|---|---|
|  | heads of the zoo | 90.0 |
| 20, 21 | Set Transformer, aligned: one sample | 80.0 ± 1.0 |
| 21, figure 7 | Set Transformer, joint with the denoiser: one sample | 75.0 ± 1.0 |
| 21 | two-layer MLP, aligned: one sample | 50.0 ± 1.0 |
| 20 | with a predictor that ranks samples: one sample | 81.0 ± 1.0 |
| 11 | no condition: one sample | 20.0 |
| figure 6b | no VAE, diffusion of weights: one sample | 10.0 |
| figure 6a | half of the zoo: one sample | 70.0 |
| figure 6a | an eighth of the zoo: one sample | 72.0 |

`python -m benchmarks.ablations sets/train-pacs --out ablations.json`
"""


def test_a_table_that_waits_for_a_benchmark_shows_its_rows_once_they_are_there(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "README.md").write_text(ABLATIONS, encoding="utf-8")
    monkeypatch.setattr("benchmarks.papers.markdown.ROOT", tmp_path)
    waiting = {name: ENTRIES[name] for name in ("table21", "table11", "figure6", "figure7", "figure2")}
    verdicts = {name: verdict_of(entry, found_for(entry, tmp_path)[0]) for name, entry in waiting.items()}
    assert verdicts["table21"].ours == "trained 90.0, MLP 50.0, aligned Set Transformer 80.0, with predictor 81.0"
    assert verdicts["table21"].why == "the order of the encoders holds; predictor +1.0"
    assert verdicts["table11"].ours == "with a condition 80.0, without 20.0"
    assert verdicts["figure6"].ours.endswith("72.0, 70.0, 80.0; without the VAE 10.0")
    assert verdicts["figure6"].why.startswith("a larger zoo is not always better; the VAE is needed")
    assert verdicts["figure7"].ours == "aligned 80.0, joint 75.0" and verdicts["figure7"].why.startswith("not alike")
    assert verdicts["figure2"].status == NOT_MEASURED and "benchmarks.transfer" in verdicts["figure2"].why


def test_tables_and_commands_are_read_from_a_page(tmp_path, monkeypatch):
    first = section(PAGE_OF_ANOTHER, "First")
    assert "Within" in first and "Second" not in first
    assert tables(first) == [[["a", "b"], ["x", "1.0 ± 0.5"]]]
    assert command(first, "python -m one") == "python -m one --a --b"
    assert command(first, "python -m one … --c") == "python -m one --c" and command(first, "python -m two") is None
    (tmp_path / "page.md").write_text(PAGE_OF_ANOTHER, encoding="utf-8")
    monkeypatch.setattr("benchmarks.papers.markdown.ROOT", tmp_path)
    one, heading, said = read(Published("", "python -m two", page="page.md"))
    assert heading == "Second" and said == "python -m two" and one["y", "b"] == 2
    assert read(Published("", "python -m three", page="page.md")) is None
    assert read(Published("Third", "python -m two", page="page.md")) is None
