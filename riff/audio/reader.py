"""Sound files as samples: one reader for every kind, which names what is missing."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import soundfile

from riff.audio.channels import names_of_mask
from riff.audio.decoders import FFmpegDecoder, LibsndfileDecoder, open_decoder, reason_of
from riff.audio.formats import READABLE, inspect_sound
from riff.utils.errors import RiffError, checkpoint

SAMPLE_RATES = (1000, 768000)
MAX_CHANNELS = 8
_SLACK = 0.1  # seconds by which a lossy coder's length may be off
_MPEG_FRAME = 1152  # samples by which an MP3's may


class SoundReader:
    """An open sound file; see :func:`open_sound`.

    Attributes:
        path: the file.
        container: as :func:`riff.audio.formats.inspect_sound` names it.
        codec: what is inside, in the decoder's words.
        sample_rate: samples per second.
        channels: 1 to 8.
        layout: a name for each channel where the file says it, else None.
        frames: samples per channel, or None where only reading tells.
        is_float: whether samples may exceed full scale.
        faults: what is wrong with the file, in words; reading adds to it.
    """

    def __init__(self, path: str | Path, stack: ExitStack) -> None:
        self.path, self._stack = path, stack
        found = inspect_sound(path)
        self.container, self.faults = found.container, list(found.faults)
        self._parts: list[LibsndfileDecoder | FFmpegDecoder] = []
        for part in found.parts:
            try:
                self._parts.append(open_decoder(path, found.container, part, stack))
            except RiffError:
                if not self._parts:
                    raise
                self.faults.append(f"its part {len(self._parts) + 1} of {len(found.parts)} cannot be read")
                break
        first = self._parts[0]
        self.sample_rate, self.channels, self.layout = first.sample_rate, first.channels, first.layout
        self.codec, self.is_float = first.codec, first.is_float
        if found.mask:
            self.layout = names_of_mask(found.mask, self.channels)
        if found.ambisonic:
            self.layout = ("FC", *("AMBI",) * (self.channels - 1))  # the first channel is the sum of all directions
        low, high = SAMPLE_RATES
        if not low <= self.sample_rate <= high:
            raise RiffError(f"{path} claims {self.sample_rate} samples per second; {low} to {high} can be read")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise RiffError(f"{path} claims {self.channels} channels; 1 to {MAX_CHANNELS} can be read")
        counts = [part.frames for part in self._parts]
        known = [count for count in counts if count is not None]
        alike = all(part.sample_rate == self.sample_rate for part in self._parts)
        self.frames = sum(known) if len(known) == len(counts) and alike else None

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield ``(t, C)`` float32 from front to back, up to the end or to where the file cannot be read on."""
        done = 0
        for part in self._parts:
            for samples in _converted(part.blocks(), part, self):
                checkpoint()
                done += len(samples)
                yield samples
            self.faults += part.faults
            if part.is_broken:
                break
        if self.frames is not None and done < self.frames - self._slack():
            self.faults.append(f"{done} of {self.frames} samples could be read")

    def read(self, first: int, count: int) -> np.ndarray:
        """Up to ``count`` frames from ``first`` on, ``(t, C)`` float32; a plain file is decoded no further than that."""  # noqa: E501
        if len(self._parts) == 1:
            samples = self._parts[0].read(first, count)
            if samples is not None:
                if len(samples) < count - self._slack() and self.frames is not None:
                    self.faults.append(f"{len(samples)} of {count} samples could be read")
                return samples
        found, done = [], 0
        for samples in self.blocks():
            begin, end = max(0, first - done), min(len(samples), first + count - done)
            done += len(samples)
            if begin < end:
                found.append(samples[begin:end])
            if done >= first + count:
                break
        return np.concatenate(found) if found else np.zeros((0, self.channels), np.float32)

    def texts(self) -> dict[str, str]:
        """The texts stored in the file, by name in lower case."""
        return self._parts[0].texts()

    def _slack(self) -> int:
        if self.is_float or self.codec.lower().startswith(("pcm", "flac", "alac", "wavpack", "tta", "ape")):
            return 0
        return _MPEG_FRAME if self.container == "MP3" else round(_SLACK * self.sample_rate)


@contextmanager
def open_sound(path: str | Path) -> Iterator[SoundReader]:
    """Open a sound file of any kind that riff reads.

    Args:
        path: WAV, FLAC, OGG, MP3, AIFF, M4A, Opus, WMA, CAF, W64, RF64, WebM, WavPack, ...

    Raises:
        RiffError: it is missing, no sound, damaged at its beginning, or of a kind that is not read.
    """
    with ExitStack() as stack:
        try:
            yield SoundReader(path, stack)
        except soundfile.SoundFileError as error:
            raise RiffError(f"{path} is not a readable sound file ({reason_of(error)}); use {READABLE}") from error
        except MemoryError as error:
            raise RiffError(f"{path} claims more sound than fits into memory; use start and duration") from error


def _converted(
    blocks: Iterator[np.ndarray], part: LibsndfileDecoder | FFmpegDecoder, reader: SoundReader
) -> Iterator[np.ndarray]:
    """Blocks of a part as the reader's first one is: of its rate and its number of channels."""
    if (part.sample_rate, part.channels) == (reader.sample_rate, reader.channels):
        yield from blocks
        return
    import soxr

    to_channels = part.channels != reader.channels
    stream = soxr.ResampleStream(part.sample_rate, reader.sample_rate, reader.channels, dtype="float32", quality="VHQ")
    for samples in blocks:
        if to_channels:
            samples = np.repeat(samples.mean(1, keepdims=True), reader.channels, axis=1)
        yield stream.resample_chunk(samples) if part.sample_rate != reader.sample_rate else samples
    if part.sample_rate != reader.sample_rate:
        yield stream.resample_chunk(np.zeros((0, reader.channels), np.float32), last=True)
