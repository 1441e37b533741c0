"""Models: saved and loaded bit for bit, and blind to what must not matter."""

import pytest
import torch

from d2nwg.conditions.dataset import DatasetEncoder
from d2nwg.models.spaces import WeightSpace
from d2nwg.models.unet import ConditionalUNet
from d2nwg.models.vae import WeightVAE
from d2nwg.weights.layouts import WholeLayout
from d2nwg.weights.networks import head_shapes, logits

C, K, E = 6, 8, 16


def make(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    vae = dict(channels=(8,), latent_channels=4, patch=(8, 1, 2))
    unet = dict(latent_shape=(4, C, 2), tokens=C, num_classes=C, slot_size=K + E, dataset_size=E, channels=(32,))
    return {
        "vae": lambda: WeightVAE(C * (K + 1), tokens=C, latent_scale=1.7, **vae),
        "vae with skip": lambda: WeightVAE(C * (K + 1), tokens=C, skip=True, **vae),
        "vae of the paper": lambda: WeightVAE(100, patch=(1, 16, 16), channels=(8, 8, 8)),
        "data-set encoder": lambda: DatasetEncoder(K, width=E, latent_size=4 * C * 2),
        "unet": lambda: ConditionalUNet(condition_channels=8, **unet),
        "unet with skip": lambda: ConditionalUNet(condition_channels=8, skip=True, **unet),
    }[kind]().eval()


def support(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (B, C, 5, K) and a mask with classes of 1 to 5 images and two empty slots."""
    generator = torch.Generator().manual_seed(1)
    images = torch.tensor([5, 3, 1, 4, 0, 0])
    mask = (torch.arange(5) < images.unsqueeze(1)).expand(batch, -1, -1)
    return torch.randn(batch, C, 5, K, generator=generator) * mask.unsqueeze(-1), mask


def run(kind: str, model) -> torch.Tensor:
    with torch.no_grad():
        if kind.startswith("vae"):
            return model(torch.ones(2, model.config.size), torch.Generator().manual_seed(0))[0]
        encoder = make("data-set encoder") if kind.startswith("unet") else model
        condition = encoder(*support())
        if kind.startswith("unet"):
            return model(torch.ones(3, 4, C, 2), 7, condition)
        return torch.cat([condition.dataset, condition.slots.flatten(1)], 1)


@pytest.mark.parametrize(
    "kind", ["vae", "vae with skip", "vae of the paper", "data-set encoder", "unet", "unet with skip"]
)
def test_a_saved_model_comes_back_the_same(kind, tmp_path):
    model = make(kind)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    own, state = model.state_dict(), again.state_dict()
    assert list(own) == list(state) and all(torch.equal(own[name], state[name]) for name in own)
    assert not again.training and {p.name for p in tmp_path.iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    first = run(kind, model)
    assert torch.equal(first, run(kind, again)) and first.isfinite().all()
    if kind == "vae":
        assert again.config.latent_scale == 1.7


@pytest.mark.parametrize("kind", ["vae", "vae with skip", "vae of the paper"])
def test_a_vae_keeps_shapes(kind):
    vae = make(kind)
    vectors = torch.randn(2, vae.config.size)
    posterior = vae.encode(vectors)
    assert posterior.mean.shape[1:] == vae.latent_shape == ((4, C, 2) if vae.config.tokens == C else (4, 4, 4))
    rebuilt, kl = vae(vectors, torch.Generator().manual_seed(0))
    assert rebuilt.shape == vectors.shape and kl.shape == (2,)
    again, _ = vae(vectors, torch.Generator().manual_seed(0))
    assert torch.equal(rebuilt, again) and not torch.equal(rebuilt, vae(vectors)[0])


def test_the_linear_path_of_a_vae_keeps_rows_apart():
    """Token i of the vector goes to row i of the latent, and back: the skip maps see one row each."""
    vae = make("vae with skip")
    for part in (vae.inward, vae.autoencoder.decoder.conv_out):  # switch the convolutional path off
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    torch.nn.init.zeros_(vae.outward.weight)
    with torch.no_grad():
        vector = torch.zeros(1, C, K + 1)
        vector[0, 2] = 1
        moved = vae.encode(vector.flatten(1)).mean - vae.encode(torch.zeros(1, C * (K + 1))).mean
        assert moved[0].abs().amax((0, 2)).nonzero().flatten().tolist() == [2]
        latent = torch.zeros(1, 4, C, 2)
        latent[:, :, 4] = 1
        rows = (vae.decode(latent) - vae.decode(torch.zeros_like(latent))).reshape(C, K + 1)
        assert rows.abs().amax(1).nonzero().flatten().tolist() == [4]


@torch.no_grad()
def test_the_order_of_images_does_not_matter():
    encoder, (features, mask) = make("data-set encoder"), support()
    order = torch.tensor([3, 0, 4, 1, 2])
    first, other = encoder(features, mask), encoder(features[:, :, order], mask[:, :, order])
    torch.testing.assert_close(other.dataset, first.dataset)
    torch.testing.assert_close(other.slots, first.slots)


@torch.no_grad()
def test_the_order_of_classes_moves_slots_alone():
    encoder, (features, mask) = make("data-set encoder"), support()
    order = torch.tensor([5, 2, 0, 4, 3, 1])
    first, other = encoder(features, mask), encoder(features[:, order], mask[:, order])
    torch.testing.assert_close(other.dataset, first.dataset)
    torch.testing.assert_close(other.slots, first.slots[:, order])
    assert torch.equal(other.used, first.used[:, order])


@torch.no_grad()
def test_padding_changes_nothing():
    encoder, (features, mask) = make("data-set encoder"), support()
    first = encoder(features, mask)
    noisy = encoder(torch.where(mask.unsqueeze(-1), features, 100.0), mask)
    torch.testing.assert_close(noisy.dataset, first.dataset)
    torch.testing.assert_close(noisy.slots, first.slots)
    wider = encoder(torch.nn.functional.pad(features, (0, 0, 0, 3)), torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(wider.dataset, first.dataset)
    torch.testing.assert_close(wider.slots, first.slots)
    fewer = encoder(features[:, :4], mask[:, :4])
    torch.testing.assert_close(fewer.dataset, first.dataset)
    torch.testing.assert_close(fewer.slots, first.slots[:, :4])
    assert not first.slots[:, 4:].any() and first.used.tolist() == [[True] * 4 + [False] * 2] * 3


@torch.no_grad()
def test_a_slot_begins_with_its_class_mean():
    features, mask = support()
    slots = make("data-set encoder")(features, mask).slots
    torch.testing.assert_close(slots[0, 1, :K], features[0, 1, :3].mean(0))


def test_alignment_is_best_for_the_right_pairs():
    encoder, (features, mask) = make("data-set encoder"), support(8)
    latents = torch.randn(8, 4, C, 2)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    start = encoder(features, mask, latents).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = encoder(features, mask, latents)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * start
    with torch.no_grad():
        assert float(encoder(features, mask, latents.flip(0))) > 2 * loss.item()


@pytest.mark.parametrize("kind", ["unet", "unet with skip"])
@torch.no_grad()
def test_one_condition_serves_all_latents(kind):
    unet, condition = make(kind), make("data-set encoder")(*support(1))
    latents = torch.randn(4, 4, C, 2)
    repeated = type(condition)(
        *(value.expand(4, *value.shape[1:]) for value in (condition.dataset, condition.slots, condition.used))
    )
    shared = unet.denoise(latents, 9, unet.lay_out(condition))
    torch.testing.assert_close(shared, unet(latents, 9, repeated), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_dropped_condition_says_nothing_but_which_rows_are_used():
    condition = make("data-set encoder")(*support(2))
    dropped = condition.dropped(torch.tensor([True, False]))
    assert not dropped.dataset[0].any() and not dropped.slots[0].any() and torch.equal(dropped.used, condition.used)
    assert torch.equal(dropped.dataset[1], condition.dataset[1]) and torch.equal(dropped.slots[1], condition.slots[1])


@torch.no_grad()
def test_each_class_is_laid_beside_its_own_row():
    unet, condition = make("unet"), make("data-set encoder")(*support(1))
    plain = unet.lay_out(condition)
    condition.slots[0, 3] += 1
    assert (unet.lay_out(condition) - plain)[0].abs().amax((0, 2)).nonzero().flatten().tolist() == [3]


def space(zoo: int = 4, probe: str = "linear") -> WeightSpace:
    generator = torch.Generator().manual_seed(2)
    layout = WholeLayout(head_shapes(probe, K, C, 5), num_classes=C, tokens=C if probe == "linear" else 1)
    made = WeightSpace("fake/colours", {"size": 8}, layout.to_config(), num_features=20, projected=K, zoo_size=zoo)
    made.projection.data = torch.randn(K, 20, generator=generator)
    made.mean.data = torch.randn(20, generator=generator)
    return made


@pytest.mark.parametrize("probe", ["linear", "mlp"])
def test_vectors_become_heads_on_the_encoders_features(probe, tmp_path):
    made = space(probe=probe)
    made.save_pretrained(tmp_path)
    before, made = made, WeightSpace.from_pretrained(tmp_path)
    vectors, x = torch.randn(3, made.layout.size), torch.randn(7, 20)
    order = torch.tensor([2, 0, 1])  # slot 0 holds the user's class 2, …
    heads = made.to_heads(vectors, order)
    torch.testing.assert_close(heads, before.to_heads(vectors, order))
    on_projected = logits(made.layout.unflatten(vectors), made.project(x))
    torch.testing.assert_close(logits(heads, x), on_projected[..., [1, 2, 0]], rtol=1e-4, atol=1e-4)


def test_the_canonical_order_follows_the_classes():
    means = torch.randn(5, K)
    order, shuffle = space().canonical_order(means), torch.randperm(5)
    assert torch.equal(means[order], means[shuffle][space().canonical_order(means[shuffle])])
