"""Finding music: sound files in a folder, with the words that stand beside them."""

import csv
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from riff.audio.formats import SUFFIXES as READS
from riff.train.data.settings import PrepareSettings
from riff.utils.errors import RiffError, SystemProblem

# Sound that is not read: named in the report rather than passed over.
OTHER_SOUND = (".ac3", ".dsf", ".dff", ".amr", ".ra", ".spx", ".mpc", ".mid", ".midi")
_MOST_BYTES = 80  # of a clip's name before its number; a name may have 255


@dataclasses.dataclass(frozen=True)
class Source:
    """One piece of music, before it is opened.

    Attributes:
        name: path below MUSIC with ``/``, as the data set and the report name it.
        path: where it is; of a ``datasets`` row, where the data set is.
        stamp: changes whenever the content does.
        prefix: of the file names of its clips.
        words: the user's captions for it, the first being the main one; empty if there are none.
        size: bytes, for the progress.
        row: ``"split:number"`` in a ``datasets`` data set; empty for a file.
    """

    name: str
    path: str
    stamp: str
    prefix: str
    words: tuple[str, ...] = ()
    size: int = 0
    row: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        sources: to be cut, sorted by name, names and prefixes unique.
        unused: names of sound that cannot be used and why.
        no_audio: captions whose sound is not there, each as one line.
        ignored: suffix of files that are no music to their number.
    """

    sources: list[Source]
    unused: dict[str, str] = dataclasses.field(default_factory=dict)
    no_audio: list[str] = dataclasses.field(default_factory=list)
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)


def list_folder(music: Path, *, without: Path | None = None) -> Listing:
    """Find the sound files in a folder and below, or a single one.

    Args:
        music: the folder or file.
        without: a folder that is not searched: the data set's own.

    Raises:
        RiffError: it does not exist or holds no sound.
    """
    if not music.exists():
        raise RiffError(f"{music} does not exist; give a folder of music (or hf:NAME for a datasets data set)")
    root = music if music.is_dir() else music.parent
    unused: dict[str, str] = {}
    captions, sounds, ignored = Captions(), [], Counter[str]()
    for folder, files in _walk(music, without, unused):
        captions.read_folder(folder, files)
        for file in files:
            suffix = file.suffix.lower()
            if suffix in READS:
                sounds.append(file)
            elif suffix in OTHER_SOUND:
                unused[shown(file, root)] = f"{suffix} is not read; convert it to FLAC or WAV"
            elif not captions.is_caption(file):
                ignored[suffix or "(none)"] += 1
    if not sounds:
        more = f" ({len(unused)} of other kinds: convert them to FLAC)" if unused else ""
        raise RiffError(f"{music} holds no sound file with one of the suffixes {', '.join(READS)}{more}")
    found = []
    for file in sounds:
        try:
            status = file.stat()
        except OSError as error:  # a link that leads nowhere, or a file that went since
            unused[shown(file, root)] = f"cannot be read ({(error.strerror or str(error)).lower()})"
            continue
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        found.append(Source(shown(file, root), str(file), stamp, "", captions.of(file), status.st_size))
    no_audio = captions.unclaimed({os.path.normpath(file) for file in sounds}, root)
    return Listing(with_prefixes(found), unused, no_audio + captions.problems, dict(sorted(ignored.items())))


def shown(path: Path, root: Path) -> str:
    """The path below ``root`` as text that any file can hold; bytes that are no UTF-8 become ``\\xff``."""
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def with_prefixes(sources: list[Source]) -> list[Source]:
    """Sources sorted by name with a prefix each; where several have the same stem, a hash of the name follows it."""
    stems = {source.name: stem_of(source.name) for source in sources}
    counts = Counter(stem.casefold() for stem in stems.values())
    named = []
    for source in sorted(sources, key=lambda source: source.name):
        stem = stems[source.name]
        alone = counts[stem.casefold()] == 1
        named.append(dataclasses.replace(source, prefix=stem if alone else apart(source.name)))
    return named


def apart(name: str) -> str:
    """A prefix for the source ``name`` that no other one has."""
    return f"{stem_of(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def stem_of(name: str) -> str:
    """A source's stem as every file system, JSON and shell takes it: letters of any script, digits, ``_ . -``."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._-")
    return stem.encode("utf-8")[:_MOST_BYTES].decode("utf-8", "ignore") or "clip"


