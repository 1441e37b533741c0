"""Importing checkpoints: real files, odd ones, hostile ones; and giving them back bit for bit."""

import csv
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2nwg.cli import main
from d2nwg.utils.errors import UserError
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.layouts import ChunkedLayout, recalibrate
from d2nwg.weights.model_zoo import ModelZoo, export_names, export_zoo
from d2nwg.weights.open import open_zoo
from d2nwg.weights.preview import preview
from d2nwg.weights.zoo import Zoo
from tests.helpers.networks import network


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """Checkpoints in every form a person may have."""
    root = tmp_path / "checkpoints"
    (root / "saved").mkdir(parents=True)
    (root / "sharded").mkdir()
    states = [network(seed=i).state_dict() for i in range(5)]
    torch.save(
        {
            "state_dict": OrderedDict((f"module.{n}", t) for n, t in states[0].items()),
            "best_prec1": 91.5,
            "epoch": 7,
            "optimizer": {"state": {0: torch.zeros(10_000)}},
        },
        root / "a.th",
    )
    torch.save(states[1], root / "b.pt")
    save_file(states[2], root / "c.safetensors")
    save_file(states[3], root / "saved" / "model.safetensors")
    (root / "saved" / "config.json").write_text("{}")
    names = list(states[4])
    for i, part in enumerate((names[:3], names[3:])):
        save_file({name: states[4][name] for name in part}, root / "sharded" / f"model-{i}.safetensors")
    (root / "sharded" / "config.json").write_text("{}")
    (root / "sharded" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {name: f"model-{int(name not in names[:3])}.safetensors" for name in names}})
    )
    torch.save(network(norm=False, width=4).state_dict(), root / "other.pth", _use_new_zipfile_serialization=False)
    (root / "scores.csv").write_text("file,task,accuracy,epoch\nb.pt,stripes,88.5,3\nsaved,dots,0.5,\ngone.pt,x,1,1\n")
    return root


def test_import_and_export_bit_for_bit(folder, tmp_path):
    made = import_checkpoints(folder, tmp_path / "zoo")
    assert not made.refused and made.notes == ["The table has rows of files that are not here: gone.pt."]
    zoo = ModelZoo(tmp_path / "zoo")
    told = {r["name"]: tuple(r.get(key) for key in ("task", "accuracy", "epoch")) for r in zoo.records}
    assert told == {
        "a.th": (None, 0.915, 7),
        "b.pt": ("stripes", 0.885, 3),
        "c.safetensors": (None,) * 3,
        "other.pth": (None,) * 3,
        "saved": ("dots", 0.5, None),
        "sharded": (None,) * 3,
    }
    assert [len(members) for members in zoo.architectures().values()] == [5, 1], "module. is no difference"
    states = [network(seed=i).state_dict() for i in range(5)]
    assert list(zoo.plain_state(1)) == list(states[0]), "in module order"
    out = export_zoo(zoo, tmp_path / "out")
    back = {path.stem: load_file(path) for path in out.glob("*.safetensors")}
    assert same(back["a"], {f"module.{n}": t for n, t in states[0].items()})
    assert back["a"]["module.1.num_batches_tracked"].dtype == torch.int64
    for name, state in zip(("b", "c", "saved", "sharded"), states[1:], strict=True):
        assert same(back[name], state)
    assert same(back["other"], network(norm=False, width=4).state_dict())
    again = import_checkpoints(export_zoo(zoo, tmp_path / "pt", format="pt"), tmp_path / "again")
    assert {r["sha256"] for r in again.records} == {r["sha256"] for r in zoo.records}
    assert sum("accuracy" in r for r in again.records) == 3, "zoo.csv tells them"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.bool])
