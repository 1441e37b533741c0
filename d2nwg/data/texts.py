"""Labelled texts from a table (CSV, TSV or JSONL, packed or not), a folder of texts, or an archive of either.

Two texts a row, such as premise and hypothesis, make a set of pairs.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from d2nwg.data.archives import archive_stem, extract_files
from d2nwg.data.columns import FOUND, TESTS, TRAINS, Columns, label_column, labels_of, split_column, text_columns
from d2nwg.data.labelled import labelled_set
from d2nwg.data.listing import list_folder, skipped_note, walk
from d2nwg.data.rows import LONGEST, MAX_ROWS, Table, decoded, is_table, read_table, stem_of, suffix_of
from d2nwg.data.text_set import TEXT_SUFFIXES, Text, TextSet
from d2nwg.utils.errors import UserError
from d2nwg.utils.paths import cache_dir
from d2nwg.utils.progress import Progress, silent
from d2nwg.utils.text import folded, is_utf8, number, shown, some

# A text, its class, and whether it is for testing; None where it has none, or is for neither.
Row = tuple[Text, str | None, bool | None]
NO_TEXTS = "holds no texts; pack a CSV or JSONL file, or one folder of text files per class"


def is_text_file(path: Path) -> bool:
    """Whether a file is named like texts: a table, or ``.txt``, packed with gzip or not."""
    return suffix_of(path) in TEXT_SUFFIXES


def load_texts(
    source: Path, *, columns: Columns = FOUND, into: Path | None = None, progress: Progress = silent
) -> TextSet:
    """Load labelled texts:

    - a table: ``.csv``, ``.tsv``, ``.jsonl``, each also with ``.gz``; a column ``split`` parts it into train and test;
    - a folder (or a zip or tar of one) with one table, or with tables named train and test;
    - a folder with a folder of text files for each class, or with one text file a class that holds a text a line,
      optionally under ``train/`` and ``test/``.

    Args:
        columns: which ones of a table; by default they are found by their names and contents.
        into: where archives are unpacked; by default in the cache folder.
    Raises:
        UserError: naming the file, column or class at fault.
    """
    path = Path(source)
    progress("Reading the texts", 0, 0)
    if path.is_dir():
        return _folder(path, shown(path.resolve().name), columns)
    if is_table(path):
        return _tables(shown(stem_of(path)), [(path, False)], columns)
    if suffix_of(path) == ".txt":
        raise UserError(f"{shown(path.name)} is one list of texts without labels: give a CSV with texts and labels.")
    return _folder(_unpacked(path, into, progress), archive_stem(path), columns)


def load_free_texts(
    files: Sequence[Path],
    *,
    pairs: bool = False,
    columns: Columns = FOUND,
    into: Path | None = None,
    progress: Progress = silent,
) -> list[Text]:
    """Texts without labels, or pairs of texts: from tables, from text files with one a line, and from folders and
    archives of these.

    Raises:
        UserError: there are none, or texts where pairs are wanted.
    """
    found: list[Text] = []
    for path in map(Path, files):
        if path.exists() and not path.is_dir() and not is_text_file(path):
            path = _unpacked(path, into, progress)
        for file in _files(path)[0] if path.is_dir() else [path]:
            table = read_table(file)
            labels = [columns.label] if columns.label in table.columns else []
            chosen = text_columns(table, columns.texts, aside=labels)
            if pairs and len(chosen) < 2:
                raise UserError(f"{table.name} holds single texts, and this head takes two a row: choose two columns.")
            found += [text for text in _items(table, chosen if pairs else chosen[:1]) if not _empty(text)]
    if not found:
        raise UserError("The files of unlabelled texts hold none: give a CSV, a JSONL, or a text a line.")
    return found


def _unpacked(path: Path, into: Path | None, progress: Progress) -> Path:
    if not path.is_file():  # a FIFO would block
        raise UserError(f"There is no folder, table or archive at {shown(path)}.")
    where = Path(into) / "texts" if into else cache_dir() / "text-archives"
    return extract_files(path, {*TEXT_SUFFIXES, ".gz"}, nothing=NO_TEXTS, into=where, progress=progress)


def _files(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """The text files at any depth, sorted; and what was not read, with the reason."""
    found, skipped = [], []
    for listing in walk(folder, folder):
        skipped += listing.skipped
        found += [Path(listing.path, name) for name in listing.files if is_text_file(Path(name))]
    return sorted(found), skipped


def _folder(root: Path, name: str, columns: Columns) -> TextSet:
    top = root
    for _ in range(4):  # an archive's or a download's single top folder
        listing = list_folder(root, top)
        if len(listing.folders) != 1 or any(is_text_file(Path(file)) for file in listing.files):
            break
        root = root / listing.folders[0]
    tables = [root / file for file in listing.files if is_table(Path(file))]
    notes = skipped_note(listing.skipped, top)
    if tables:
        return _tables(name, _parts(tables, name), columns, notes)
    by_name = {folder.lower(): root / folder for folder in listing.folders}
    train, test = (next((by_name[n] for n in names if n in by_name), None) for names in (TRAINS, TESTS))
    parts = [(train, False), (test, True)] if train and test else [(root, False)]
    rows: list[Row] = []
    damaged: list[str] = []
    for folder, testing in parts:
        rows += _class_files(folder, top, testing, damaged, notes)
    if damaged:
        notes.append(f"Left out, because they are no texts: {some(damaged)}.")
    if not rows:
        raise UserError(f"{name} {NO_TEXTS.replace('pack', 'give')}.")
    return _finished(name, rows, notes)


def _parts(tables: list[Path], name: str) -> list[tuple[Path, bool]]:
    """Tables to read, and whether they are for testing."""
    by_stem = {stem_of(path).lower(): path for path in tables}
    train, test = (next((by_stem[n] for n in names if n in by_stem), None) for names in (TRAINS, TESTS))
    if train and test:
        return [(train, False), (test, True)]
    if train or len(tables) == 1:
        return [(train or tables[0], False)]
    raise UserError(
        f"{name} holds several tables ({some([path.name for path in tables])}): give one, or name them train and test."
    )


def _tables(name: str, parts: list[tuple[Path, bool]], columns: Columns, notes: Sequence[str] = ()) -> TextSet:
    rows: list[Row] = []
    words = list(notes)
    for path, testing in parts:
        table = read_table(path)
        split = split_column(table) if len(parts) == 1 else None
        aside = {split} if split else set()
        label = label_column(table, columns.label, aside=aside | set(columns.texts))
        texts = text_columns(table, columns.texts, aside=aside | {label})
        labels = labels_of(table, label)
        tests: list[bool | None] = _tests(table, split) if split else [testing] * len(table)
        rows += zip(_items(table, texts), labels, tests, strict=True)
        used = f"Columns used: {some(texts)} and {shown(label)}" + (f", parted by {shown(split)}" if split else "")
        columns = Columns(texts, label)  # the same in the test table
        words += [*table.notes, *([] if testing else [f"{used}."])]
    return _finished(name, rows, words)


def _tests(table: Table, split: str) -> list[bool | None]:
    """Whether each row is for testing; None for one of another part."""
    values = [folded(str(value).strip()) for value in table.columns[split]]
    test = next((name for name in TESTS if name in values), None)
    return [True if value == test else False if value in TRAINS else None for value in values]


def _items(table: Table, columns: Sequence[str]) -> list[Text]:
    cells = [[value if isinstance(value, str) else _plain(value) for value in table.columns[c]] for c in columns]
    return [*cells[0]] if len(cells) == 1 else [*zip(cells[0], cells[1], strict=True)]


def _plain(value: object) -> str:
    return str(value) if isinstance(value, int | float) else ""


def _empty(text: Text) -> bool:
    return not text.strip() if isinstance(text, str) else not all(part.strip() for part in text)


def _class_files(folder: Path, top: Path, testing: bool, damaged: list[str], notes: list[str]) -> list[Row]:
    """The rows of a folder with a folder for each class, or with a file for each."""
    listing = list_folder(folder, top)
    rows: list[Row] = []
    loose = [file for file in listing.files if suffix_of(Path(file)) == ".txt" and is_utf8(file)]
    for class_folder in listing.folders:
        files, skipped = _files(folder / class_folder)
        notes += skipped_note(skipped, top)
        for file in files:
            text = decoded(file) if is_utf8(os.fspath(file)) else None
            if text is None:
                damaged.append(f"{class_folder}/{file.name}")
            else:
                rows.append((text[:LONGEST], class_folder, testing))
            if len(rows) > MAX_ROWS:
                raise UserError(f"{shown(top.name)} holds more than {MAX_ROWS:,} texts, which is the limit.")
    if rows:
        if loose:
            notes.append(f"Texts beside the class folders were left out: {some(loose)}.")
        return rows
    for file in loose:
        table = read_table(folder / file)
        notes += table.notes
        rows += [(text, stem_of(Path(file)), testing) for text in table.columns[""]]
    return rows


def _finished(name: str, rows: list[Row], notes: Sequence[str]) -> TextSet:
    """The set of those rows that have a text and a label, each text once."""
    spelling: dict[str, str] = {}
    seen: set[Text] = set()
    kept: list[tuple[Text, str, bool | None]] = []
    empty = unlabelled = repeated = 0
    used = [row for row in rows if row[2] is not None]
    for text, label, testing in sorted(used, key=lambda row: not row[2]):  # of a repeated one that for testing stays
        if _empty(text):
            empty += 1
        elif label is None or not label.strip() or not is_utf8(label):
            unlabelled += 1
        elif text in seen:
            repeated += 1
        else:
            seen.add(text)
            kept.append((text, spelling.setdefault(folded(label.strip()), label.strip()), testing))
    known = {label for _, label, testing in kept if not testing}
    strange = [label for _, label, testing in kept if testing and label not in known]
    if known and strange:
        kept = [row for row in kept if row[1] in known]
    left = [(empty, "without a text"), (unlabelled, "without a label"), (repeated, "repeated")]
    left.append((len(strange) if known else 0, f"for testing, of a class without training rows ({some(strange)})"))
    notes = [*notes, *(f"Left out: {number(count, 'row')} {why}." for count, why in left if count)]
    items, labels, tests = ([row[place] for row in kept] for place in range(3))
    return labelled_set(TextSet, name, items, labels, tests, notes)  # type: ignore[arg-type]
