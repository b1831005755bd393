"""Sound files as samples: libsndfile for what it reads well, FFmpeg (PyAV) for everything else, one reader for both."""

import dataclasses
import io
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from riff.audio.channels import MASK_NAMES, names_of_mask
from riff.audio.formats import FFMPEG_CODECS, READABLE, SoundPart, inspect_sound
from riff.utils.errors import RiffError

SAMPLE_RATES = (1000, 768000)
MAX_CHANNELS = 8
_BLOCK = 1 << 15  # frames
_UNKNOWN = 1 << 60  # frames that libsndfile claims where a file does not say how many it has
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
        self._parts: list[_Part] = []
        for part in found.parts:
            try:
                self._parts.append(_Part(path, found.container, part, stack))
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
                done += len(samples)
                yield samples
            self.faults += part.faults
            if part.broken:
                break
        if self.frames is not None and done < self.frames - self._slack():
            self.faults.append(f"{done} of {self.frames} samples could be read")

    def read(self, first: int, count: int) -> np.ndarray:
        """Up to ``count`` frames from ``first`` on, ``(t, C)`` float32; a plain file is decoded no further than that."""
        if len(self._parts) == 1 and self._parts[0].seekable:
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
            raise RiffError(f"{path} is not a readable sound file ({_reason(error)}); use {READABLE}") from error
        except MemoryError as error:
            raise RiffError(f"{path} claims more sound than fits into memory; use start and duration") from error


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own; decoders never see the file's name, which may be any bytes."""

    def __init__(self, path: str | Path, start: int, stop: int) -> None:
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        self._start, self._stop, self._at = start, stop, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._stop - self._start - self._at
        if left <= 0:
            return 0
        self._file.seek(self._start + self._at)
        content = self._file.read(min(len(buffer), left))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stop - self._start}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


class _SoundFile(soundfile.SoundFile):
    """Reads on without the seek that soundfile makes after each read, which loses what an MP3 frame has in reserve."""

    def seekable(self) -> bool:
        return False