def test_every_type_of_number(dtype, tmp_path):
    state = {
        "w": (torch.randn(3, 4) > 0).to(dtype) if dtype == torch.bool else (torch.randn(3, 4) * 9).to(dtype),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    state["tied"] = state["w"]
    state["turned"] = state["w"].T
    torch.save(state, tmp_path / "x.pt")
    import_checkpoints(tmp_path / "x.pt", tmp_path / "zoo")
    assert same(ModelZoo(tmp_path / "zoo").state(0), state)


def test_append_and_refuse_twins(folder, tmp_path):
    out = tmp_path / "zoo"
    import_checkpoints(folder / "b.pt", out)
    with pytest.raises(UserError, match="exists already: add to it with --append"):
        import_checkpoints(folder, out)
    made = import_checkpoints(folder, out, append=True)
    assert made.refused == [("b.pt", "b.pt has the same weights as b.pt, imported already.")]
    assert len(ModelZoo(out)) == 6 and len(list((out / "models").iterdir())) == 6


def test_preview_writes_nothing(folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    groups = preview(import_checkpoints(folder, None), chunk=50)
    assert sorted(tmp_path.rglob("*")) == before
    first, second = groups
    assert first["checkpoints"] == 5 and first["difference"] == "" and first["counters"] == ["1.num_batches_tracked"]
    layer = first["layers"][0]
    assert (layer["layer"], layer["shapes"], layer["numbers"], layer["chunks"], layer["padding"]) == (
        "0",
        {"weight": [6, 1, 3, 3], "bias": [6]},
        60,
        2,
        40,
    )
    assert sum(first["histogram"]["share"]) == pytest.approx(1)
    assert "5 fewer" in second["difference"] and "0.weight: 4×1×3×3 instead of 6×1×3×3" in second["difference"]


# ---------------------------------------- layouts


def test_chunks_round_trip():
    states = [network(seed=i).state_dict() for i in range(4)]
    layout = ChunkedLayout.of(states[0], chunk=25)
    layout.fit(states)
    batch = {name: torch.stack([state[name] for state in states]) for name in layout.shapes}
    chunks, mask = layout.flatten(batch), layout.mask()
    assert chunks.shape == (4, len(layout.places), 25) and mask.shape == chunks.shape[1:]
    assert not chunks[:, ~mask].any() and int(mask.sum()) == sum(map(layout.numel, layout.layers))
    assert layout.places == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2)]
    again = ChunkedLayout(**json.loads(json.dumps(layout.to_config()))).unflatten(chunks)
    for name in layout.shapes:
        torch.testing.assert_close(again[name], batch[name])
    for name in layout.shapes:  # every tensor on its own scale
        alone = ChunkedLayout(
            {name: layout.shapes[name]}, 25, mean={name: layout.mean[name]}, std={name: layout.std[name]}
        )
        values = alone.flatten({name: batch[name]})[:, alone.mask()]
        assert abs(float(values.mean())) < 1e-4 and (abs(float(values.std()) - 1) < 0.2 or layout.std[name] == 1)


def test_whatever_is_generated_is_a_variance():
    layout = ChunkedLayout.of(network().state_dict(), chunk=25)
    layout.fit([network().state_dict()])
    made = layout.unflatten(torch.randn(3, len(layout.places), 25) * 5)
    assert (made["1.running_var"] >= 0).all() and "1.num_batches_tracked" not in made


def test_statistics_measured_again():
    original, x = network(), torch.randn(64, 1, 4, 4)
    layout = ChunkedLayout.of(original.state_dict(), batchnorm="recalibrate")
    assert not [name for name in layout.shapes if "running" in name]
    fresh = network(seed=1)
    fresh.load_state_dict(
        {
            n: t[0]
            for n, t in layout.unflatten(
                layout.flatten({n: original.state_dict()[n][None] for n in layout.shapes})
            ).items()
        },
        strict=False,
    )
    before = fresh[1].running_mean.clone()
    recalibrate(fresh, x.split(32))
    inside = original[0](x)
    torch.testing.assert_close(fresh[1].running_mean, inside.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert not torch.equal(before, fresh[1].running_mean) and not fresh.training
    with pytest.raises(UserError, match="'never' is not known: choose travel or recalibrate"):
        ChunkedLayout({}, batchnorm="never")


# ---------------------------------------- what is refused


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def legacy(content) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


def stretched() -> bytes:
    """A tensor of a terabyte over four bytes of data."""
    data = io.BytesIO()
    torch.save({"w": torch.zeros(1).expand(2**38)}, data)
    return data.getvalue()


def bomb() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**25)
    return data.getvalue()


def lying(end: int, length: int | None = None) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 8


def with_value(value: float) -> bytes:
    data = io.BytesIO()
    torch.save({"layer.weight": torch.tensor([1.0, value])}, data)
    return data.getvalue()


