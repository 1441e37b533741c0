"""Encoders: the embedded weights, the cache, images that cannot be read, and weights that cannot be had."""

import numpy as np
import pytest
import torch
from PIL import Image

from d2nwg.encoders import images as encoders
from d2nwg.encoders.base import Encoder
from d2nwg.encoders.images import DEFAULT_ENCODER, load_encoder, load_in_order
from d2nwg.utils.devices import resolve_device
from d2nwg.utils.errors import Cancelled, UserError
from tests.helpers.images import make_pattern_folder


@pytest.fixture(scope="module")
def embedded() -> Encoder:
    return load_encoder(DEFAULT_ENCODER, "cpu")


@pytest.fixture
def pictures(tmp_path):
    """Ten pictures of different sizes and kinds."""
    folder = make_pattern_folder(tmp_path / "data", range(5), per_class=2, size=40)
    files = sorted(folder.rglob("*.png"))
    with Image.open(files[0]) as image:
        image.resize((90, 31)).save(files[0].with_suffix(".jpg"))
        image.resize((300, 260)).convert("L").save(files[1])
    return [files[0].with_suffix(".jpg"), *files[1:]]


class MeanColour(torch.nn.Module):
    """A network that costs nothing; counts its calls."""

    def __init__(self):
        super().__init__()
        self.scale, self.calls = torch.nn.Parameter(torch.ones(1)), 0

    def forward(self, x):
        self.calls += 1
        return x.mean((2, 3)) * self.scale


def cheap(**changes) -> Encoder:
    preprocessing = {"size": 8, "crop_pct": 0.875, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    return Encoder("fake/mean", MeanColour(), 3, preprocessing | changes, "cpu")


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_embedded_tensor_is_in_its_place(embedded):
    weights = {
        k: v
        for k, v in encoders._embedded_weights("tf_efficientnet_lite0").items()
        if not k.endswith("num_batches_tracked")
    }
    own = {k: v for k, v in embedded.network.state_dict().items() if not k.endswith("num_batches_tracked")}
    # All but the classifier's two tensors, in order, bit for bit.
    assert len(weights) == len(own) + 2
    assert all(torch.equal(a, b) for a, b in zip(own.values(), weights.values(), strict=False))
    assert embedded.num_features == 1280 and not embedded.network.training
    assert not any(p.requires_grad for p in embedded.network.parameters())
    assert embedded.preprocessing["size"] == 224
    json_ready = {type(v) for v in embedded.preprocessing.values()}
    assert json_ready <= {int, float, str, list}


def test_it_sees_what_imagenet_taught_it(embedded):
    """With its own classifier back on, a plain grey picture and noise give different, confident answers."""
    classifier = list(encoders._embedded_weights("tf_efficientnet_lite0").values())[-2:]
    rng = np.random.default_rng(0)
    pixels = np.stack([np.full((224, 224, 3), 128), rng.integers(0, 256, (224, 224, 3))]).astype(np.uint8)
    features = embedded.forward(torch.from_numpy(pixels))
    logits = features @ classifier[0].T + classifier[1]
    assert features.shape == (2, 1280) and logits.argmax(1).unique().numel() == 2


def test_a_batch_equals_single_images(embedded, pictures):
    together, readable = embedded.encode(pictures, cache=False)
    alone = torch.cat([embedded.encode([p], cache=False)[0] for p in pictures[:3]])
    assert together.shape == (10, 1280) and readable.all() and together.dtype == torch.float32
    torch.testing.assert_close(alone, together[:3], rtol=1e-3, atol=1e-4)


def test_bytes_are_images_as_well(pictures, own_cache):
    encoder = cheap()
    files, _ = encoder.encode(pictures, cache=False)
    read, readable = encoder.encode([p.read_bytes() for p in pictures])
    assert torch.equal(files, read) and readable.all()


def test_preprocessing_takes_the_central_square():
    wide = Image.new("RGB", (64, 16), "red")
    wide.paste("blue", (24, 0, 40, 16))
    pixels = cheap(crop_pct=1.0, interpolation="nearest").preprocess(wide)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8 and (pixels == (0, 0, 255)).all()


def test_the_same_images_cost_nothing_the_second_time(pictures, own_cache):
    first = cheap()
    features, _ = first.encode(pictures)
    calls = first.network.calls
    again, readable = first.encode(list(reversed(pictures)))
    assert first.network.calls == calls > 0 and readable.all()
    assert torch.equal(again, features.flip(0))
    fresh = cheap()  # as in another process
    assert torch.equal(fresh.encode(pictures)[0], features) and fresh.network.calls == 0
    copy = pictures[2].with_name("another name.png")
    copy.write_bytes(pictures[2].read_bytes())
    assert torch.equal(fresh.encode([copy])[0][0], features[2]) and fresh.network.calls == 0


def test_a_changed_image_is_read_anew(pictures, own_cache):
    encoder = cheap()
    before, _ = encoder.encode(pictures)
    Image.new("RGB", (20, 20), "white").save(pictures[3])
    after, _ = encoder.encode(pictures)
    assert [i for i in range(10) if not torch.equal(before[i], after[i])] == [3]
    torch.testing.assert_close(after[3], torch.ones(3))


def test_other_weights_or_preprocessing_share_no_features(pictures, own_cache):
    encoder, other = cheap(), cheap(crop_pct=1.0)
    encoder.encode(pictures)
    other.encode(pictures)
    assert other.network.calls > 0
    network = MeanColour()
    network.scale.data *= 2
    double = Encoder("fake/mean", network, 3, encoder.preprocessing, "cpu")
    torch.testing.assert_close(double.encode(pictures)[0], 2 * encoder.encode(pictures)[0])
    assert len(list((own_cache / "features").glob("*.sqlite"))) == 3


def test_unreadable_images_are_marked(pictures, own_cache):
    encoder = cheap()
    pictures[1].write_bytes(pictures[1].read_bytes()[:100])  # cut short
    pictures[4].write_bytes(b"no image")
    items = [*pictures, pictures[0].with_name("gone.png"), b""]
    for _ in range(2):  # the second time from the cache
        features, readable = encoder.encode(items)
        assert np.flatnonzero(~readable).tolist() == [1, 4, 10, 11]
        assert not features[~readable].any() and features[readable].any(1).all()


def test_a_stopped_run_keeps_what_it_has_read(pictures, own_cache):
    encoder = cheap()
    encoder.batch_size = 2

    def stop(stage, done, total):
        assert (stage, total) == ("Reading images", 10)
        if done >= 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        encoder.encode(pictures, progress=stop)
    seen = []
    encoder.encode(pictures, progress=lambda *step: seen.append(step))
    assert seen[0] == ("Reading images", 4, 10) and seen[-1] == ("Reading images", 10, 10)


def test_no_images_at_all(own_cache):
    features, readable = cheap().encode([])
    assert features.shape == (0, 3) and readable.shape == (0,)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "write timm/MODEL"),
        ("resnet18", "write timm/MODEL"),
        ("timm/", "write timm/MODEL"),
        ("open_clip/ViT-B-32", "write timm/MODEL"),
        ("timm/no_such_model", "timm has no model named 'no_such_model'"),
        ("open_clip/no-such-arch:openai", "open_clip has no model named 'no-such-arch'"),
    ],
)
def test_an_unknown_name_is_refused(name, words):
    with pytest.raises(UserError, match=words):
        load_encoder(name)


