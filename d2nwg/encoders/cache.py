"""Features of images on disk, by encoder and image content."""

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from d2nwg.data.decode import MAX_FILE
from d2nwg.utils.paths import cache_dir


class FeatureCache:
    """Features on disk: one SQLite file an encoder, rows keyed by the SHA-256 of the image file. What cannot be read or
    written, because the disk is full or the file damaged, is not in the cache; no call fails for it.

    Args:
        encoder_key: bytes that differ for encoders with other weights or preprocessing.
    """

    def __init__(self, encoder_key: bytes):
        self.path = cache_dir() / "features" / f"{hashlib.sha256(encoder_key).hexdigest()[:24]}.sqlite"
        with suppress(OSError, sqlite3.Error):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as db, db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("CREATE TABLE IF NOT EXISTS features (image BLOB PRIMARY KEY, feature BLOB) WITHOUT ROWID")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Key → feature vector (d,) float32, for those of ``keys`` that are stored."""
        found: dict[bytes, np.ndarray] = {}
        with suppress(sqlite3.Error), closing(self._open()) as db:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = db.execute(f"SELECT image, feature FROM features WHERE image IN ({marks})", part)
                found.update((k, np.frombuffer(v, np.float32).copy()) for k, v in rows)
        return found

    def put(self, features: dict[bytes, np.ndarray]) -> None:
        """Store feature vectors (d,)."""
        with suppress(sqlite3.Error), closing(self._open()) as db, db:
            rows = [(k, v.astype(np.float32).tobytes()) for k, v in features.items()]
            db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)


def content_hash(item: Path | bytes, more: bytes = b"") -> bytes | None:
    """SHA-256 of an encoded image, with ``more`` that its features depend on, or None if it is no regular file, too
    large or cannot be read."""
    try:
        if not isinstance(item, bytes) and (not Path(item).is_file() or Path(item).stat().st_size > MAX_FILE):
            return None
        data = item if isinstance(item, bytes) else Path(item).read_bytes()
    except OSError:
        return None
    return hashlib.sha256(data + more if more else data).digest()
