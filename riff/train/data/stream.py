"""A sound file of any length read from front to back, a few seconds at a time."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from riff.audio.channels import cancelling, mix
from riff.audio.reader import SoundReader, open_sound
from riff.utils.errors import RiffError

LOUDEST = 1000.0  # samples of full scale beyond which a float file holds no sound


@dataclasses.dataclass
class SoundStream:
    """A sound file as it is read.

    Attributes:
        path: the file.
        sample_rate: samples per second of the chunks, in Hz.
        channels: 1 or 2, mixed from the file's as :func:`riff.audio.channels.mix` does.
        seconds: length by the file's header; None if it does not say.
        faults: what is wrong with it, each as one line.
        holes: spans in seconds that held NaN, infinite or absurdly loud samples, which are read as silence.

    Raises:
        RiffError: the file is missing, no sound, of a kind that is not read, or empty.
    """

    path: Path
    sample_rate: int
    channels: int
    seconds: float | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    holes: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    _only: int | None = dataclasses.field(default=None, init=False)

    def chunks(self) -> Iterator[Tensor]:
        """Yield ``(C, t)`` float32 up to the end, or up to where the file is damaged beyond reading on."""
        import soxr

        with open_sound(self.path) as sound:
            rate, done = sound.sample_rate, 0
            self.seconds = None if sound.frames is None else sound.frames / rate
            converter = None
            if rate != self.sample_rate:
                converter = soxr.ResampleStream(rate, self.sample_rate, self.channels, dtype="float32", quality="VHQ")
            for block in sound.blocks():
                samples = self._without_holes(self._mixed(block, sound), done / rate, rate)
                done += len(block)
                if converter is not None:
                    samples = converter.resample_chunk(samples)
                if len(samples):
                    yield torch.from_numpy(np.ascontiguousarray(samples.T))
            if converter is not None:
                rest = converter.resample_chunk(np.zeros((0, self.channels), dtype=np.float32), last=True)
                if len(rest):
                    yield torch.from_numpy(np.ascontiguousarray(rest.T))
            if done == 0:
                raise RiffError(f"{self.path} holds no sound (0 samples)")
            self.faults += sound.faults

    def _mixed(self, samples: np.ndarray, sound: SoundReader) -> np.ndarray:
        """``(t, C)`` of the wanted channels; where two cancel, the louder one is used from there on."""
        waveform = torch.from_numpy(samples.T)
        if self.channels == 1 and len(waveform) == 2:
            if self._only is None:
                self._only = cancelling(waveform)
                if self._only is not None:
                    self.faults.append(f"its channels are out of phase and cancel; channel {self._only + 1} is used")
            mixed = waveform.mean(0, keepdim=True) if self._only is None else waveform[self._only : self._only + 1]
        elif self.channels == 2 and len(waveform) > 2 and sound.layout is None:
            mixed = mix(waveform, 1).expand(2, -1)  # nobody says what is left and what is right
        else:
            mixed = mix(waveform, self.channels, sound.layout)
        return mixed.T.numpy()

    def _without_holes(self, samples: np.ndarray, start: float, rate: int) -> np.ndarray:
        """The samples with zeros where there is no sound, which is noted in ``holes``, joined within a second."""
        wrong = ~(np.abs(samples) < LOUDEST).all(axis=1)  # NaN is not less either
        if not wrong.any():
            return samples
        if not self.holes:
            self.faults.append("it holds NaN, infinite or absurd samples; clips with such were left out")
        for second in np.unique(np.flatnonzero(wrong) // rate):
            first, last = start + float(second), start + float(second) + 1.0
            if self.holes and first <= self.holes[-1][1] + 1e-6:
                self.holes[-1] = (self.holes[-1][0], last)
            else:
                self.holes.append((first, last))
        return np.where(wrong[:, None], np.float32(0.0), samples)


def blocks(stream: SoundStream, *, seconds: float) -> Iterator[tuple[Tensor, bool]]:
    """Join a stream's chunks to blocks about equally long.

    Args:
        stream: to read.
        seconds: length of a block; where the file says its length, blocks are up to a third longer or shorter, so that
            none is a mere rest.

    Yields:
        ``(C, T)`` and whether it is the last.
    """
    held: list[Tensor] = []
    size, length = 0, 0
    for chunk in stream.chunks():
        if not length:
            known = stream.seconds
            parts = 1 if known is None else max(1, round(known / seconds))
            length = math.ceil((seconds if known is None else known / parts) * stream.sample_rate) + 1
        while size + chunk.shape[-1] > length:
            head, chunk = chunk[:, : length - size], chunk[:, length - size :]
            yield torch.cat([*held, head], dim=-1), False
            held, size = [], 0
        held.append(chunk)
        size += chunk.shape[-1]
    yield torch.cat(held, dim=-1) if held else torch.zeros(stream.channels, 0), True