@pytest.mark.parametrize("name", ["timm/resnet18", "open_clip/ViT-B-32:laion2b_s34b_b79k"])
def test_weights_from_the_hub_without_a_network(name):
    with pytest.raises(UserError, match=f"weights of {name.split(':')[0]}") as said:
        load_encoder(name)
    assert "\n" not in str(said.value)


def test_weights_that_no_longer_match_are_no_puzzle():
    network = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match="do not match the network's"):
        load_in_order(network, {"a": torch.zeros(2, 3)})
    load_in_order(network, {"a": torch.ones(2, 3), "b": torch.zeros(2), "num_batches_tracked": torch.tensor(0)})
    assert network.weight.sum() == 6


def test_a_local_open_clip_checkpoint(small_clip, tmp_path, pictures):
    path = tmp_path / "clip.pt"
    torch.save(small_clip.state_dict(), path)
    encoder = load_encoder(f"open_clip/tiny-for-tests:{path}", "cpu")
    features, readable = encoder.encode(pictures, cache=False)
    assert encoder.num_features == 16 and features.shape == (10, 16) and readable.all()
    assert encoder.preprocessing["size"] == 32 and encoder.preprocessing["interpolation"] == "bicubic"
    own = small_clip.visual.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in encoder.network.state_dict().items())


def test_an_open_clip_checkpoint_that_is_none(small_clip, tmp_path):
    (tmp_path / "clip.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(f"open_clip/tiny-for-tests:{tmp_path}/clip.pt", "cpu")
    with pytest.raises(UserError, match="could not be loaded"):
        load_encoder(f"open_clip/tiny-for-tests:{tmp_path}/gone.pt", "cpu")


def test_devices(monkeypatch):
    assert resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == "cpu"
    with pytest.raises(UserError, match=r"no CUDA device cuda here \(PyTorch sees none\)"):
        load_encoder(DEFAULT_ENCODER, "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no MPS device"):
        resolve_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (resolve_device(), resolve_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(UserError, match="cuda:2 here .PyTorch sees 2, counted from 0"):
        resolve_device("cuda:2")