def _walk(music: Path, without: Path | None, unused: dict[str, str]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders and their files, sorted, hidden ones left out; a folder that several links lead to is seen once."""
    if not music.is_dir():
        beside = [music.with_suffix(".txt"), *(music.parent / f"metadata{end}" for end in (".jsonl", ".csv"))]
        yield music.parent, [music, *(path for path in beside if path.is_file())]
        return

    def note(error: OSError) -> None:
        unused[shown(Path(error.filename), music)] = f"the folder cannot be read ({(error.strerror or '').lower()})"

    seen: set[str] = {os.path.realpath(without)} if without else set()
    for folder, folders, files in os.walk(music, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not name.startswith(".")]


# WAS riff/prepare/captions.py: The user's words for sound files: text files beside them, metadata files, tags
# inside them.

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MOST_BYTES_CAPTIONS = 1 << 20  # of a text file that is read as a caption
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
            if text.stat().st_size > _MOST_BYTES_CAPTIONS:
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


# WAS riff/prepare/elsewhere.py: Folders on any file system that fsspec knows, and local ones with the same
# names, of which most are stand-ins.


def is_elsewhere(place: str | Path) -> bool:
    """Whether a place is the URL of an fsspec file system (``s3://bucket/folder``, ``file:///folder``)."""
    return "://" in str(place)


# WAS riff/prepare/rows.py: Music in a ``datasets`` data set: its rows as sources, their sound read by
# soundfile, never by datasets.

MARK = "hf:"
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
_TABLES = (".parquet", ".arrow")


def is_data_set(music: str | Path) -> bool:
    """Whether MUSIC is read with ``datasets``: ``hf:NAME``, a folder it saved, or one with tables and no sound."""
    if str(music).startswith(MARK):
        return True
    folder = Path(music)
    if not folder.is_dir():
        return False
    if any((folder / name).is_file() for name in _SAVED):
        return True
    names = [os.path.splitext(name)[1].lower() for _, _, files in os.walk(folder) for name in files]
    tables = any(ending in _TABLES for ending in names)
    return tables and not any(ending in READS for ending in names)


def list_rows(music: str | Path, settings: PrepareSettings) -> Listing:
    """Find the music in a data set.

    Args:
        music: as for :func:`is_data_set`.
        settings: may name the column of the captions.

    Raises:
        RiffError: it cannot be loaded, or has no column of sound or not the column named.
        SystemProblem: datasets is not installed.
    """
    place = str(music)
    sources: list[Source] = []
    unused: dict[str, str] = {}
    names: set[str] = set()
    for split, table in _splits(place).items():
        audio, text = _columns(table, place, settings.text_column)
        stamp = table._fingerprint  # changes with the content of the data set
        texts = table.select_columns([name for name in (text, "captions") if name in table.column_names])
        paths = table.select_columns([audio])
        for number in range(len(table)):
            words = words_of(_text_row(texts[number]), text or "text")
            sound = paths[number][audio]
            name = f"{split}/{_name(sound, number)}"
            if name in names:
                name = f"{split}/{number:06d}-{_name(sound, number)}"
            names.add(name)
            if not isinstance(sound, dict) or not (sound.get("bytes") or sound.get("path")):
                unused[name] = "the row holds no sound"
                continue
            size = len(sound["bytes"] or b"") or 1
            sources.append(Source(name, place, f"{stamp}:{number}", "", words, size, f"{split}:{number}"))
    if not sources:
        raise RiffError(f"{place} holds no row with sound; give a data set with a column of audio")
    return Listing(with_prefixes(sources), unused)


@contextmanager
def row_file(source: Source, folder: Path) -> Iterator[Path]:
    """The sound of a row as a file, which for the time of the block may be a temporary one in ``folder``.

    Raises:
        RiffError: the row's file is not there.
    """
    split, _, number = source.row.rpartition(":")
    table = _splits(source.path)[split]
    sound = table.select_columns([_columns(table, source.path, None)[0]])[int(number)]
    content = next(iter(sound.values()))
    if not content.get("bytes"):
        yield Path(content["path"])
        return
    handle, name = tempfile.mkstemp(prefix=".riff-", suffix=_suffix(content), dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content["bytes"])
        yield Path(name)
    finally:
        os.unlink(name)


@functools.lru_cache(maxsize=2)
def _splits(place: str) -> dict[str, Any]:
    """The data set's splits, their sound undecoded; a worker keeps them open."""
    try:
        import datasets
    except ImportError as error:
        raise SystemProblem(f"{place} needs datasets; install it: python -m pip install 'riff-music[data]'") from error
    name = place.removeprefix(MARK)
    try:
        if any((Path(name) / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name)
    except Exception as error:  # the loaders of datasets raise every kind
        reason = " ".join(str(error).split())[:300]
        raise RiffError(f"{place} cannot be loaded by datasets ({type(error).__name__}: {reason}); check it") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    return {split: _undecoded(table) for split, table in tables.items()}


def _undecoded(table: Any) -> Any:
    from datasets import Audio

    for name, feature in table.features.items():
        if isinstance(feature, Audio):
            table = table.cast_column(name, Audio(decode=False))
    return table


def _columns(table: Any, place: str, text_column: str | None) -> tuple[str, str | None]:
    """The columns of the sound and of the captions."""
    from datasets import Audio

    names = list(table.column_names)
    audio = next((name for name in names if isinstance(table.features[name], Audio)), None)
    if audio is None:
        audio = next((name for name in ("audio", "sound", "file") if name in names), None)
    if audio is None:
        raise RiffError(f"{place} has the columns {', '.join(names)} and none of sound; give a data set with audio")
    if text_column is not None and text_column not in names:
        raise RiffError(f"{place} has no column {text_column!r}; use one of {', '.join(names)}")
    return audio, text_column or next((name for name in TEXT_COLUMNS if name in names), None)


def _text_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if isinstance(value, str | list)}


def _name(sound: Any, number: int) -> str:
    path = sound.get("path") if isinstance(sound, dict) else None
    return Path(str(path)).name if path else f"{number:06d}"


def _suffix(content: dict[str, Any]) -> str:
    """The suffix that the row says its file had; libsndfile tells MP3 by its content in any case."""
    suffix = os.path.splitext(str(content.get("path") or ""))[1].lower()
    return suffix if suffix in READS else ".sound"
