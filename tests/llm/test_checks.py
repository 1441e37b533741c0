"""What is kept of a check of the reconstruction is believed only as it was written."""

import json

import pytest

from d2nwg.llm.checks import _read
from d2nwg.utils.errors import UserError

FOUND = {
    "compression": {"latents": 2.0, "with_decoder": 1.5},
    "error": 0.5,
    "errors": {"a": 0.5},
    "sample_distances": {"a": 0.5},
    "residual_scale": {"a": 1.0},
    "base_selection_accuracy": 0,
    "selection_accuracy": 0.25,
    "base_selection_confidence": -3.0,
    "selection_confidence": -3.5,
}


def test_what_was_written_is_read(tmp_path):
    note = tmp_path / "reconstruction.json"
    note.write_text(json.dumps({"reconstruction": FOUND}))
    assert _read(note) == {"reconstruction": FOUND}


@pytest.mark.parametrize(
    "damaged",
    [
        *({name: value for name, value in FOUND.items() if name != left_out} for left_out in FOUND),
        *({**FOUND, name: wrong} for name in FOUND for wrong in (None, "0.5", [1])),
        {**FOUND, "compression": {"latents": float("nan"), "with_decoder": 1.5}},
    ],
)
def test_what_is_damaged_is_refused(tmp_path, damaged):
    note = tmp_path / "reconstruction.json"
    for text in (json.dumps({"reconstruction": damaged}), json.dumps([damaged]), "{", ""):
        note.write_text(text)
        with pytest.raises(UserError, match="is damaged: delete the folder"):
            _read(note)
