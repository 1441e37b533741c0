"""Tasks of texts: tables, labels or values, descriptions, and how the parts are cut."""

import numpy as np
import pytest

from d2nwg.data.text_tasks import DEV, TEST, TRAIN, load_text_task, read_about
from d2nwg.utils.errors import UserError
from tests.helpers.text_tasks import opinions, write_task


def sizes(task):
    return [len(task.numbers(part)) for part in (TRAIN, DEV, TEST)]


def test_parts_as_given(tmp_path):
    rows = {"train": opinions(20), "dev": opinions(5, 1), "test": opinions(7, 2)}
    task = load_text_task(write_task(tmp_path / "tone", rows, description="Tone.", labels=["no", "yes"]))
    assert (task.name, task.classes, task.metric, task.descriptions) == ("tone", ("no", "yes"), "accuracy", ("Tone.",))
    assert sizes(task) == [20, 5, 7] and task.cut == "as given"
    first = rows["test"][0]
    place = int(task.numbers(TEST)[0])
    assert task.texts[place] == first["text"] and task.targets[place] == first["label"]


@pytest.mark.parametrize(
    ("given", "wanted", "cut"),
    [
        (("train", "test"), [35, 5, 10], "an eighth of the training part"),
        (("train",), [28, 4, 8], "70 : 10 : 20"),
        (("dev", "test"), [14, 2, 4], "70 : 10 : 20"),
        (("train", "validation"), [35, 5, 10], "70 : 10 : 20"),
    ],
)
def test_missing_parts_are_cut_by_the_seed(tmp_path, given, wanted, cut):
    rows = {part: opinions(40 if part == "train" else 10, 1) for part in given}
    path = write_task(tmp_path / "tone", rows)
    task, again, other = (load_text_task(path, seed=seed) for seed in (0, 0, 1))
    assert sizes(task) == wanted and cut in task.cut and "seed 0" in task.cut
    assert np.array_equal(task.part, again.part) and not np.array_equal(task.part, other.part)


def test_values_and_pairs(tmp_path):
    rows = [{"sentence1": f"a film {i}", "sentence2": "the book", "score": i / 8} for i in range(40)]
    path = write_task(tmp_path / "alike", {"train": [dict(row, label=row.pop("score")) for row in rows]})
    task = load_text_task(path)
    assert task.metric == "pearson" and task.classes == () and task.targets.dtype == np.float32
    assert task.texts[3] == ("a film 3", "the book") and task.targets[3] == pytest.approx(3 / 8)
    assert task.descriptions == ("alike",)


def test_one_table_with_words_as_labels(tmp_path):
    lines = ["text,label", *(f"a very good film {i},{'fine' if i % 2 else 'poor'}" for i in range(40))]
    (tmp_path / "reviews.csv").write_text("\n".join(lines))
    task = load_text_task(tmp_path / "reviews.csv")
    assert task.name == "reviews" and task.classes == ("fine", "poor") and sizes(task) == [28, 4, 8]


@pytest.mark.parametrize(
    ("rows", "about", "why"),
    [
        ({"train": opinions(20)}, {"metric": "pearson"}, "cannot be measured by pearson"),
        ({"train": opinions(20)}, {"metric": "bleu"}, "task.json of tone is damaged at metric"),
        ({"train": opinions(20)}, {"labels": ["no"]}, "none of the 1 that its task.json names"),
        ({"train": opinions(4)}, {}, "too few"),
        ({"train": [{"text": f"film {i}", "label": 1} for i in range(20)]}, {}, "only one class, 1"),
        ({"one": opinions(9), "two": opinions(9)}, {}, "2 tables, none of them called train"),
        ({"train": [{"text": "", "label": 1}] * 20}, {}, "no column of texts"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path, rows, about, why):
    with pytest.raises(UserError, match=why):
        load_text_task(write_task(tmp_path / "tone", rows, **about))


def test_what_is_said_elsewhere_goes_first(tmp_path):
    path = write_task(tmp_path / "tone", {"train": opinions(20)}, description="Tone.", labels=["no", "yes"])
    (tmp_path / "about.json").write_text(
        '{"tone": {"descriptions": ["Liked?"], "aside": ["So?"], "metric": "matthews"}}'
    )
    task = load_text_task(path, said=read_about(tmp_path / "about.json"))
    assert (task.descriptions, task.aside, task.metric) == (("Tone.", "Liked?"), ("So?",), "matthews")
    assert task.classes == ("no", "yes")
    (tmp_path / "about.json").write_text('{"tone": {"descriptions": "Liked?"}}')
    with pytest.raises(UserError, match=r"about\.json is damaged at tone\.descriptions"):
        read_about(tmp_path / "about.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_about(tmp_path / "none.json")


def test_no_such_task(tmp_path):
    with pytest.raises(UserError, match="There is no task of texts at"):
        load_text_task(tmp_path / "none")
    with pytest.raises(UserError, match="holds no table of texts"):
        load_text_task(tmp_path)


def test_a_table_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    path = write_task(tmp_path / "tone", {"train": opinions(20)})
    (tmp_path / "secret.jsonl").write_text((path / "train.jsonl").read_text())
    (path / "train.jsonl").unlink()
    (path / "train.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(UserError, match="holds train.jsonl, a link that leads elsewhere"):
        load_text_task(path)
    (tmp_path / "elsewhere").symlink_to(write_task(tmp_path / "mood", {"train": opinions(20)}))
    assert load_text_task(tmp_path / "elsewhere").name == "mood"  # what a person names may be a link
