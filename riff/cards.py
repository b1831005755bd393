"""The clips in a folder as cards: what each file says about itself, and a small picture of its sound."""

import dataclasses
import json
import re
from pathlib import Path

from torch import Tensor

from riff.audio import audio_seconds, load_audio, read_metadata
from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.image import mel_to_image, read_png
from riff.provenance import MACHINE_MADE, read_sound_tags
from riff.show import data_uri, paint
from riff.spectrogram import waveform_to_mel

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".png")
SIZE = (448, 112)  # of the small picture, in pixels; seven kilobytes or so
_NUMBERED = re.compile(r"\d{4,}-.+")


@dataclasses.dataclass(frozen=True)
class Card:
    """One clip.

    Attributes:
        file: its name in the folder.
        made: how it was made, by its own account (:func:`riff.provenance.provenance`); empty if riff did not write it.
        seconds: its length; 0 for a picture.
        picture: ``data:`` address of a small picture; empty if the file cannot be read.
        problem: why it cannot.
    """

    file: str
    made: dict[str, str]
    seconds: float = 0.0
    picture: str = ""
    problem: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it can be played as it is."""
        return not self.file.lower().endswith(".png")


def numbered_files(folder: str | Path) -> list[Path]:
    """The clips ``0000-name.wav``, ``0001-...`` in a folder, in the order of their numbers."""
    found = [
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in SUFFIXES and _NUMBERED.fullmatch(path.stem) and path.is_file()
    ]
    return sorted(found, key=lambda path: (int(path.stem.partition("-")[0]), path.name))


def how_made(path: str | Path) -> dict[str, str]:
    """What a sound or a picture says about how it was made; empty if riff did not write it or it cannot be read."""
    try:
        if Path(path).suffix.lower() != ".png":
            return read_sound_tags(read_metadata(path))
        made = read_png(path)[2]
    except RiffError:
        return {}
    return {name: _plain(value) for name, value in made.items()} if made.get("origin") == MACHINE_MADE else {}


def read_card(path: Path) -> Card:
    """The card of one file; one that cannot be read says so on its card."""
    try:
        made = how_made(path)
        if path.suffix.lower() == ".png":
            image, config, _ = read_png(path)
            return Card(path.name, made, picture=_small(image, config))
        image, config = _picture(path, made)
        return Card(path.name, made, audio_seconds(path), _small(image, config))
    except RiffError as error:
        return Card(path.name, {}, problem=str(error))


def _picture(path: Path, made: dict[str, str]) -> tuple[Tensor, SpectrogramConfig]:
    """The sound as riff-mini draws it, quiet ones brought up so that there is something to see."""
    config = SpectrogramConfig()
    waveform, _ = load_audio(path, sample_rate=config.sample_rate, channels=1)
    loudest = float(waveform.abs().max())
    if loudest > 0.0:
        waveform = waveform * min(0.7 / loudest, 30.0)
    return mel_to_image(waveform_to_mel(waveform, config, bpm=_tempo(made)), config), config


def _tempo(made: dict[str, str]) -> float:
    """The tempo that a stranger's metadata says, if it is one; what it is changes only the picture's columns."""
    try:
        bpm = float(made.get("bpm", ""))
    except ValueError:
        return 120.0
    return bpm if 20.0 <= bpm <= 400.0 else 120.0


def _small(image: Tensor, config: SpectrogramConfig) -> str:
    picture = paint(image, width=SIZE[0], height=SIZE[1], dark=config.amplitude == "decibel")
    return data_uri(picture, "WEBP", quality=70, method=4)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
