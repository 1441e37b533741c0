"""Values that programs stumble over, and damage to what was whole."""

import copy
import json
import os
import socket
from pathlib import Path
from random import Random

NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "5",
    "-1",
    "-0",
    "+5",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "NaN",
    "1000000000",
    "10000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999999",
    "0x10",
    "1_000",
    "٣",
    "２",
    "",
    " 5",
    "5 ",
    "\n",
    "1" * 5000,
]
TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "x" * 300,
    "../" * 20,
    "\udcff",
    "\ud800",
    "\x1b[31mred",
    "=1+1",
    "ä",
    "e\u0301",
    "👾",
    "\n",
    "--help",
    "-",
    "--",
    "a/b/c",
    "~",
    "~root",
    "~nobody/x",
    "/etc/passwd",
    "/dev/null",
    "/dev/zero",
    "/",
    ".",
    "..",
    "con",
    "lm-eval:",
    "lm-eval:x\0",
    "example:",
    "example:digits",
    "example:../x",
    "org/name",
    "org/name@x",
    "csv",
    "task:",
    "task:x=example:digits",
    "built-in",
    "built-in:",
    "timm/",
    "timm/resnet50",
    "pixels/0",
    "pixels/65",
    "pixels/4",
    "open_clip/ViT-B-32:/dev/zero",
    "open_clip/:",
    "http://192.0.2.1/x",
    "file:///etc/passwd",
    "a" * 5000,
    "{{ 7 * 7 }}",
    "%s%n",
    "$(id)",
    "weight",
    "row 1",
    "row 0",
    "row -1",
    "all",
]
VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    10**9,
    10**12,
    10**30,
    -(10**9),
    "",
    "x",
    "x" * 1000,
    "../../canary/secret.txt",
    "/etc/passwd",
    "\ud800",
    "\x1b[31m",
    "1",
    [],
    {},
    [[]],
    [None],
    [1, 2],
    ["a"],
    {"a": 1},
    {"": []},
    [[[[]]]],
]


def damaged_json(value, rng: Random, times: int | None = None):
    """A copy of a JSON value in which some places hold something else."""
    value = copy.deepcopy(value)
    for _ in range(times or rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places or rng.random() < 0.03:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        what = rng.randrange(6)
        if what == 0 and isinstance(holder, dict):
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", "", "a\0", "__class__", "\ud800"])] = holder.pop(key)
        elif what == 2 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            factor = rng.choice([-1, 0, 2, 0.5, 10**3, 10**9, 10**13])
            holder[key] = holder[key] * factor + rng.choice([0, 1])
        elif what == 3:
            holder[key] = [holder[key]]
        elif what == 4 and len(places) > 1:
            holder[key] = copy.deepcopy(rng.choice([other[place] for other, place in places]))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return value


def _places(value, depth: int = 0):
    """Every (container, key) in a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        if depth < 12:
            yield from _places(value[key], depth + 1)


def damaged_text(text: str, rng: Random) -> bytes:
    """The text with damage that no JSON value shows."""
    data = text.encode("utf-8", "surrogatepass")
    return rng.choice(
        [
            lambda: data[: rng.randrange(len(data) + 1)],
            lambda: b"",
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data + b"}",
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
            lambda: b"1" * 6_000,
            lambda: data.replace(b'"', b"'"),
            lambda: data[:-2] + b"\xff\xfe" + data[-2:],
            lambda: text.encode("utf-16", "surrogatepass"),
            lambda: b"\0" * 64,
            lambda: b"null",
            lambda: damaged_bytes(data, rng),
        ]
    )()


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """The data with bits flipped, bytes lost, doubled or zeroed."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not made:
            break
        at, width = rng.randrange(len(made)), rng.choice((1, 4, 8, 64, 4096))
        what = rng.randrange(7)
        if what == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del made[at:]
        elif what == 2:
            del made[at : at + width]
        elif what == 3:
            made[at:at] = made[at : at + width]
        elif what == 4:
            made[at : at + width] = bytes(min(width, len(made) - at))
        elif what == 5:
            made[at : at + 8] = b"\xff" * min(8, len(made) - at)
        else:
            made[at : at + width] = rng.randbytes(min(width, len(made) - at))
    return bytes(made)


def damage_file(path: Path, rng: Random, *, links: bool = True) -> None:
    """Damage a file on disk, by its sort, or put something else in its place (see `special`)."""
    if rng.random() < 0.06:
        special(path, rng, links=links)
        return
    if path.suffix == ".json":
        try:
            value = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError):
            value = {}
        text = json.dumps(damaged_json(value, rng) if rng.random() < 0.8 else value)
        path.write_bytes(damaged_text(text, rng) if rng.random() < 0.2 else text.encode())
    elif path.suffix == ".safetensors" and rng.random() < 0.6:
        damage_header(path, rng)
    else:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def plain(path: Path) -> bool:
    """Whether a path is a file of its own, and no link: writing to it changes nothing else."""
    return path.is_file() and not path.is_symlink()


def json_of(path: Path):
    """What a JSON file holds; None where it has been damaged before."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def damage_header(path: Path, rng: Random) -> None:
    """Damage the header of a safetensors file; its metadata, which hold JSON as text, one level deeper."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return
    if not isinstance(header, dict):
        return
    about = header.get("__metadata__")
    if isinstance(about, dict) and about and rng.random() < 0.7:
        key = rng.choice(sorted(about))
        try:
            inner = json.loads(about[key])
            about[key] = json.dumps(damaged_json(inner, rng))
        except (ValueError, TypeError, RecursionError):  # damaged before
            about[key] = rng.choice(["", "0", "2", "null", "x" * 1000, "[" * 5000, "{}", "\x1b[31m"])
        if rng.random() < 0.1:
            about[key] = "[" * 50_000
    else:
        header = damaged_json(header, rng)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def special(path: Path, rng: Random, *, links: bool = True) -> None:
    """Put something that is no regular file in the place of a path.

    Args:
        links: also a link that leads elsewhere: not for a path that a person gives, who may give a link.
    """
    if path.is_file() or path.is_symlink():
        path.unlink()
    if path.exists():
        return
    canary = Path(*path.parts[: path.parts.index("given")], "canary") if "given" in path.parts else path.parent
    what = rng.randrange(7) if links else rng.choice((0, 1, 5, 6))
    if what == 0:
        os.mkfifo(path)
    elif what == 1:
        made = socket.socket(socket.AF_UNIX)
        try:
            folder = os.getcwd()
            os.chdir(path.parent)  # an address has at most 107 bytes
            made.bind(path.name[:90])
        except OSError:
            os.mkfifo(path)
        finally:
            os.chdir(folder)
            made.close()
    elif what == 2:
        path.symlink_to(rng.choice(["/dev/zero", "/dev/tty", "/dev/stdin", "/etc/passwd", "/proc/self/mem"]))
    elif what == 3:
        path.symlink_to(canary / rng.choice(["secret.txt", "secret.png", "secret.safetensors"]))
    elif what == 4:
        path.symlink_to(rng.choice([path.name, "..", "gone"]))
    elif what == 5:
        path.mkdir()
    else:
        path.write_bytes(b"")
