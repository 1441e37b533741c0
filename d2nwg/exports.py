"""A head for other programs: an ONNX file, a scikit-learn estimator, a script that does without this project, and a
page of its own, for this machine or as a Hugging Face Space."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from d2nwg.utils.errors import UserError
from d2nwg.utils.text import markdown, shown

if TYPE_CHECKING:
    from d2nwg.heads import Head

ONNX, ESTIMATOR, SCRIPT, CARD = "model.onnx", "classifier.skops", "predict.py", "README.md"
PAGE, NEEDS = "app.py", "requirements.txt"  # the names that a Space asks for

_IMAGES = '''"""Labels pictures: python predict.py PICTURE ...

pip install {needs}
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

CLASSES = {classes}
SIZE, SIDE = {size}, {side}  # pixels: of the square that the network sees, and of the shorter side it is cut from
METHOD = Image.Resampling.{method}

session = onnxruntime.InferenceSession(Path(__file__).with_name("{onnx}"))


def pixels(path):
    image = Image.open(path)
    image.draft(None, (SIDE, SIDE))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:  # over white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    scale = SIDE / min(image.size)
    whole = [max(SIZE, round(side * scale)) for side in image.size]
    corner = [(side - SIZE) / 2 for side in whole]
    box = [(corner[i % 2] + SIZE * (i > 1)) * image.size[i % 2] / whole[i % 2] for i in range(4)]
    return np.asarray(image.resize((SIZE, SIZE), METHOD, box=box)).transpose(2, 0, 1)


def probabilities(paths):
    return session.run(None, {{"images": np.stack([pixels(path) for path in paths])}})[0]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        (found,) = probabilities([path])
        print(path, CLASSES[found.argmax()], f"{{found.max():.4f}}", sep="\\t")
'''

_TEXTS = '''"""Labels texts: python predict.py TEXT ...{pairs}

pip install {needs}
"""

import sys
from pathlib import Path

import numpy as np
import skops.io
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("{encoder}")
classifier = skops.io.load(Path(__file__).with_name("{estimator}"))
CLASSES = [str(name) for name in classifier.classes_]


def features(texts):
    return encoder.encode(list(texts), normalize_embeddings=True)


def probabilities(texts):
    {body}


if __name__ == "__main__":
    for text in {loop}:
        (found,) = probabilities([text])
        print(text, CLASSES[found.argmax()], f"{{found.max():.4f}}", sep="\\t")
'''
_ONE = "return classifier.predict_proba(features(texts))"
_TWO = """u, v = (features(side) for side in zip(*texts))
    both = np.concatenate([abs(u - v), np.linalg.norm(u + v, axis=-1, keepdims=True)], -1) / 2
    return classifier.predict_proba(both)"""

# `predict.py` reads the head; the page asks it.
_PAGE = '''"""The head as a page: pip install -r requirements.txt && python app.py"""

import gradio as gr
from predict import CLASSES, probabilities


def label({arguments}):
    if not all([{arguments}]):
        raise gr.Error("{ask}", print_exception=False)
    (found,) = probabilities([({arguments})])
    return {{name: float(chance) for name, chance in zip(CLASSES, found)}}


