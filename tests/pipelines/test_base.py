"""Bundles as folders: older ones load, newer and foreign ones are refused."""

import json
import shutil

import pytest
import torch

from d2nwg import load_bundle
from d2nwg.pipelines.heads import LatentHeadPipeline, WeightGenerationPipeline
from d2nwg.pipelines.heads_dual import DualHeadPipeline
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import shipped


def copy(bundle, folder, **changes):
    """A copy of a bundle, with some entries of its index changed, or left out where they are None."""
    made = shutil.copytree(bundle, folder / "copy")
    index = json.loads((made / "model_index.json").read_text()) | changes
    (made / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if v is not None}))
    return made


def test_a_bundle_of_the_first_format_loads(tiny_bundle, tmp_path):
    """It has no number, names modules where they were then, and one pipeline for both kinds of heads."""
    moved = {
        "_class_name": "WeightGenerationPipeline",
        "_format": None,
        "condition_encoder": ["d2nwg.conditions.dataset", "DatasetEncoder"],
        "weight_space": ["d2nwg.models.space", "WeightSpace"],
    }
    old = copy(tiny_bundle, tmp_path, **moved)
    (old / "training.json").unlink()
    support = [torch.rand(2, 48), torch.rand(2, 48)]
    made = [
        pipe(support, num_samples=2, generator=torch.Generator().manual_seed(0)).state["weight"]
        for pipe in (load_bundle(old), WeightGenerationPipeline.from_pretrained(old), load_bundle(tiny_bundle))
    ]
    assert torch.equal(made[0], made[2]) and torch.equal(made[1], made[2])


def test_a_dual_bundle_of_the_first_format_loads(tmp_path):
    nothing = {"vae": [None, None], "condition_encoder": [None, None]}
    moved = {
        "_class_name": "WeightGenerationPipeline",
        "_format": None,
        "weight_space": ["d2nwg.models.space", "WeightSpace"],
    }
    old = copy(shipped("pretrained") / "heads-dual", tmp_path, **moved)
    index = json.loads((old / "model_index.json").read_text())
    (old / "model_index.json").write_text(json.dumps(index | nothing))
    (old / "training.json").unlink()
    assert isinstance(load_bundle(old), DualHeadPipeline)


def test_a_newer_bundle_is_refused_in_a_sentence(tiny_bundle, tmp_path):
    with pytest.raises(UserError, match="has format 3, and this version reads up to 2: update d2nwg, or train"):
        LatentHeadPipeline.from_pretrained(copy(tiny_bundle, tmp_path, _format=3))


def test_components_come_from_this_package_alone(tiny_bundle, tmp_path):
    with pytest.raises(UserError, match=r"names the component join of os\.path: not loaded"):
        LatentHeadPipeline.from_pretrained(copy(tiny_bundle, tmp_path, vae=["os.path", "join"]))


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "[" * 100_000])
def test_a_damaged_index_is_refused_in_a_sentence(content, tiny_bundle, tmp_path):
    made = copy(tiny_bundle, tmp_path)
    (made / "model_index.json").write_text(content)
    with pytest.raises(UserError, match="is no bundle: its model_index.json cannot be read"):
        WeightGenerationPipeline.from_pretrained(made)