class _Part:
    """One part of a file, open in its decoder."""

    def __init__(self, path: str | Path, container: str, part: SoundPart, stack: ExitStack) -> None:
        self.path, self.container, self.part = path, container, part
        self.faults: list[str] = []
        self.broken = False
        self.layout: tuple[str, ...] | None = None
        self._window = stack.enter_context(_Window(path, part.start, part.stop))
        self._file: _SoundFile | None = None
        self._quiet = _quiet if container == "MP3" else ExitStack
        if part.demuxer is None:
            try:
                with self._quiet():
                    self._file = stack.enter_context(_SoundFile(self._window))
            except soundfile.SoundFileError as error:
                message = f"{path} is not a readable {container} file ({_reason(error)}); use {READABLE}"
                raise RiffError(message) from error
            self.sample_rate, self.channels = self._file.samplerate, self._file.channels
            self.codec, self.is_float = str(self._file.subtype), self._file.subtype in ("FLOAT", "DOUBLE")
            self.frames = None if self._file.frames > _UNKNOWN else int(self._file.frames)
        else:
            self._open_ffmpeg(part.demuxer, stack)

    def texts(self) -> dict[str, str]:
        """The texts stored in it, by name in lower case."""
        if self._file is not None:
            with self._quiet():
                return dict(self._file.copy_metadata())
        stored = dict(self._container.metadata) | dict(self._stream.metadata)
        return {str(name).lower(): str(text) for name, text in stored.items()}

    @property
    def seekable(self) -> bool:
        """Whether :meth:`read` can find a part without reading what comes before."""
        return self._file is not None

    def read(self, first: int, count: int) -> np.ndarray | None:
        """Frames from ``first`` on in one read, or None if the decoder gives up."""
        assert self._file is not None
        # An MP3 frame may need data from frames before it, so decoding starts early.
        early = min(first, 1 << 16) if self.container in ("MP3", "OGG") else 0
        try:
            with self._quiet():
                self._file.seek(first - early)
                return self._file.read(early + count, dtype="float32", always_2d=True)[early:]
        except soundfile.SoundFileError:
            return None

    def blocks(self) -> Iterator[np.ndarray]:
        """``(t, C)`` float32 from front to back."""
        if self._file is None:
            yield from self._ffmpeg_blocks()
            return
        done = 0
        with self._quiet():
            self._file.seek(0)
        while True:
            try:
                with self._quiet():
                    samples = self._file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                self.faults.append(f"it is damaged after about {done / self.sample_rate:.1f} s ({_reason(error)})")
                yield from self._rest(done)
                return
            done += len(samples)
            if len(samples):
                yield samples
            if len(samples) < _BLOCK:
                return

    def _rest(self, done: int) -> Iterator[np.ndarray]:
        """What FFmpeg reads of a FLAC file that libsndfile gives up after ``done`` frames; of others nothing."""
        self.broken = self.container != "FLAC"
        if self.broken:
            return
        with ExitStack() as stack:
            again = _Part(self.path, self.container, dataclasses.replace(self.part, demuxer="flac"), stack)
            for samples in again.blocks():
                skipped = min(done, len(samples))
                done -= skipped
                if skipped < len(samples):
                    yield samples[skipped:]

    def _open_ffmpeg(self, demuxer: str, stack: ExitStack) -> None:
        """Open the file in FFmpeg and decode its first frame: some coders' headers say half the sample rate."""
        import av

        av.logging.set_level(None)  # it would print what it thinks of damaged files
        demuxer, *options = demuxer.split(":")
        try:
            container: Any = av.open(
                self._window, format=demuxer, options=dict.fromkeys(options, "1"), metadata_errors="replace"
            )
            stack.callback(container.close)
            stream = container.streams.best("audio")
            if stream is None:
                raise RiffError(f"{self.path} holds no sound")
            self._check_codec(stream)
            self._stream, self._container = stream, container
            self._frames = self._decoded()
            self._first = next(self._frames, None)
        except (av.error.FFmpegError, ValueError, UnicodeError) as error:
            if isinstance(error, RiffError):
                raise
            hint = "; its end, where an M4A file has its index, may be missing" if demuxer == "mov" else ""
            what = " ".join((getattr(error, "strerror", None) or str(error)).split())[:100]
            message = f"{self.path} is not a readable {self.container} file ({what}{hint}); use {READABLE}"
            raise RiffError(message) from error
        if self._first is None:
            raise RiffError(f"{self.path} holds no sound (0 samples)")
        self.codec, self.sample_rate = stream.codec_context.name, int(self._first.sample_rate)
        self.is_float = self.codec in ("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "wavpack")
        names = tuple(channel.name for channel in self._first.layout.channels)
        self.channels = len(names)
        self.layout = names if self.channels > 2 and set(names) <= set(MASK_NAMES) else None
        self.frames = self.part.frames or (None if options else self._stated_frames(demuxer))

    def _check_codec(self, stream: Any) -> None:
        name = stream.codec_context.name if stream.codec_context is not None else "an unknown or protected codec"
        if not FFMPEG_CODECS.fullmatch(name):
            raise RiffError(f"{self.path} is a {self.container} file with {name} inside; convert it to WAV or FLAC")

    def _stated_frames(self, demuxer: str) -> int | None:
        """Samples by the container's header, of those whose headers can be believed."""
        stream, container = self._stream, self._container
        if demuxer in ("wav", "w64", "caf", "mov", "aiff", "tta", "wv", "ape", "au", "asf") and stream.duration:
            return round(float(stream.duration * stream.time_base) * self.sample_rate)
        if demuxer == "matroska" and container.duration:
            return round(container.duration / 1e6 * self.sample_rate)
        return None

    def _decoded(self) -> Iterator[Any]:
        """FFmpeg's frames; packets that cannot be decoded are counted."""
        import av

        damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                break
            except av.error.FFmpegError as error:
                self.faults.append(f"it cannot be read to its end ({error.strerror})")
                break
            try:
                yield from packet.decode()
            except EOFError:
                break
            except av.error.FFmpegError:
                damaged += 1
                if damaged > 10_000:
                    break
        if damaged:
            self.faults.append(f"{damaged} of its packets cannot be decoded")

    def _ffmpeg_blocks(self) -> Iterator[np.ndarray]:
        import av

        first = self._first
        self._first = None
        if first is None:  # read a second time
            with ExitStack() as stack:
                yield from _Part(self.path, self.container, self.part, stack).blocks()
            return
        frames = itertools.chain([first], self._frames)
        # AAC in M4A is padded to whole frames; the file says where the sound ends.
        left = self.frames if self.part.demuxer == "mov" and self.frames else _UNKNOWN
        target = {"format": "fltp", "layout": first.layout, "rate": first.sample_rate}
        for _, group in itertools.groupby(frames, lambda frame: (frame.format.name, frame.layout, frame.sample_rate)):
            # A chained stream may go on at another rate or with other channels.
            resampler = av.AudioResampler(**target)
            for frame in itertools.chain(group, [None]):
                if frame is not None:
                    frame.pts = None
                for output in resampler.resample(frame):
                    samples = output.to_ndarray().T[:left]
                    left -= len(samples)
                    yield np.ascontiguousarray(samples)


def _converted(blocks: Iterator[np.ndarray], part: _Part, reader: SoundReader) -> Iterator[np.ndarray]:
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


_stderr = threading.RLock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing reaches the process's standard error meanwhile: libmpg123 prints what it thinks of damaged files."""
    with _stderr:
        try:
            kept = os.dup(2)
        except OSError:  # there is none
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
