"""What tests of encoders share: an open_clip architecture small enough to make here."""

import pytest


@pytest.fixture
def small_clip(monkeypatch):
    """Both towers, with random weights, known to open_clip as ``tiny-for-tests``."""
    import open_clip
    from open_clip import factory

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-for-tests", config)
    return open_clip.create_model("tiny-for-tests")
