"""A contact sheet: one web page that shows and plays the clips of a folder, and needs nothing from elsewhere."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from riff.audio.io import audio_seconds, load_audio, read_metadata
from riff.audio.tags import MACHINE_MADE
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import data_uri, paint
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
from riff.utils.errors import RiffError
from riff.utils.files import write_text
from riff.utils.pages import render
from riff.utils.validation import BPM_RANGE
from riff.version import __version__

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".png")
SIZE = (448, 112)  # of the small spectrogram, in pixels; seven kilobytes or so
NAME = "index.html"
# Fields that stand on the card itself, or are the same on every card of every sheet.
_SHOWN = ("prompt", "seed", "software", "origin", "key", "keyscale", "loop")
_LONG = 120  # characters of a prompt that are sure to stand on the card in full
_NUMBERED = re.compile(r"\d{4,}-.+")
_ARTICLE = re.compile(r'<article data-stamp="([^"]+)".*?</article>', re.DOTALL)
_SECONDS = re.compile(r'data-seconds="([\d.]+)"')
_GENERATOR = '<meta name="generator" content="riff '


@dataclasses.dataclass(frozen=True)
class Card:
    """One clip.

    Attributes:
        file: its name in the folder.
        made: how it was made, as :func:`riff.tasks.provenance.provenance` wrote it; empty if riff did not.
        seconds: its length; 0 for an image.
        image: ``data:`` address of a small spectrogram; empty if the file cannot be read.
        problem: why it cannot.
    """

    file: str
    made: dict[str, str]
    seconds: float = 0.0
    image: str = ""
    problem: str = ""


class ContactSheet:
    """The page of one folder, which always lists the files that are there.

    The page is its own memory: a clip whose file has not changed keeps its card, so that a sheet of a thousand clips is
    written again in no time.

    Args:
        folder: with clips ``0000-name.wav``, ``0001-...``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._cards = dict(_remembered(self.path))

    def write(self) -> Path:
        """Write index.html, wholly or not at all; errors as in :func:`riff.utils.files.atomic_path`."""
        from markupsafe import Markup

        files = {_stamp(path): path for path in numbered_files(self.folder)}
        self._cards = {stamp: self._cards.get(stamp) or render_card(read_card(path), stamp)
                       for stamp, path in files.items()}  # fmt: skip
        cards = [Markup(card) for card in self._cards.values()]
        seconds = sum(float(found[1]) for card in cards if (found := _SECONDS.search(card[:400])))
        page = render("tasks/templates/sheet.html", name=self.folder.resolve().name or "riff", cards=cards,
                      length=_length(seconds) if seconds else "")  # fmt: skip
        write_text(self.path, page)
        return self.path


def check_sheet(folder: str | Path, *, force: bool = False) -> None:
    """Raise RiffError if a sheet in ``folder`` would replace an index.html that riff did not write."""
    path = Path(folder) / NAME
    if path.exists() and not force and _GENERATOR not in _read(path):
        raise RiffError(f"{path} is not one of riff's sheets; choose another folder, or --force to replace it")


def numbered_files(folder: str | Path) -> list[Path]:
    """The clips ``0000-name.wav``, ``0001-...`` in a folder, in the order of their numbers."""
    named = [path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = [(int(path.stem.partition("-")[0]), path.name, path) for path in named if _NUMBERED.fullmatch(path.stem)]
    return [path for _, _, path in sorted(found)]


def how_made(path: str | Path) -> dict[str, str]:
    """What a sound or an image says about how it was made; empty if riff did not write it or it cannot be read."""
    try:
        if Path(path).suffix.lower() != ".png":
            return read_sound_tags(read_metadata(path))
        made = read_png(path)[2]
    except RiffError:
        return {}
    if made.get("origin") != MACHINE_MADE:
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in made.items()}


def read_card(path: Path) -> Card:
    """The card of one file; one that cannot be read says so on its card."""
    try:
        made = how_made(path)
        if path.suffix.lower() == ".png":
            image, config, _ = read_png(path)
            return Card(path.name, made, image=thumbnail(image, config))
        image, config = _spectrogram(path, made)
        return Card(path.name, made, audio_seconds(path), thumbnail(image, config))
    except RiffError as error:
        return Card(path.name, {}, problem=str(error))


def render_card(card: Card, stamp: str) -> str:
    """One clip as HTML. ``stamp`` changes with its file."""
    rows = [(field, value) for field, value in card.made.items()
            if field not in _SHOWN or (field == "prompt" and len(value) > _LONG)]  # fmt: skip
    return render(
        "tasks/templates/clip.html", file=card.file, made=card.made, seconds=card.seconds, image=card.image,
        problem=card.problem, link=quote(card.file), is_sound=not card.file.lower().endswith(".png"), stamp=stamp,
        facts=list(_facts(card)), rows=rows,
    )  # fmt: skip


def thumbnail(image: Tensor, config: SpectrogramConfig) -> str:
    """A spectrogram ``(C, M, N)``, small and in colour, as a ``data:`` address."""
    small = paint(image, width=SIZE[0], height=SIZE[1], dark=config.amplitude == "decibel")
    return data_uri(small, "WEBP", quality=70, method=4)


def _spectrogram(path: Path, made: dict[str, str]) -> tuple[Tensor, SpectrogramConfig]:
    """The sound as riff-mini sees it; quiet ones are brought up, so that there is something to see."""
    config = SpectrogramConfig()
    waveform, _ = load_audio(path, sample_rate=config.sample_rate, channels=1)
    loudest = float(waveform.abs().max())
    if loudest > 0.0:
        waveform = waveform * min(0.7 / loudest, 30.0)
    return mel_to_image(waveform_to_mel(waveform, config, bpm=_tempo(made)), config), config


def _tempo(made: dict[str, str]) -> float:
    """The tempo that untrusted metadata states, if it is one; it changes only the image's columns."""
    try:
        bpm = float(made.get("bpm", ""))
    except ValueError:
        return 120.0
    return bpm if BPM_RANGE[0] <= bpm <= BPM_RANGE[1] else 120.0


def _facts(card: Card) -> Iterator[str]:
    made = card.made
    if "seed" in made:
        yield f"seed {made['seed']}"
    if "bpm" in made:
        yield f"{_short(made['bpm'])} bpm"
    yield made.get("key") or made.get("keyscale", "")
    if card.seconds:
        yield f"{card.seconds:.1f} s"
    if made.get("loop") == "True":
        yield "loop"


def _short(number: str) -> str:
    """A number with at most two decimals; anything else as it is."""
    try:
        return f"{round(float(number), 2):g}"
    except ValueError:
        return number


def _stamp(path: Path) -> str:
    """Name, size and time of a file: a changed file is another clip."""
    status = path.stat()
    return f"{quote(path.name)}:{status.st_size}:{status.st_mtime_ns}"


def _remembered(path: Path) -> Iterable[tuple[str, str]]:
    """Stamps and cards of the page that is there, if this version of riff wrote it."""
    page = _read(path) if path.is_file() else ""
    if f'{_GENERATOR}{__version__}">' not in page:
        return []
    return [(found[1], found[0]) for found in _ARTICLE.finditer(page)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _length(seconds: float) -> str:
    hours, minutes, rest = round(seconds) // 3600, round(seconds) // 60 % 60, round(seconds) % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