HOSTILE = {
    "code.pt": (pickle.dumps({"w": Evil()}), "a pickle that only code could open"),
    "code.pth": (legacy({"w": Evil()}), "needs code to open .*it calls for (posix|nt).system.*never run"),
    "module.pt": (legacy(network()), "needs code to open .*torch.nn.modules.container.Sequential"),
    "bomb.pt": (bomb(), "unpacks to more than 100 times its size"),
    "stretched.pt": (stretched(), "claims to be larger than its data"),
    "lies.safetensors": (lying(2**40), "damaged"),
    "header.safetensors": (lying(8, 2**60), "damaged"),
    "short.safetensors": (b"\1", "damaged"),
    "nan.pt": (with_value(float("nan")), "holds NaN weights, in layer.weight"),
    "inf.pt": (with_value(float("inf")), "holds infinite weights, in layer.weight"),
    "empty.pt": (legacy({}), "holds no weights"),
    "text.pt": (b"hello", "damaged, or no checkpoint"),
    "numbers.pt": (legacy({"epoch": 3}), "holds no weights"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_gets_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, sentence = HOSTILE[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(UserError, match=sentence) as caught:
        import_checkpoints("in", "zoo")
    text = str(caught.value)
    assert text.startswith(name) and text.endswith(".") and "\n" not in text and "Error" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["in"], "nothing was written or run"


def test_the_good_are_kept_beside_the_bad(folder, tmp_path):
    for name, (data, _) in HOSTILE.items():
        (folder / name).write_bytes(data)
    made = import_checkpoints(folder, tmp_path / "zoo")
    assert len(made.records) == 6 and {name for name, _ in made.refused} == set(HOSTILE)
    assert not [p for p in tmp_path.rglob("evil")]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_hostile_archives(folder, tmp_path, monkeypatch):
    good = (folder / "b.pt").read_bytes()
    into = tmp_path / "into"

    def refused(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            import_checkpoints(path, tmp_path / "zoo", into=into)
        assert not into.exists() or not list(into.iterdir())
        assert not (tmp_path / "zoo").exists()
        return str(caught.value)

    assert "leads out of it" in refused(pack(tmp_path / "up.zip", {"../evil.pt": good}))
    link = tarfile.TarInfo("a.pt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        archive.addfile(link)
    assert "holds a link, a.pt" in refused(tmp_path / "link.tar")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pt", b"\0" * (300 * 2**20))
    assert "more than 100 times its size" in refused(tmp_path / "bomb.zip")
    monkeypatch.setattr("d2nwg.data.archives.MAX_MEMBERS", 50)
    assert "more than 50 members" in refused(pack(tmp_path / "many.zip", {f"{i}.pt": b"" for i in range(60)}))
    assert "holds no checkpoints" in refused(pack(tmp_path / "none.zip", {"a.txt": b"x"}))


def test_a_shard_outside_the_folder(folder, tmp_path):
    index = folder / "sharded" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../c.safetensors"}}))
    made = import_checkpoints(folder, None)
    assert made.refused == [("sharded", f"{index.name} names a file outside its folder, ../c.safetensors.")]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("task,accuracy\nx,1\n", "scores.csv has no column named file"),
        ("file,accuracy\nb.pt,good\n", "Line 2 of scores.csv gives good as accuracy"),
        ("file,accuracy\nb.pt,nan\n", "Line 2 of scores.csv gives nan as accuracy"),
    ],
)
def test_a_wrong_table(folder, text, sentence):
    (folder / "scores.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        import_checkpoints(folder, None)


@pytest.mark.parametrize(
    "change, where",
    [
        (lambda info: info["records"][0].update(name="../../evil.pt"), "records.0.name"),
        (lambda info: info["records"][0].update(name="/evil.pt"), "records.0.name"),
        (lambda info: info["records"][0].update(name=""), "records.0.name"),
        (lambda info: info["records"][1].update(file="/etc/passwd"), "records.1.file"),
        (lambda info: info["records"][1].update(file="models/../secret.safetensors"), "records.1.file"),
        (lambda info: info["records"][1].pop("file"), "records.1.file"),
        (lambda info: info["records"][0].update(task=[1]), "records.0.task"),
        (lambda info: info["records"][0].update(accuracy="high"), "records.0.accuracy"),
        (lambda info: info["records"][0].update(accuracy=7), "records.0.accuracy"),
        (lambda info: info.update(records={"a": 1}), "records"),
        (lambda info: info.update(architectures=[]), "architectures"),
        (lambda info: info.pop("records"), "records"),
    ],
)
def test_a_damaged_record_is_named(change, where, folder, tmp_path):
    import_checkpoints(folder, tmp_path / "zoo")
    info = json.loads((tmp_path / "zoo" / "zoo.json").read_text())
    change(info)
    (tmp_path / "zoo" / "zoo.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=rf"zoo.json of .*zoo is damaged at {where}: import its checkpoints again"):
        ModelZoo(tmp_path / "zoo")


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
        lambda path: link(path, path.parents[2] / "secret.safetensors"),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: save_file({"other": torch.ones(2)}, path),
    ],
    ids=["missing", "cut", "link", "fifo", "another"],
)
def test_a_damaged_member_is_named_by_every_verb(damage, folder, tmp_path, capsys):
    import_checkpoints(folder / "b.pt", tmp_path / "zoo")
    shutil.copyfile(tmp_path / "zoo" / "models" / "00000.safetensors", tmp_path / "secret.safetensors")
    damage(tmp_path / "zoo" / "models" / "00000.safetensors")
    zoo, out = str(tmp_path / "zoo"), str(tmp_path / "out")
    for command in (["info", zoo], ["export", zoo, "--out", out], ["export", zoo, "--out", out, "--format", "pt"]):
        assert main(["zoo", *command]) == 2
        assert "at models/00000.safetensors: import its checkpoints again." in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_exported_names_are_all_different():
    names = [
        "x-2.pt",
        "x.pt",
        "x.safetensors",
        "X.th",
        "x/y.pt",
        "x.pt/z",
        "long" * 70,
        "long" * 70 + "er",
        "zoo.csv/a",
    ]
    for format in ("pt", "safetensors"):
        paths = export_names(names, format)
        assert paths[:2] == [f"x-2.{format}", f"x.{format}" if format == "safetensors" else "x-3.pt"]
        folded = [path.casefold() for path in paths]
        parents = {str(parent).casefold() for path in paths for parent in Path(path).parents}
        assert len(set(folded)) == len(names) and not parents & set(folded)
        assert all(len(part.encode()) <= 255 for path in paths for part in Path(path).parts)


def test_nothing_is_lost_between_import_and_export(tmp_path):
    (tmp_path / "in" / "zoo.csv").mkdir(parents=True)
    for i, name in enumerate(("x-2.pt", "x.pt", "x.pth", "zoo.csv/a.pt", "n" * 200 + ".pt", "n" * 200 + ".th")):
        torch.save({"w": torch.full((2,), float(i))}, tmp_path / "in" / name)
    import_checkpoints(tmp_path / "in", tmp_path / "zoo")
    out = export_zoo(ModelZoo(tmp_path / "zoo"), tmp_path / "out")
    back = [load_file(path)["w"][0].item() for path in out.rglob("*.safetensors")]
    assert sorted(back) == [0, 1, 2, 3, 4, 5]
    with next(path for path in out.glob("zoo*.csv") if path.is_file()).open(newline="") as table:
        assert {row["file"] for row in csv.DictReader(table)} == {
            str(path.relative_to(out)) for path in out.rglob("*.safetensors")
        }


def test_a_zoo_of_models_is_no_zoo_of_heads(folder, tmp_path):
    import_checkpoints(folder, tmp_path / "zoo")
    with pytest.raises(UserError, match="is a zoo of checkpoints, and one of heads is needed"):
        Zoo(tmp_path / "zoo")
    with pytest.raises(UserError, match="is no zoo of checkpoints"):
        ModelZoo(folder)


def test_the_format_of_a_zoo_of_checkpoints(folder, tmp_path):
    import_checkpoints(folder, tmp_path / "zoo")
    path = tmp_path / "zoo" / "zoo.json"
    info = json.loads(path.read_text())
    assert info.pop("kind") == "checkpoints" and info.pop("format") == 2
    path.write_text(json.dumps({"format": "checkpoints", "version": 1, **info}))  # as the first version wrote it
    assert len(open_zoo(tmp_path / "zoo")) == len(info["records"])
    torch.save({"w": torch.ones(3)}, tmp_path / "one.pt")
    added = import_checkpoints(tmp_path / "one.pt", tmp_path / "zoo", append=True)
    assert len(added.records) == 1 and json.loads(path.read_text())["format"] == 2
    for declared in ({"kind": "checkpoints", "format": 3}, {"format": "checkpoints", "version": 9}):
        path.write_text(json.dumps({**declared, **info}))
        with pytest.raises(UserError, match="reads format 1 or 2: make one with `python -m d2nwg zoo import`"):
            open_zoo(tmp_path / "zoo")


def test_the_verbs(folder, tmp_path, capsys):
    zoo, out = str(tmp_path / "zoo"), str(tmp_path / "out")
    (folder / "bad.pt").write_bytes(b"bad")
    assert main(["zoo", "import", str(folder), "--out", zoo]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Left out: bad.pt is damaged") and '"checkpoints": 6' in printed
    assert main(["zoo", "import", str(folder), "--preview"]) == 0
    assert "5 checkpoints of 159 numbers: a.th, b.pt, c.safetensors and 2 more" in capsys.readouterr().out
    assert main(["zoo", "info", zoo]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["known"] == 3
    assert main(["zoo", "export", zoo, "--out", out]) == 0
    assert "6 checkpoints in" in capsys.readouterr().out
    assert main(["zoo", "import", str(folder), "--out", zoo]) == 2
    assert "exists already" in capsys.readouterr().err
