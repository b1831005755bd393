"""Metadata tables (CSV, JSON, Parquet) and caption texts as people write them, in whatever encoding and under which names."""  # noqa: E501

import csv
import io
import json
import os
from pathlib import Path, PureWindowsPath
from typing import Any

from riff.utils.errors import RiffError, SystemProblem

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.json", "metadata.parquet")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "audio", "name")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
MAX_CHARACTERS = 2000  # of one caption
MAX_TEXT_BYTES = 1 << 20  # of a text file that holds captions
MAX_TABLE_BYTES = 1 << 28
Row = dict[str, Any]


def decode_text(content: bytes) -> tuple[str, str | None]:
    """Text in UTF-8, in UTF-16 or UTF-32 (as Notepad saves it), or else in Windows-1252.

    Returns:
        The text, and the encoding's name where it was guessed.

    Raises:
        RiffError: it is none of these.
    """
    marks = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8-sig")
    # Half of the bytes of Latin text in UTF-16 are zero; without a mark that is the only sign.
    if encoding == "utf-8-sig" and content.count(0) * 3 > len(content):
        encoding = "utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"
    for name in (encoding, "cp1252"):
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, "Windows-1252" if name == "cp1252" else None
    raise RiffError("no text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> tuple[str, str | None]:
    """As :func:`decode_text`, of a file of at most ``limit`` bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise RiffError(f"cannot be read ({(error.strerror or str(error)).lower()})") from error
    if len(content) > limit:
        raise RiffError(f"larger than {limit:,} bytes, so it is not read")
    return decode_text(content)


def read_table(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of a metadata file, and what is wrong with it, each as one line.

    Args:
        path: by its suffix a CSV with ``, ; |`` or tabs between its cells, JSON objects one a line, a JSON list of
            objects or object of names, or Parquet.

    Raises:
        RiffError: it cannot be read at all.
        SystemProblem: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path), []
    text, guessed = read_text(path, MAX_TABLE_BYTES)
    notes = [f"not UTF-8; read as {guessed}, so check its accents"] if guessed else []
    if suffix in (".csv", ".tsv"):
        rows, more = _read_csv(text)
    else:
        rows, more = _read_json(text)
    return rows, notes + more


def _read_parquet(path: Path) -> list[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise SystemProblem(f"{path} needs pyarrow; install it: python -m pip install pyarrow") from error
    try:
        return list(parquet.read_table(path).to_pylist())
    except Exception as error:  # pyarrow's are of many kinds
        raise RiffError(f"cannot be read ({' '.join(str(error).split())[:200]})") from error


def _read_csv(text: str) -> tuple[list[Row], list[str]]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise RiffError(f"cannot be read ({error})") from error
    lines = [cells for cells in lines if any(cell.strip() for cell in cells)]
    names = [cell.strip().lower() for cell in lines[0]] if lines else []
    if names and file_column(dict.fromkeys(names)) is None and os.path.splitext(names[0])[1]:
        names, lines = ["file_name", "text"], [[], *lines]  # there is no header
    rows, notes = [], []
    for number, cells in enumerate(lines[1:], 1):
        rest = cells[len(names) :]
        if rest and names[-1] in TEXT_COLUMNS:  # a caption with commas and without quotation marks
            cells = [*cells[: len(names) - 1], f"{delimiter} ".join(part.strip() for part in cells[len(names) - 1 :])]
        elif rest:
            notes.append(f"entry {number}: more cells than columns; {delimiter.join(rest)[:80]!r} is not used")
        rows.append(dict(zip(names, cells, strict=False)))
    return rows, notes


def _read_json(text: str) -> tuple[list[Row], list[str]]:
    """A list of objects, an object of names to captions, or one object a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and file_column(whole) is None and text.strip().count("\n"):
        named = {name: value if isinstance(value, dict) else {"text": value} for name, value in whole.items()}
        return [{"file_name": name, **value} for name, value in named.items()], []
    if isinstance(whole, list):
        parsed = [(f"entry {number}", value) for number, value in enumerate(whole, 1)]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        parsed = [(f"line {number}", _object(line)) for number, line in lines]
    rows = [{str(name).strip(): value for name, value in row.items()} for _, row in parsed if isinstance(row, dict)]
    return rows, [f"{place}: no JSON object" for place, row in parsed if not isinstance(row, dict)]


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def file_column(row: Row) -> str | None:
    """The column that names a row's file."""
    known = {name.lower(): name for name in row if isinstance(name, str)}
    suffixed = (name for lower, name in known.items() if lower.endswith("_file_name"))
    return next((known[name] for name in FILE_COLUMNS if name in known), next(suffixed, None))


def file_of(row: Row) -> str | None:
    """The file that a row names, with ``/`` between folders."""
    value = row.get(file_column(row) or "")
    value = value.get("path") if isinstance(value, dict) else value
    if not isinstance(value, str) or not value.strip():
        return None
    name = value.strip()
    return name if "/" in name else PureWindowsPath(name).as_posix()


def captions_of(row: Row, column: str | None = None) -> tuple[str, ...]:
    """The captions of a row: those of ``column`` or of the first known one that it has, then its ``captions``."""
    lower = {str(name).lower(): value for name, value in row.items()}
    names = [column.lower()] if column else [name for name in TEXT_COLUMNS if lower.get(name)][:1]
    return clean_captions([lower.get(name) for name in (*names, "captions")])


def clean_captions(texts: list[Any]) -> tuple[str, ...]:
    """Texts, and lists of them, on one line each; without empty ones, repetitions and what is no text."""
    flat = [each for text in texts for each in (text if isinstance(text, list | tuple) else [text])]
    lines = [" ".join(text.replace("\0", "").split())[:MAX_CHARACTERS] for text in flat if isinstance(text, str)]
    return tuple(dict.fromkeys(line.encode("utf-8", "replace").decode("utf-8") for line in lines if line))