page = gr.Interface(
    label,
    [{inputs}],
    gr.Label(num_top_classes=5, label="What it is"),
    title="{title}",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.launch()
'''
_ASKS = {
    "image": {
        "arguments": "picture",
        "ask": "Give a picture.",
        "inputs": 'gr.Image(type="filepath", image_mode=None, label="A picture")',
        "title": "What is in this picture?",
    },
    "text": {
        "arguments": "text",
        "ask": "Write a text.",
        "inputs": 'gr.Textbox(label="A text", lines=3)',
        "title": "What is this text?",
    },
    "pair": {
        "arguments": "first, second",
        "ask": "Write two texts.",
        "inputs": 'gr.Textbox(label="A text", lines=3), gr.Textbox(label="The other text", lines=3)',
        "title": "What are these texts to each other?",
    },
}
_INSTALL = {True: "onnxruntime pillow numpy", False: "sentence-transformers skops scikit-learn"}  # of images, of texts

_CARD = """---
title: {title}
sdk: gradio
app_file: {page}
---
# {classes} classes, for other programs

{right}A head for {encoder}, as other programs read it:

{files}

Classes, in the order of the outputs: {names}.
"""


def export_head(head: "Head", folder: Path) -> list[Path]:
    """Write a head for other programs into a folder that is there.

    A head of images becomes ``model.onnx`` (its encoder and the head in one: uint8 images (B, 3, s, s) in,
    probabilities (B, C) out, any B), ``classifier.skops`` (a scikit-learn estimator on the features, of linear
    heads only) and ``predict.py`` (runs the ONNX file). A head of texts has no ONNX file: its ``predict.py`` runs
    sentence-transformers and the estimator. ``app.py`` and ``requirements.txt`` make the folder a page, or a Space.

    Returns:
        the files.
    Raises:
        UserError: the encoder is not available or cannot be exported, or a head of texts has two layers.
    """
    files = [_estimator(head, folder / ESTIMATOR)] if "weight" in head.state or head.noun != "image" else []
    if head.noun == "image":
        files = [_onnx(head, folder / ONNX), *files]
        script = _images_script(head)
    else:
        script = _texts_script(head)
    card = _card(head, [path.name for path in files])
    page, needs = _PAGE.format(**_ASKS[head.noun]), "\n".join(["gradio", *_INSTALL[head.noun == "image"].split(), ""])
    texts = {SCRIPT: script, PAGE: page, NEEDS: needs, CARD: card}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*files, *(folder / name for name in texts)]


def push_head(folder: Path, name: str, space: bool = False) -> str:
    """Upload the files that `export_head` wrote as the Hugging Face repository ``name``, of a model or of a Space with
    a page that runs the head; its address.

    Args:
        space: as a Space.
    Raises:
        UserError: the Hub cannot be reached, or does not let us.
    """
    from d2nwg.utils.hub import upload

    return upload(folder, [path for path in folder.iterdir() if path.is_file()], name, "head", space)


def scikit_learn(head: "Head"):
    """A linear head as a scikit-learn estimator on the encoder's features: `LogisticRegression`, (n, d) → ``predict``
    and ``predict_proba``.

    Raises:
        UserError: the head has two layers.
    """
    from sklearn.linear_model import LogisticRegression

    if "weight" not in head.state:
        raise UserError("A head of two layers is no scikit-learn estimator that can be set by hand: use its ONNX file.")
    weight, bias = (head.state[name].numpy().astype(np.float64) for name in ("weight", "bias"))
    if len(head.classes) == 2:  # scikit-learn keeps one row then: that of the second class against the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    made = LogisticRegression()
    made.coef_, made.intercept_, made.n_iter_ = weight, bias, np.zeros(1, np.int32)
    made.classes_, made.n_features_in_ = np.array(head.classes), head.num_features
    return made


def _estimator(head: "Head", path: Path) -> Path:
    import skops.io

    skops.io.dump(scikit_learn(head), path)
    return path


def _onnx(head: "Head", path: Path) -> Path:
    import torch

    from d2nwg.encoders.base import Encoder
    from d2nwg.weights.onnx_files import Classifier, write_onnx

    encoder, prepared = head.open_encoder("cpu"), head.preprocessing
    assert isinstance(encoder, Encoder)  # of images
    network = encoder.network.to(memory_format=torch.contiguous_format)
    try:
        classifier = Classifier(torch.nn.Sequential(network, head.module()), prepared["mean"], prepared["std"])
        about = {"classes": list(head.classes), "encoder": head.encoder, "preprocessing": prepared}
        return write_onnx(classifier, (3, prepared["size"], prepared["size"]), path, about)
    except UserError:
        raise
    except Exception as reason:  # exporters raise many types; all mean "not this network"
        raise UserError(f"{head.encoder} cannot be written as ONNX: {shown(str(reason).splitlines()[0])}") from reason
    finally:
        network.to(memory_format=torch.channels_last)


def _images_script(head: "Head") -> str:
    prepared = head.preprocessing
    return _IMAGES.format(
        classes=json.dumps(list(head.classes), ensure_ascii=True),
        size=int(prepared["size"]),
        side=round(prepared["size"] / prepared["crop_pct"]),
        method=str(prepared["interpolation"]).upper(),
        onnx=ONNX,
        needs=_INSTALL[True],
    )


def _texts_script(head: "Head") -> str:
    named = head.encoder.partition("/")[2]
    if "open_clip/" in head.encoder:
        raise UserError("Heads on the texts of open_clip cannot be exported: sentence-transformers does not read it.")
    pair = head.noun == "pair"
    return _TEXTS.format(
        encoder=json.dumps(named, ensure_ascii=True)[1:-1],
        estimator=ESTIMATOR,
        needs=_INSTALL[False],
        pairs=", two texts a pair" if pair else "",
        body=_TWO if pair else _ONE,
        loop="zip(sys.argv[1::2], sys.argv[2::2])" if pair else "sys.argv[1:]",
    )


def _card(head: "Head", names: list[str]) -> str:
    about = {
        ONNX: "encoder and head in one, for ONNX runtimes: `images` uint8 (B, 3, s, s), as `pixels` in `predict.py` "
        "makes them, to `probabilities` (B, classes)",
        ESTIMATOR: "a scikit-learn estimator on the encoder's features: `skops.io.load`",
    }
    right = head.info.get("query_accuracy")
    many = head.info.get("num_query")
    said = f"Right on {right:.1%} of {many} held-out {head.noun}s. " if isinstance(right, float) and many else ""
    lines = [f"- `{name}`: {about[name]}" for name in names]
    lines.append(f"- `{SCRIPT}`: run it; its first lines say what to install")
    lines.append(f"- `{PAGE}`, `{NEEDS}`: a page that tries it: this folder is a Hugging Face Space as it is")
    title = " or ".join(head.classes) if len(head.classes) == 2 else f"{head.classes[0]}, {head.classes[1]} or another"
    return _CARD.format(
        title=json.dumps(title, ensure_ascii=True),
        page=PAGE,
        classes=len(head.classes),
        right=said,
        encoder=markdown(head.encoder),
        files="\n".join(lines),
        names=", ".join(map(markdown, head.classes)),
    )
