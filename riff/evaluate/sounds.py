"""The clips of an evaluation: sound files read at their own rate, with what riff wrote into them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from riff.errors import RiffError
from riff.provenance import read_sound_tags

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
LONGEST = 600.0  # seconds that are read of a file


@dataclasses.dataclass(frozen=True)
class Sound:
    """A clip in memory.

    Attributes:
        path: where it was read; used in messages and to name clips.
        waveform: (C, T) float32 in [-1, 1].
        sample_rate: samples per second, in Hz.
        metadata: what riff wrote of its making (prompt, bpm, keyscale, seed …); empty for other files.
    """

    path: Path
    waveform: Tensor
    sample_rate: int
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def mono(self) -> Tensor:
        """The mean of the channels, (T,)."""
        return self.waveform.mean(0)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[-1] / self.sample_rate

    def middle(self, seconds: float) -> Sound:
        """Itself, or the middle ``seconds`` of it if it is longer."""
        size = round(seconds * self.sample_rate)
        start = (self.waveform.shape[-1] - size) // 2
        return self if start <= 0 else dataclasses.replace(self, waveform=self.waveform[..., start : start + size])


def find_sounds(source: str | Path) -> list[Path]:
    """The sound files of a folder and the folders in it, in the order of their names; hidden ones are left out.

    Args:
        source: a folder, or one file.

    Raises:
        RiffError: it is missing or holds none.
    """
    source = Path(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise RiffError(f"{source} is no file or folder; give a folder of sound files")
    found = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    if not found:
        raise RiffError(f"{source} holds no sound file; use {', '.join(SUFFIXES)}")
    return found


def load_sound(path: str | Path) -> Sound:
    """Read a file at its own rate, its first ten minutes if it is longer.

    Raises:
        RiffError: it is missing, damaged or no sound.
    """
    from riff.audio import load_audio, read_metadata

    with warnings.catch_warnings():
        # A cut file is measured as what is left of it would mislead; it counts as corrupt.
        warnings.filterwarnings("error", message=".*is damaged", category=UserWarning)
        try:
            waveform, rate = load_audio(path, duration=LONGEST)
        except UserWarning as warning:
            raise RiffError(f"{warning}; repair it or leave it out") from warning
    return Sound(Path(path), waveform, rate, read_sound_tags(read_metadata(path)))


def load_sounds(paths: Sequence[str | Path]) -> Iterator[Sound | RiffError]:
    """Read files one after another; one that cannot be read gives its error, which names it, in its place.

    Args:
        paths: the files.
    """
    for path in paths:
        try:
            yield load_sound(path)
        except RiffError as error:
            yield error
