"""The user's words for sound files: text files beside them, metadata files, tags inside them."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from riff.errors import SystemProblem

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MOST_BYTES = 1 << 20  # of a text file that is read as a caption
_MOST_CHARACTERS = 2000  # of one caption


class Captions:
    """Words found in folders, the nearest to a file winning: its own text file, then its folder's metadata, then those
    of the folders above.

    Attributes:
        problems: metadata that could not be read, each as one line.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._texts: set[Path] = set()
        self._listed: dict[str, tuple[tuple[str, ...], str]] = {}

    def read_folder(self, folder: Path, files: list[Path]) -> None:
        """Take in a folder's captions; folders above it come before it."""
        for file in files:
            if file.name in METADATA:
                self._read_metadata(folder, file)
            elif file.suffix.lower() == ".txt":
                self._texts.add(file)

    def is_caption(self, file: Path) -> bool:
        """Whether a file was taken in."""
        return file in self._texts or file.name in METADATA

    def of(self, file: Path) -> tuple[str, ...]:
        """The captions of a sound file, each on one line."""
        return self._beside(file) or self._listed.get(os.path.normpath(file), ((), ""))[0]

    def unclaimed(self, sounds: set[str], root: Path) -> list[str]:
        """Captions of which no sound is among ``sounds`` (normal paths), each as one line."""
        stems = {os.path.splitext(sound)[0] for sound in sounds}
        names = sorted(str(text) for text in self._texts if os.path.splitext(os.path.normpath(text))[0] not in stems)
        lines = [f"{_short(name, root)}: no sound file of that name" for name in names]
        missing = sorted((path, source) for path, (_, source) in self._listed.items() if path not in sounds)
        return lines + [f"{_short(path, root)}: named in {source}, but not there" for path, source in missing]

    def _beside(self, file: Path) -> tuple[str, ...]:
        for text in (file.with_suffix(".txt"), file.with_suffix(".TXT")):
            if text in self._texts:
                return self._lines(text)
        return ()

    def _lines(self, text: Path) -> tuple[str, ...]:
        try:
            if text.stat().st_size > _MOST_BYTES:
                self.problems.append(f"{text.name}: longer than a megabyte, no caption")
                return ()
            return cleaned(text.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        except OSError as error:
            self.problems.append(f"{text.name}: cannot be read ({(error.strerror or str(error)).lower()})")
            return ()

    def _read_metadata(self, folder: Path, file: Path) -> None:
        try:
            rows = _rows(file, self.problems)
        except SystemProblem:
            raise
        except Exception as error:  # pyarrow's and csv's are of many kinds; a bad file never ends the run
            self.problems.append(f"{file}: cannot be read ({' '.join(str(error).split())})")
            return
        for number, row in enumerate(rows, 1):
            name = next((row[key] for key in row if key == "file_name" or str(key).endswith("_file_name")), None)
            if not isinstance(name, str) or not name:
                self.problems.append(f"{file}, entry {number}: no file_name")
                continue
            self._listed[os.path.normpath(folder / name)] = (words_of(row, "text"), file.name)


def words_of(row: dict[str, Any], column: str) -> tuple[str, ...]:
    """The captions of a metadata row: its column, then what its list ``captions`` adds."""
    more = row.get("captions")
    return cleaned([row.get(column), *(more if isinstance(more, list) else [])])


def cleaned(texts: list[Any]) -> tuple[str, ...]:
    """Texts on one line each, the empty ones, repetitions and everything that is no text left out."""
    lines = [" ".join(text.replace("\0", "").split())[:_MOST_CHARACTERS] for text in texts if isinstance(text, str)]
    kept = [line.encode("utf-8", "replace").decode("utf-8") for line in lines if line]
    return tuple(dict.fromkeys(kept))


def read_tags(path: str | Path) -> str:
    """Genre, title and artist that a file names, as ``"Genre, Title by Artist"``; empty if there are none."""
    import mutagen

    try:
        tags = mutagen.File(path, easy=True)  # type: ignore[attr-defined, unused-ignore]
    except Exception:  # whatever damage does to somebody else's parser, there is no tag then
        return ""
    genre, title, artist = (_tag(tags, name) for name in ("genre", "title", "artist"))
    by = f"by {artist}" if artist else ""
    return next(iter(cleaned([", ".join(part for part in (genre, f"{title} {by}".strip()) if part)])), "")


_FRAMES = {"genre": "TCON", "title": "TIT2", "artist": "TPE1"}


def _tag(tags: Any, name: str) -> str:
    """A tag by its easy name, or by its ID3 frame, which is what WAV and AIFF files give."""
    for key in (name, _FRAMES[name]):
        try:
            found = tags[key]
            return str(found[0] if isinstance(found, list) else found)
        except (KeyError, TypeError, ValueError, IndexError):
            continue
    return ""


def _rows(file: Path, problems: list[str]) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise SystemProblem(f"{file} needs pyarrow; install it: python -m pip install pyarrow") from error
        return list(parquet.read_table(file).to_pylist())
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            problems.append(f"{file}, line {number}: no JSON object")
    return rows


def _short(path: str, root: Path) -> str:
    return os.fsencode(os.path.relpath(path, root)).decode("utf-8", "backslashreplace").replace(os.sep, "/")
