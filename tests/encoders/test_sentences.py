"""Texts and pairs of texts behind the interface of the image encoders."""

import pytest
import torch

from d2nwg.data.text_set import TextSet
from d2nwg.encoders.open import load_encoder, name_for
from d2nwg.encoders.sentences import SentenceEncoder, load_sentence_encoder, takes_texts, text_encoder_of
from d2nwg.encoders.texts import DEFAULT_TEXT_ENCODER, TextEncoder


def letters() -> TextEncoder:
    return TextEncoder(
        "fake/letters", lambda batch: torch.tensor([[len(t), t.count("a") + 1.0] for t in batch]), 2, "k"
    )


def test_texts_become_features_and_empty_ones_are_unreadable():
    encoder, stages = SentenceEncoder(letters(), False, "cpu"), []
    found, readable = encoder.encode(["a", " ", "bcd", ("x", "y")], progress=lambda *a: stages.append(a), cache=False)
    assert readable.tolist() == [True, False, True, False] and encoder.preprocessing == {"texts": 1}
    torch.testing.assert_close(found[[0, 2]], letters().encode(["a", "bcd"], cache=False))
    assert not found[[1, 3]].any() and stages[-1] == ("Reading texts", 4, 4)
    assert encoder.encode([], cache=False)[0].shape == (0, 2)


def test_pairs_are_their_difference_and_the_length_of_their_sum():
    encoder = SentenceEncoder(letters(), True, "cpu")
    found, readable = encoder.encode([("a", "bb"), ("a", ""), "a"], cache=False)
    assert readable.tolist() == [True, False, False] and found.shape == (3, encoder.num_features)
    u, v = letters().encode(["a", "bb"], cache=False)
    torch.testing.assert_close(found[0], torch.tensor([*(u - v).abs(), (u + v).norm()]) / 2)
    assert found[0].norm() == pytest.approx(1) and not found[1:].any()


def test_the_name_says_what_an_encoder_takes(tmp_path):
    names = {"timm/resnet18": 0, "texts/a/b": 1, "text-pairs/a/b": 2, "open_clip/x:y": 0}
    assert {name: takes_texts(name) for name in names} == names
    assert text_encoder_of("text-pairs/a/b") == text_encoder_of("texts/a/b") == text_encoder_of("a/b") == "a/b"
    texts = TextSet("x", ("a",), ["t"], torch.zeros(1).numpy(), torch.zeros(1).numpy())
    assert name_for(texts, None, "timm/x") == f"texts/{DEFAULT_TEXT_ENCODER}"
    assert name_for(texts, "texts/a/b", "timm/x") == name_for(texts, "a/b", "timm/x") == "texts/a/b"
    assert load_encoder("pixels/4", "cpu").num_features == 16


@pytest.mark.parametrize("pairs", [False, True])
def test_the_embedded_one(pairs):
    encoder = load_sentence_encoder(pairs=pairs, device="cpu")
    assert load_encoder(encoder.name, "cpu").num_features == encoder.num_features == 384 + pairs
    item = ("A cat.", "A dog.") if pairs else "A cat."
    found, readable = encoder.encode([item])
    assert readable.all() and found.shape == (1, encoder.num_features) and found.isfinite().all()
