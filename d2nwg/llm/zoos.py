"""Zoos of fine-tunes of language models at hand: those that come with the program, and those in the cache."""

from functools import lru_cache
from pathlib import Path

from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir, shipped
from d2nwg.utils.text import shown, some
from d2nwg.weights.info import ADAPTERS, CHECKPOINTS, LANGUAGE_MODEL, read_info


def list_language_zoos() -> dict[str, Path]:
    """Name → folder of every zoo of fine-tunes of language models in ``pretrained/``, then in the cache's ``zoos/``."""
    found: dict[str, Path] = {}
    for root in (shipped("pretrained"), cache_dir() / "zoos"):
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if not path.name.startswith(".") and base_of(path) is not None:
                found.setdefault(path.name, path)
    return found


def base_of(zoo: Path) -> str | None:
    """The language model that a zoo's checkpoints are fine-tunes of, as it was named when they were made; None for
    other zoos and for what is none."""
    try:
        facts = (zoo / "zoo.json").stat()
    except OSError:
        return None
    return _base(zoo, facts.st_mtime_ns, facts.st_size)


@lru_cache(256)
def _base(zoo: Path, changed: int, size: int) -> str | None:
    try:
        about = read_info(zoo, CHECKPOINTS).get(ADAPTERS)
    except UserError:
        return None
    if not isinstance(about, dict) or about.get("base") != LANGUAGE_MODEL or not isinstance(about.get("shape"), dict):
        return None
    base = about["shape"].get("base")
    return base if isinstance(base, str) else None


def find_language_zoo(zoo: str | Path) -> Path:
    """The folder of a zoo, by its path or by the name of one at hand.

    Raises:
        UserError: there is none.
    """
    path = Path(zoo).expanduser()
    known = list_language_zoos()
    if path.exists() or str(zoo) not in known:
        if not path.exists():
            names = f"those at hand: {some(list(known))}" if known else "make one with `zoo build --llm`"
            raise UserError(f"There is no zoo {shown(zoo)}: {names}.")
        return path
    return known[str(zoo)]
