"""Finding music: sound files in a folder, with the words that stand beside them."""

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from riff.audio.formats import SUFFIXES as READS
from riff.audio.io import audio_seconds
from riff.music.beats import Beats
from riff.music.theory import parse_time_signature
from riff.tasks.provenance import read_made
from riff.train.data.captions import Captions, short_name
from riff.train.data.tables import TABLES
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, positive_number

# Sound that is not read: named in the report rather than passed over.
OTHER_SOUND = (".ac3", ".dsf", ".dff", ".amr", ".ra", ".spx", ".mpc", ".mid", ".midi")
_MAX_NAME_BYTES = 80  # of a clip's name before its number; a name may have 255


@dataclasses.dataclass(frozen=True)
class MusicSource:
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
        no_audio: captions that are not used and why, each as one line.
        notes: captions that are used with a remark, each as one line.
        ignored: suffix of files that are no music to their number.
    """

    sources: list[MusicSource]
    unused: dict[str, str] = dataclasses.field(default_factory=dict)
    no_audio: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)


def list_folder(music: Path, *, without: Path | None = None, text_column: str | None = None) -> Listing:
    """Find the sound files in a folder and below, or a single one.

    Args:
        music: the folder or file.
        without: a folder that is not searched: the data set's own.
        text_column: of the captions in metadata tables; default the first known one.

    Raises:
        RiffError: it does not exist or holds no sound.
    """
    if not music.exists():
        raise RiffError(f"{music} does not exist; give a folder of music (or hf:NAME for a datasets data set)")
    root = music if music.is_dir() else music.parent
    unused: dict[str, str] = {}
    captions, sounds, ignored = Captions(root, text_column), [], Counter[str]()
    for folder, files in _walk(music, without, unused):
        captions.read_folder(folder, files)
        for file in files:
            suffix = file.suffix.lower()
            if suffix in READS:
                sounds.append(file)
            elif suffix in OTHER_SOUND:
                unused[short_name(file, root)] = f"{suffix} is not read; convert it to FLAC or WAV"
            elif not captions.is_caption(file):
                ignored[suffix or "(none)"] += 1
    if not sounds:
        more = f" ({len(unused)} of other kinds: convert them to FLAC)" if unused else ""
        raise RiffError(f"{music} holds no sound file with one of the suffixes {', '.join(READS)}{more}")
    found = []
    for file in sounds:
        try:
            status = file.stat()
        except OSError as error:  # a link that leads nowhere, or a file that was deleted since
            unused[short_name(file, root)] = f"cannot be read ({(error.strerror or str(error)).lower()})"
            continue
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        found.append(MusicSource(short_name(file, root), str(file), stamp, "", captions.of(file), status.st_size))
    no_audio = captions.unclaimed(sounds) + captions.problems
    return Listing(with_prefixes(found), unused, no_audio, captions.notes, dict(sorted(ignored.items())))


def with_prefixes(sources: list[MusicSource]) -> list[MusicSource]:
    """Sources sorted by name with a prefix each; where several have the same stem, a hash of the name follows it."""
    stems = {source.name: stem_of(source.name) for source in sources}
    counts = Counter(stem.casefold() for stem in stems.values())
    named = []
    for source in sorted(sources, key=lambda source: source.name):
        stem = stems[source.name]
        alone = counts[stem.casefold()] == 1
        named.append(dataclasses.replace(source, prefix=stem if alone else unique_prefix(source.name)))
    return named


def unique_prefix(name: str) -> str:
    """A prefix for the source ``name`` that no other one has."""
    return f"{stem_of(name)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def stem_of(name: str) -> str:
    """A source's stem as every file system, JSON and shell takes it: letters of any script, digits, ``_ . -``."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._-")
    return stem.encode("utf-8")[:_MAX_NAME_BYTES].decode("utf-8", "ignore") or "clip"


def _walk(music: Path, without: Path | None, unused: dict[str, str]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders and their files, sorted, hidden ones left out; a folder that several links lead to is seen once."""
    if not music.is_dir():
        beside = [path for path in sorted(music.parent.iterdir()) if _belongs(path, music)]
        yield music.parent, [music, *beside]
        return

    def note(error: OSError) -> None:
        unused[short_name(Path(error.filename), music)] = (
            f"the folder cannot be read ({(error.strerror or '').lower()})"
        )

    seen: set[str] = {os.path.realpath(without)} if without else set()
    for folder, folders, files in os.walk(music, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), [Path(folder) / name for name in sorted(files) if not name.startswith(".")]


def _belongs(path: Path, music: Path) -> bool:
    """Whether a file beside a single sound file may hold its caption."""
    if path == music or not path.is_file():
        return False
    own = path.suffix.lower() in (".txt", ".caption") and path.name.lower().startswith(music.stem.lower() + ".")
    return own or path.name.lower() in TABLES


# What a sound file that riff wrote says of its tempo, so that it need not be measured.

_EDITS = ("remix", "extend", "inpaint")  # of a recording, whose beats may lie anywhere


@dataclasses.dataclass(frozen=True)
class StatedMusic:
    """What a file says of its music.

    Attributes:
        prompt: it was made from.
        key: such as ``"F# minor"``, or None.
        bpm: its tempo, or None.
        beats_per_bar: 3 or 4.
        exact: whether the beats are at every ``60 / bpm`` seconds from the first sample on.
    """

    prompt: str
    key: str | None
    bpm: float | None
    beats_per_bar: int
    exact: bool

    def beats_from(self, start: float, seconds: float) -> Beats | None:
        """The beats of ``seconds`` of the sound from ``start`` on, counted from there; None where they are not exact."""  # noqa: E501
        if self.bpm is None or not self.exact:
            return None
        length = 60.0 / self.bpm
        first = int(start / length + 1e-6)
        times = tuple(number * length - start for number in range(first, int((start + seconds) / length + 1e-6) + 2))
        return Beats(times, -first % self.beats_per_bar, self.bpm, 1.0)


def read_stated(path: Path) -> StatedMusic | None:
    """What a file says; None where riff did not write it, or what it says is damaged."""
    try:
        made = read_made(path)
        seconds = audio_seconds(path)
    except (RiffError, OSError):
        return None
    if "software" not in made or "prompt" not in made:
        return None
    prompt = str(made["prompt"])
    bpm = positive_number(made.get("bpm"))
    bpm = bpm if bpm is not None and BPM_RANGE[0] <= bpm <= BPM_RANGE[1] else None
    metre = str(made.get("time_signature") or made.get("timesignature") or "")
    beats_per_bar = {"3/4": 3, "4/4": 4}.get(metre) or parse_time_signature(prompt)
    exact = bpm is not None and made.get("task") not in _EDITS and "timeline" not in made
    if exact and bpm is not None:
        # A file that was cut since has neither whole bars nor the requested length.
        beats, requested = seconds * bpm / 60.0, positive_number(made.get("duration"))
        whole = abs(beats - round(beats)) < 0.02 and round(beats) % beats_per_bar == 0
        exact = whole or (requested is not None and abs(requested - seconds) < 0.01)
    key = made.get("key") or made.get("keyscale")
    return StatedMusic(prompt, None if key is None else str(key), bpm, beats_per_bar, exact)
