"""The user's words for sound files: text files beside them, metadata tables, tags inside them."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from riff.train.data.tables import (
    MAX_CHARACTERS,
    TABLES,
    TEXT_COLUMNS,
    Row,
    _object,
    captions_of,
    clean_captions,
    file_of,
    read_table,
    read_text,
)
from riff.utils.errors import RiffError

TEXT_SUFFIXES = (".txt", ".caption", ".json")
_LIKE_TABLES = (".csv", ".tsv", ".jsonl", ".xlsx", ".ods")


class Captions:
    """Words found in folders. The nearest to a file wins: its own text file, then the tables of its folder, then those
    of the folders above.

    Names are compared as people see them: capitals, composed and decomposed accents and ``\\`` make no difference.

    Attributes:
        problems: captions that are not used, each as one line.
        notes: captions that are used with a remark, each as one line.
    """

    def __init__(self, root: Path, column: str | None = None) -> None:
        """``root`` is the folder of the music, ``column`` that of the captions in tables."""
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._root, self._column = root, column
        self._texts: dict[str, list[Path]] = {}
        self._listed: dict[str, tuple[str, tuple[str, ...], str]] = {}

    def read_folder(self, folder: Path, files: list[Path]) -> None:
        """Add a folder's captions; folders above it come first."""
        tables: dict[str, tuple[str, tuple[str, ...], str]] = {}
        for file in files:
            if file.name.lower() in TABLES:
                self._read_table(folder, file, tables)
            elif file.suffix.lower() in TEXT_SUFFIXES:
                self._texts.setdefault(_key(file), []).append(file)
            elif file.suffix.lower() in _LIKE_TABLES:
                self._problem(file, f"not read; if it holds captions, call it metadata{file.suffix.lower()}")
        self._listed |= tables

    def is_caption(self, file: Path) -> bool:
        """Whether a file was added or named."""
        return file.name.lower() in TABLES or file.suffix.lower() in (*TEXT_SUFFIXES, *_LIKE_TABLES)

    def of(self, file: Path) -> tuple[str, ...]:
        """The captions of a sound file, each on one line."""
        texts = [text for key in _keys_beside(file) for text in self._texts.get(key, [])]
        stem = f"{file.with_suffix('')}."
        texts.sort(key=lambda text: not str(text).startswith(stem))  # of song.txt and Song.txt the one spelled alike
        beside = next((self._read_beside(text) for text in texts), ())
        return beside or next((self._listed[key][1] for key in _keys_listed(file) if key in self._listed), ())

    def unclaimed(self, sounds: Iterable[Path]) -> list[str]:
        """Captions whose sound is not there, each as one line."""
        sounds = list(sounds)
        beside = {key for sound in sounds for key in _keys_beside(sound)}
        listed = {key for sound in sounds for key in _keys_listed(sound)}
        # A JSON file that stands beside no sound is most often no caption.
        left = [path for key, paths in self._texts.items() if key not in beside for path in paths]
        texts = [path for path in left if path.suffix.lower() != ".json"]
        lines = [f"{short_name(text, self._root)}: no sound file of that name" for text in sorted(texts)]
        gone = sorted((name, table) for key, (name, _, table) in self._listed.items() if key not in listed)
        return lines + [
            f"{short_name(Path(name), self._root)}: named in {table}, but not there" for name, table in gone
        ]

    def _problem(self, file: Path, why: str) -> None:
        line = f"{short_name(file, self._root)}: {why}"
        if line not in self.problems:
            self.problems.append(line)

    def _read_beside(self, path: Path) -> tuple[str, ...]:
        try:
            text, guessed = read_text(path)
            lines: list[Any] = text.splitlines()
            if path.suffix.lower() == ".json":
                content = _object(text)
                lines = list(captions_of(content, self._column)) if isinstance(content, dict) else [content]
        except RiffError as error:
            self._problem(path, str(error))
            return ()
        found = clean_captions(lines)
        if guessed:
            self.notes.append(f"{short_name(path, self._root)}: not UTF-8; read as {guessed}, so check its accents")
        if not found and text.strip():
            self._problem(path, "it holds no caption")
        self._note_cut(path, lines)
        return found

    def _note_cut(self, path: Path, texts: list[Any]) -> None:
        if any(isinstance(text, str) and len(text) > MAX_CHARACTERS for text in texts):
            self.notes.append(f"{short_name(path, self._root)}: a caption was cut to {MAX_CHARACTERS} characters")

    def _read_table(self, folder: Path, file: Path, found: dict[str, tuple[str, tuple[str, ...], str]]) -> None:
        try:
            rows, faults = read_table(file)
        except RiffError as error:
            if error.exit_code == 5:  # a package is missing
                raise
            self._problem(file, str(error))
            return
        for fault in faults:
            (self.notes if fault.startswith("not UTF-8") else self.problems).append(
                f"{short_name(file, self._root)}, {fault}"
            )
        self._check_columns(file, rows)
        for number, row in enumerate(rows, 1):
            name = file_of(row)
            if name is None:
                self._problem(file, f"entry {number}: no file_name")
                continue
            path = os.path.normpath(folder / name)
            words = captions_of(row, self._column)
            # Tables may have several rows for one file, each with a caption.
            earlier = found[_key(path)][1] if _key(path) in found else ()
            found[_key(path)] = (path, clean_captions([*earlier, *words]), file.name)
            self._note_cut(file, list(row.values()))

    def _check_columns(self, file: Path, rows: list[Row]) -> None:
        wanted = [self._column] if self._column else list(TEXT_COLUMNS)
        names = {str(name).lower() for row in rows for name in row}
        if rows and not names & {name.lower() for name in wanted}:
            columns = ", ".join(sorted(name for name in names if name))[:200]
            self._problem(file, f"no caption: of its columns ({columns}) none is called {' or '.join(wanted)}")


def _key(path: str | Path) -> str:
    return unicodedata.normalize("NFC", os.path.normpath(path)).casefold()


def _keys_beside(sound: Path) -> list[str]:
    """Names of a sound's own text files: ``song.txt`` and ``song.wav.txt`` for ``song.wav``."""
    stems = (str(sound.with_suffix("")), str(sound))
    return [_key(stem + suffix) for stem in stems for suffix in TEXT_SUFFIXES]


def _keys_listed(sound: Path) -> list[str]:
    """How a table may name a sound: with or without its suffix."""
    return [_key(sound), _key(sound.with_suffix(""))]


def short_name(path: Path, root: Path) -> str:
    """The path below ``root`` as text that any file can hold; bytes that are no UTF-8 become ``\\xff``."""
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


_FRAMES = {"genre": "TCON", "title": "TIT2", "artist": "TPE1"}


def read_tags(path: str | Path) -> str:
    """Genre, title and artist that a file names, as ``"Genre, Title by Artist"``; empty if there are none."""
    import mutagen

    try:
        tags = mutagen.File(path, easy=True)  # type: ignore[attr-defined, unused-ignore]
    except Exception:  # whatever a damaged file does to the parser, there is no tag then
        return ""
    genre, title, artist = (_tag(tags, name) for name in ("genre", "title", "artist"))
    by = f"by {artist}" if artist else ""
    return next(iter(clean_captions([", ".join(part for part in (genre, f"{title} {by}".strip()) if part)])), "")


def _tag(tags: Any, name: str) -> str:
    """A tag by its easy name, or by its ID3 frame, which is what WAV and AIFF files give."""
    for key in (name, _FRAMES[name]):
        try:
            found = tags[key]
            return str(found[0] if isinstance(found, list) else found)
        except (KeyError, TypeError, ValueError, IndexError):
            continue
    return ""
