"""A sound file of any length read from front to back, a few seconds at a time."""

import dataclasses
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from riff.audio.formats import READABLE, sniff_container
from riff.audio.io import MAX_CHANNELS, SAMPLE_RATES
from riff.utils.errors import RiffError

LOUDEST = 1000.0  # samples of full scale beyond which a float file holds no sound
_CHUNK = 1 << 15  # frames; of a file that cannot be read on, so many before the damage are lost
_UNKNOWN = 1 << 60  # frames that libsndfile claims where a file does not say how many it has


class _Unseekable(soundfile.SoundFile):
    """Reads on without the seek that soundfile makes after each read, which loses what an MP3 frame has in reserve."""

    def seekable(self) -> bool:
        return False


@dataclasses.dataclass
class SoundStream:
    """A sound file as it is read.

    Attributes:
        path: the file.
        sample_rate: samples per second of the chunks, in Hz.
        channels: 1 averages the file's channels; 2 takes its first two, or doubles the only one.
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

    def chunks(self) -> Iterator[Tensor]:
        """Yield ``(C, t)`` float32 up to the end, or up to where the file is damaged beyond reading on."""
        container = sniff_container(self.path)
        self._check_size()
        try:
            with _Unseekable(str(self.path)) as file:
                self._check_header(file)
                yield from self._resampled(file)
        except soundfile.SoundFileError as error:
            raise RiffError(f"not a readable {container} file ({_reason(error)}); use {READABLE}") from error

    def _check_header(self, file: soundfile.SoundFile) -> None:
        low, high = SAMPLE_RATES
        if not low <= file.samplerate <= high:
            raise RiffError(f"it claims {file.samplerate} samples per second; {low} to {high} can be read")
        if not 1 <= file.channels <= MAX_CHANNELS:
            raise RiffError(f"it claims {file.channels} channels; 1 to {MAX_CHANNELS} can be read")
        if file.frames == 0:
            raise RiffError("it holds no sound (0 samples)")
        self.seconds = None if file.frames > _UNKNOWN else file.frames / file.samplerate

    def _check_size(self) -> None:
        """Note a WAV or AIFF file that is shorter than its header says, of which libsndfile reads what is there."""
        with open(self.path, "rb") as file:
            head = file.read(8)
            there = file.seek(0, os.SEEK_END)
        if head[:4] in (b"RIFF", b"FORM"):
            claimed = 8 + struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:])[0]
            # The largest number is written where a length is not known yet: by a recorder, or into a pipe.
            if 1.01 * there < claimed < 0xFFFFFF00:
                self.faults.append(f"cut off: {there} of {claimed} bytes are there")

    def _resampled(self, file: soundfile.SoundFile) -> Iterator[Tensor]:
        import soxr

        converter = None
        if file.samplerate != self.sample_rate:
            converter = soxr.ResampleStream(
                file.samplerate, self.sample_rate, self.channels, dtype="float32", quality="VHQ"
            )
        for samples in self._read(file):
            if converter is not None:
                samples = converter.resample_chunk(samples)
            if len(samples):
                yield torch.from_numpy(np.ascontiguousarray(samples.T))
        if converter is not None:
            rest = converter.resample_chunk(np.zeros((0, self.channels), dtype=np.float32), last=True)
            if len(rest):
                yield torch.from_numpy(np.ascontiguousarray(rest.T))

    def _read(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        done = 0
        while True:
            try:
                samples = file.read(_CHUNK, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                if not done:
                    raise
                self.faults.append(f"damaged after {done / file.samplerate:.1f} s ({_reason(error)})")
                return
            if len(samples):
                yield self._without_holes(self._mixed(samples), done / file.samplerate, file.samplerate)
            done += len(samples)
            if len(samples) < _CHUNK:
                break
        if done == 0:
            raise RiffError("it holds no sound (0 samples)")
        if self.seconds is not None and done < 0.99 * file.frames:
            self.faults.append(f"damaged: {done} of {file.frames} samples could be read")

    def _mixed(self, samples: np.ndarray) -> np.ndarray:
        if self.channels == 1:
            return samples.mean(axis=1, keepdims=True)
        return samples[:, :2] if samples.shape[1] > 1 else samples.repeat(2, axis=1)

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


def _reason(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").strip().rstrip(".")


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
