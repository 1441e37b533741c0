"""The kinds of cases: name → what makes one. A new loader joins with a file here and an entry."""

from pkgutil import resolve_name

from tests.fuzz.case import Make

KINDS = {
    "arguments": "tests.fuzz.kinds.arguments:make",
    "archives": "tests.fuzz.kinds.archives:make",
    "images": "tests.fuzz.kinds.images:make",
    "texts": "tests.fuzz.kinds.texts:make",
    "checkpoints": "tests.fuzz.kinds.checkpoints:make",
    "zoos": "tests.fuzz.kinds.zoos:make",
    "bundles": "tests.fuzz.kinds.bundles:make",
    "adapters": "tests.fuzz.kinds.adapters:make",
    "networks": "tests.fuzz.kinds.networks:make",
    "models": "tests.fuzz.kinds.models:make",
    "templates": "tests.fuzz.kinds.models:make_template",
    "questions": "tests.fuzz.kinds.questions:make",
    "splits": "tests.fuzz.kinds.questions:make_split",
    "runs": "tests.fuzz.kinds.runs:make",
    "library": "tests.fuzz.kinds.library:make",
    "api": "tests.fuzz.kinds.api:make",
}


def get_kind(name: str) -> Make:
    """What makes the cases of a kind."""
    return resolve_name(KINDS[name])
