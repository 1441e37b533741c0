"""What README.md and benchmarks/README.md tell a person to run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
PROGRAMS = ("python ", "pip ", "accelerate ", "torchrun ")


def commands(page: Path) -> list[str]:
    """Every command of a page, in order: the lines of blocks in no language, joined where a line goes on in the next
    one, without comments, and what stands in the text as code and begins with a program. Each once."""
    text, found = page.read_text(encoding="utf-8"), []
    for block, inline in re.findall(r"^```\n(.*?)^```$|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL):
        lines = re.sub(r" \\\n\s*", " ", block).splitlines() if block else [inline]
        for line in lines:
            line = re.sub(r"\s+# .*$", "", line).strip()
            if line and (block or (line.startswith(PROGRAMS) and len(line.split()) > 2)):
                found.append(line)
    return list(dict.fromkeys(found))


def snippets(page: Path) -> list[str]:
    """The blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def documented() -> list[str]:
    """The commands of all pages."""
    return list(dict.fromkeys(command for page in PAGES for command in commands(page)))
