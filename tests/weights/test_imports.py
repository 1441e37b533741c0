"""Import of checkpoints: every file is imported in full or named; one that cannot be read stops no other."""

import io
import json
import os
import re
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d2nwg.utils.errors import UserError
from d2nwg.weights.checkpoint_files import find_checkpoints
from d2nwg.weights.imports import import_checkpoints
from d2nwg.weights.model_zoo import ModelZoo
from d2nwg.weights.statefiles import read_checkpoint


def saved(content) -> bytes:
    data = io.BytesIO()
    torch.save(content, data)
    return data.getvalue()


def safetensors(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def shared(levels: int) -> dict:
    """Dictionaries that share their values: 2 ** levels paths lead to the one tensor."""
    content = {"w": torch.ones(2)}
    for _ in range(levels):
        content = {"a": content, "b": content, "c": 1, "d": 2}
    return content


def nested(levels: int) -> dict:
    content: dict = {"w": torch.ones(2)}
    for _ in range(levels):
        content = {"a": content}
    return content


def cyclic() -> dict:
    content: dict = {"epoch": 3}
    content["state_dict"] = content
    return content


def old_tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))
    return data.getvalue()


def torchscript() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("x/data.pkl", "x/code/x.py", "x/constants.pkl", "x/version"):
            archive.writestr(name, b"")
    return data.getvalue()


def optimiser() -> dict:
    layer = torch.nn.Linear(3, 2)
    made = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    made.step()
    return made.state_dict()


F8 = {"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
F4 = {"w": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}
DEEP = {"w": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}}
HUGE = {"w": {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}}

