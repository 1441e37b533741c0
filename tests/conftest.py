"""What all tests share: a cache of their own, no network, one thread each, a small zoo and bundles trained on it."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other crawl on a busy machine

import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.encoder import CheapEncoder
from tests.helpers.images import make_image_folder, make_pattern_folder

# The same examples in every run, however slow the machine is.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Random numbers without a generator of their own are those of the test alone, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """The browser's tests come last: playwright keeps an event loop running, in which no other test could run one."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _own_cache():
    """The cache folder of this session, for processes that tests start as well."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2NWG_CACHE", folder)
        yield


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Three classes of eight solid-colour images."""
    return make_image_folder(tmp_path / "colours")


@pytest.fixture(scope="session")
def cheap_encoder() -> CheapEncoder:
    return CheapEncoder()


@pytest.fixture(scope="session")
def patterns(tmp_path_factory) -> Path:
    """24 classes of 12 images."""
    return make_pattern_folder(tmp_path_factory.mktemp("data") / "patterns")


@pytest.fixture(scope="session")
def tiny_zoo(tmp_path_factory, patterns, cheap_encoder):
    """300 linear probes of 2 to 6 classes on the cheap encoder."""
    from d2nwg.data.images import load_images
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig

    config = ZooConfig(subsets=300, min_classes=2, max_classes=6, images=8, width=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2nwg.weights.build.BATCH", 20)  # a batch has one number of classes: with many, all occur
        return build_zoo([load_images(patterns)], cheap_encoder, config, tmp_path_factory.mktemp("zoos") / "zoo")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_zoo) -> Path:
    """A bundle trained for a few steps on the tiny zoo."""
    from d2nwg.training.run import train_bundle
    from tests.helpers.training import quick_config

    return train_bundle(tiny_zoo, quick_config(), tmp_path_factory.mktemp("bundles") / "tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_mlp_bundle(tmp_path_factory, patterns, cheap_encoder) -> Path:
    """A bundle of two-layer heads with 6 hidden units, for up to 5 classes, trained for a step or two."""
    from d2nwg.data.images import load_images
    from d2nwg.training.run import train_bundle
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig
    from tests.helpers.training import quick_config

    folder = tmp_path_factory.mktemp("mlp")
    config = ZooConfig(subsets=10, max_classes=5, images=4, width=8, probe="mlp", hidden=6)
    zoo = build_zoo([load_images(patterns)], cheap_encoder, config, folder / "zoo")
    steps = quick_config(vae_steps=2, align_steps=1, diffusion_steps=2, batch_size=2)
    return train_bundle(zoo, steps, folder / "mlp", device="cpu")


@pytest.fixture(scope="session")
def named_zoo(tmp_path_factory, cheap_encoder):
    """A zoo of two data sets whose five classes each have names that mean something."""
    from d2nwg.data.images import load_images
    from d2nwg.weights.build import build_zoo
    from d2nwg.weights.zoo import ZooConfig
    from tests.helpers.training import FIRST, SECOND

    root = tmp_path_factory.mktemp("named")
    sets = [load_images(make_image_folder(root / f"set{i}", names, 10)) for i, names in enumerate((FIRST, SECOND))]
    return build_zoo(sets, cheap_encoder, ZooConfig(subsets=40, max_classes=4, images=6, width=8), root / "zoo")


@pytest.fixture(scope="session")
def named_bundle(tmp_path_factory, named_zoo) -> Path:
    """A bundle trained on it for a few steps, which knows the names of its classes."""
    from d2nwg.training.run import train_bundle
    from tests.helpers.training import NAMED

    return train_bundle(named_zoo, NAMED, tmp_path_factory.mktemp("bundles") / "named", device="cpu")


@pytest.fixture(scope="session")
def described(tmp_path_factory):
    """A folder with a tiny bundle of adapters in ``bundles/adapters``, its two tasks, and the zoo it was trained on."""
    from tests.helpers.text_tasks import tiny_adapters

    folder = tmp_path_factory.mktemp("described")
    return folder, *tiny_adapters(folder)


@pytest.fixture(scope="session")
def adapters(described) -> Path:
    """The bundle of it."""
    return described[0] / "bundles" / "adapters"
