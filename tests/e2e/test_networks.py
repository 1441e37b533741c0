"""Whole networks in the Generate tab, as a visitor uses them."""

import zipfile

import numpy as np
import onnxruntime
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from d2nwg.weights.network_files import read_network
from tests.e2e.acts import download, upload
from tests.e2e.test_browser import bars, generate


def test_a_network_for_own_pictures(visit, digits_zip, a_picture, tmp_path):
    page = visit("?bundle=networks-28px")
    page.wait_for_selector("#names", state="hidden")
    page.wait_for_selector("#free-part", state="hidden")
    upload(page, "#files input[type=file]", digits_zip)
    page.wait_for_selector("#images .summary:has-text('5 classes · 80 images')")
    generate(page, samples=6)
    said = page.inner_text("#sentence")
    assert "The generated network is right on " in said and "% of 15 images it never saw" in said
    assert "50 gradient steps" in said and "a random network" in said
    assert "bundle=networks-28px" in page.url
    page.wait_for_selector("#strip .js-plotly-plot")
    page.wait_for_selector("#confusion .js-plotly-plot")
    network = read_network(download(page, "#download-head", tmp_path))
    assert network.classes == tuple(f"digit {i}" for i in range(5))

    page.set_input_files("#picture input[type=file]", a_picture)
    page.wait_for_selector("#seen:has-text('The network predicts'):not(:has-text('has not seen'))")
    pixels = network.read(a_picture, network.scale)[None]
    expected = network.logits(pixels).softmax(1)[0]
    shown = [bars(page)[name] for name in network.classes]
    assert abs(np.array(shown) - 100 * expected.numpy()).max() < 0.11
    session = onnxruntime.InferenceSession(download(page, "#download-onnx", tmp_path))
    assert abs(session.run(None, {"images": pixels.numpy()})[0][0] - expected.numpy()).max() < 1e-5


def test_a_network_for_a_program(studio, digits_zip, a_picture, tmp_path):
    client = Client(studio.url, download_files=str(tmp_path), verbose=False)
    files = [handle_file(digits_zip)]
    words, report, network, samples, _ = client.predict(
        files=files, bundle="networks-28px", num_samples=3, api_name="/generate"
    )
    assert words.startswith("The generated network is right on ") and len(report["samples"]) == 3
    network, samples = handle_file(network), handle_file(samples)
    said = client.predict(head=network, image=handle_file(a_picture), api_name="/predict")
    assert len(said["confidences"]) == 5 and said["label"].startswith("digit ")
    taken = client.predict(head=network, samples=samples, number=1, api_name="/sample")
    assert read_network(taken).info["selection"] == "sample 1"
    said, curves, tuned = client.predict(network, files, epochs=1, seeds=1, api_name="/finetune")
    assert said.startswith("The generated start is right on: untrained ") and curves["num_shown"] == 25
    assert {row["arm"] for row in curves["table"]} >= {"generated", "random", "average", "nearest"}
    assert read_network(tuned).info["finetuned"]["epochs"] == 1
    ends = {"example_a": "digits-on-black", "example_b": "digits-on-white"}
    words, report, everything = client.predict(**ends, bundle="networks-28px", points=3, api_name="/interpolate")
    assert "images that generation never saw" in words and list(report["ways"])[-1] == "weights"
    with zipfile.ZipFile(everything) as archive:
        assert "networks/condition-0.500.safetensors" in archive.namelist()
    with pytest.raises(AppError, match="Class names cannot be used by the bundle networks-28px"):
        client.predict(files=files, bundle="networks-28px", names="a, b, c, d, e", api_name="/generate")