BAD = {
    "float8.safetensors": (safetensors(F8, bytes(4)), "holds w as float8_e4m3fn, which is not supported"),
    "float4.safetensors": (safetensors(F4, bytes(4)), "damaged|not supported"),
    "dimensions.safetensors": (safetensors(DEEP, bytes(4)), "damaged"),
    "overflow.safetensors": (safetensors(HUGE), "damaged"),
    "cycle.pt": (saved(cyclic()), "holds no weights"),
    "deep.pt": (saved(nested(150)), "nests its dictionaries too deep"),
    "surrogate.pt": (saved({"\ud800": torch.ones(2)}), "holds a tensor whose name is not UTF-8"),
    "sparse.pt": (saved({"w": torch.ones(3).to_sparse()}), "not a plain dense tensor"),
    "tar.pt": (old_tar(), "is in the tar format of PyTorch before version"),
    "script.pt": (torchscript(), "is a TorchScript archive, which holds code"),
    "pointer.bin": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "optimizer.pt": (saved(optimiser()), "only the state of an optimiser"),
    "moments.pt": (saved(optimiser()["state"]), "only the state of an optimiser"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_that_cannot_be_read_is_named_and_the_others_imported(name, tmp_path):
    data, sentence = BAD[name]
    (tmp_path / name).write_bytes(data)
    torch.save({"w": torch.ones(3)}, tmp_path / "good.pth")
    made = import_checkpoints(tmp_path, None)
    assert [record["name"] for record in made.records] == ["good.pth"]
    ((refused, reason),) = made.refused
    assert refused == name and re.search(sentence, reason) and reason.startswith(name) and reason.endswith(".")
    assert made.account == "2 files: 1 imported as 1 checkpoint, 1 left out."


def test_a_nested_tensor_is_no_plain_one(tmp_path):
    torch.save({"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="not a plain dense tensor"):
        read_checkpoint(tmp_path / "x.pt")


def test_shared_containers_take_no_time(tmp_path):
    torch.save(shared(40), tmp_path / "shared.pt")  # 2 ** 40 paths to one tensor
    assert read_checkpoint(tmp_path / "shared.pt").state["w"].tolist() == [1, 1]


def test_further_tensors_of_a_file_are_named(tmp_path):
    content = {
        "state_dict": {"w": torch.ones(3)},
        "ema": {"w": torch.zeros(3)},
        "loss": torch.tensor(1.0),
        "optimizer": optimiser(),
    }
    torch.save(content, tmp_path / "x.pt")
    made = import_checkpoints(tmp_path / "x.pt", None)
    assert made.notes == ["Not imported from x.pt: further tensors, under ema."]


def test_facts_of_any_type(tmp_path):
    facts = {"task": "\ud800", "accuracy": 10**400, "epoch": torch.ones(1).to_sparse()}
    torch.save({"state_dict": {"w": torch.ones(3)}, **facts}, tmp_path / "x.pt")
    assert import_checkpoints(tmp_path / "x.pt", None).records[0].keys() == {"file", "name", "architecture", "sha256"}


# ---------------------------------------- shards


def shards(folder: Path, count: int = 3, suffix: str = ".safetensors", index: bool = True, prefix="model") -> Path:
    """A checkpoint of `count` tensors, each in a shard of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"t{i}": f"{prefix}-{i + 1:05d}-of-{count:05d}{suffix}" for i in range(count)}
    for tensor, name in names.items():
        state = {tensor: torch.full((4,), float(tensor[1:]))}
        save_file(state, folder / name) if suffix == ".safetensors" else torch.save(state, folder / name)
    if index:
        (folder / f"{prefix}{suffix}.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("suffix, prefix", [(".safetensors", "model"), (".bin", "pytorch_model")])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("config", [True, False])
def test_shards_are_imported_as_one(suffix, prefix, index, config, tmp_path):
    folder = shards(tmp_path / "in" / "net", suffix=suffix, index=index, prefix=prefix)
    if config:
        (folder / "config.json").write_text("{}")
    made = import_checkpoints(tmp_path / "in", tmp_path / "zoo")
    assert not made.refused and set(ModelZoo(tmp_path / "zoo").state(0)) == {"t0", "t1", "t2"}
    named = f"net/{prefix}{suffix}.index.json" if index else f"net/{prefix}-00001-of-00003{suffix}"
    assert [record["name"] for record in made.records] == ["net" if config else named]
    others = ", 1 of other kinds (net/config.json)" if config else ""
    assert made.account == f"{3 + index + config} files: {3 + index} imported as 1 checkpoint{others}."


def index_of(folder: Path) -> Path:
    return folder / "model.safetensors.index.json"


def remap(folder: Path, change) -> None:
    content = json.loads(index_of(folder).read_text())
    change(content["weight_map"])
    index_of(folder).write_text(json.dumps(content))


BROKEN = {
    "a shard is missing": (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), "which is missing"),
    "no index, a shard is missing": (
        lambda f: (index_of(f).unlink(), (f / "model-00002-of-00003.safetensors").unlink()),
        "is one of 3 shards, which are not all here",
    ),
    "a promised tensor is missing": (
        lambda f: remap(f, lambda m: m.update(t9=m["t0"])),
        "names t9, which no shard holds",
    ),
    "an unnamed tensor": (
        lambda f: save_file({"t0": torch.ones(4), "x": torch.ones(4)}, f / "model-00001-of-00003.safetensors"),
        "does not name x, which a shard holds",
    ),
    "a tensor twice": (
        lambda f: save_file({"t0": torch.ones(4), "t1": torch.ones(4)}, f / "model-00001-of-00003.safetensors"),
        "more than one shard holds t1",
    ),
    "a damaged shard": (lambda f: (f / "model-00002-of-00003.safetensors").write_bytes(b"x"), "is damaged"),
    "a list": (lambda f: index_of(f).write_text("[]"), "index.json is damaged"),
    "no JSON": (lambda f: index_of(f).write_text("{"), "index.json is damaged"),
    "not UTF-8": (lambda f: index_of(f).write_bytes(b"\xff"), "index.json is damaged"),
    "deep": (lambda f: index_of(f).write_text("[" * 100_000), "index.json is damaged"),
    "a list of names": (lambda f: index_of(f).write_text('{"weight_map": ["t0"]}'), "index.json is damaged"),
    "empty": (lambda f: index_of(f).write_text('{"weight_map": {}}'), "index.json is damaged"),
    "numbers": (lambda f: index_of(f).write_text('{"weight_map": {"t0": 1}}'), "outside its folder, 1"),
    "another folder": (lambda f: index_of(f).write_text('{"weight_map": {"t0": "../x.pt"}}'), "outside its folder"),
    "a zero byte": (lambda f: index_of(f).write_text('{"weight_map": {"t0": "a\\u0000.pt"}}'), "outside its folder"),
    "itself": (
        lambda f: index_of(f).write_text(json.dumps({"weight_map": {"t0": index_of(f).name}})),
        "which is no file of weights",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_an_incomplete_checkpoint_is_refused_and_all_its_files_counted(fault, tmp_path):
    folder = shards(tmp_path / "net")
    (folder / "config.json").write_text("{}")
    torch.save({"w": torch.ones(3)}, tmp_path / "good.pt")
    change, sentence = BROKEN[fault]
    change(folder)
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    made = import_checkpoints(tmp_path, None)
    assert [record["name"] for record in made.records] == ["good.pt"], "no part of it is taken for a checkpoint"
    ((name, reason),) = made.refused
    assert name == "net" and sentence in reason
    assert made.account == (
        f"{files} files: 1 imported as 1 checkpoint, {files - 2} left out, 1 of other kinds (net/config.json)."
    )


def test_everything_beside_a_model_is_imported_or_named(tmp_path):
    folder = shards(tmp_path / "net")
    (folder / "config.json").write_text("{}")
    save_file({"lora": torch.ones(2)}, folder / "adapter_model.safetensors")
    save_file({"t0": torch.ones(2)}, folder / "model-00004-of-00009.safetensors")
    torch.save(optimiser(), folder / "optimizer.pt")
    (folder / "README.md").write_text("x")
    (tmp_path / "scores.csv").write_text("file,task\nnet,stripes\n")
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "away.pt").symlink_to("/dev/zero")
    made = import_checkpoints(tmp_path, tmp_path / "zoo")
    assert sorted((r["name"], r.get("task")) for r in made.records) == [
        ("net", "stripes"),
        ("net/adapter_model.safetensors", "stripes"),
    ]
    assert sorted(name for name, _ in made.refused) == ["net/model-00004-of-00009.safetensors", "net/optimizer.pt"]
    assert made.notes == [
        "Not read: 1 entry linked to nothing that is a regular file: away.pt.",
        "Not read: 1 entry neither regular file nor folder: pipe.pt.",
    ]
    assert made.account == (
        "12 files: 5 imported as 2 checkpoints, 2 left out, 2 not read, 1 table, "
        "2 of other kinds (net/README.md, net/config.json)."
    )


def test_members_of_an_archive_that_are_not_unpacked_are_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.pt", saved({"w": torch.ones(3)}))
        archive.writestr("notes/readme.txt", "x")
    for _ in range(2):  # also when it is unpacked already
        made = import_checkpoints(tmp_path / "in.zip", None, into=tmp_path / "into")
        assert made.account == "2 files: 1 imported as 1 checkpoint, 1 of other kinds (notes/readme.txt)."


def test_a_shard_alone_is_no_checkpoint(tmp_path):
    shards(tmp_path)
    with pytest.raises(UserError, match="is one of 3 shards, which are not all here"):
        import_checkpoints(tmp_path / "model-00001-of-00003.safetensors", None)


def test_only_special_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match="holds no checkpoints.* Not read: 1 entry neither regular"):
        find_checkpoints(tmp_path)
    with pytest.raises(UserError, match="There is no folder or archive at"):
        find_checkpoints(tmp_path / "pipe.pt")
    with pytest.raises(UserError, match="There is no table at"):
        torch.save({"w": torch.ones(3)}, tmp_path / "good.pt")
        import_checkpoints(tmp_path, None, table=tmp_path / "pipe.pt")


# ---------------------------------------- two at once


def test_two_appends_lose_no_record(tmp_path, monkeypatch):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    for i in range(3):
        torch.save({"w": torch.full((3,), float(i))}, tmp_path / f"{i}.pt")
    zoo = tmp_path / "zoo"
    import_checkpoints(tmp_path / "0.pt", zoo)
    inside, go = threading.Event(), threading.Event()

    def hold(stage, done, total):
        inside.set()
        assert go.wait(60)

    first = threading.Thread(
        target=import_checkpoints, args=(tmp_path / "1.pt", zoo), kwargs=dict(append=True, progress=hold)
    )
    first.start()
    assert inside.wait(60)
    for append in (True, False):
        with pytest.raises(UserError, match="zoo is being written already"):
            import_checkpoints(tmp_path / "2.pt", zoo, append=append)
    go.set()
    first.join()
    assert [record["name"] for record in ModelZoo(zoo).records] == ["0.pt", "1.pt"]
    import_checkpoints(tmp_path / "2.pt", zoo, append=True)
    assert [record["name"] for record in ModelZoo(zoo).records] == ["0.pt", "1.pt", "2.pt"]


def test_files_given_together_are_each_imported_used_or_named(tmp_path):
    (tmp_path / "there").mkdir()
    files = [tmp_path / name for name in ("a.pt", "facts.csv", "notes.txt", "broken.zip", "there", "b.pt")]
    torch.save({"w": torch.ones(3)}, files[0])
    files[1].write_text("file,accuracy\na.pt,0.5\nb.pt,0.25\n")
    files[2].write_text("two of them")
    files[3].write_bytes(b"PK\x03\x04")
    torch.save({"w": torch.zeros(3)}, files[-1])
    made = import_checkpoints(files, tmp_path / "zoo")
    assert [(record["name"], record["accuracy"]) for record in made.records] == [("a.pt", 0.5), ("b.pt", 0.25)]
    assert [name for name, _ in made.refused] == ["notes.txt", "broken.zip", "there"]
    assert made.account.startswith("6 files: 2 imported as 2 checkpoints, 1 table, 3 of other kinds")
    with pytest.raises(UserError, match="There is no folder or archive at"):
        import_checkpoints([files[0], tmp_path / "c.pt"], None)
    with pytest.raises(UserError, match="None of 2 checkpoints can be imported; the first one: "):
        import_checkpoints(files[2:4], None)
    with pytest.raises(UserError, match=r"tables and no checkpoints \(facts\.csv, facts\.csv\)"):
        import_checkpoints([files[1]] * 2, None)
    with pytest.raises(UserError, match=r"notes\.txt"):
        import_checkpoints(files[2], None)
