"""The two decoders behind :mod:`riff.audio.reader`: libsndfile for what it reads well, FFmpeg (PyAV) for the rest."""

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

from riff.audio.channels import MASK_NAMES
from riff.audio.formats import FFMPEG_CODECS, READABLE, SoundPart
from riff.utils.errors import RiffError

_BLOCK = 1 << 15  # frames
_UNKNOWN = 1 << 60  # frames that libsndfile claims where a file does not say how many it has


class LibsndfileDecoder:
    """A part of a file in libsndfile.

    Attributes:
        sample_rate, channels, codec, is_float: as in :class:`riff.audio.reader.SoundReader`.
        layout: None; libsndfile does not name channels.
        frames: samples per channel by the header.
        faults: what is wrong with the part, in words; reading adds to it.
        is_broken: whether reading ended before the part did.
    """

    layout: tuple[str, ...] | None = None

    def __init__(self, path: str | Path, container: str, part: SoundPart, stack: ExitStack) -> None:
        self.path, self.container, self.part = path, container, part
        self.faults: list[str] = []
        self.is_broken = False
        self._quiet = _quiet if container == "MP3" else ExitStack
        window = stack.enter_context(_Window(path, part.start, part.stop))
        try:
            with self._quiet():
                self._file = stack.enter_context(_SoundFile(window))
        except soundfile.SoundFileError as error:
            message = f"{path} is not a readable {container} file ({reason_of(error)}); use {READABLE}"
            raise RiffError(message) from error
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.codec, self.is_float = str(self._file.subtype), self._file.subtype in ("FLOAT", "DOUBLE")
        self.frames = None if self._file.frames > _UNKNOWN else int(self._file.frames)

    def texts(self) -> dict[str, str]:
        """The texts stored in it, by name in lower case."""
        with self._quiet():
            return dict(self._file.copy_metadata())

    def read(self, first: int, count: int) -> np.ndarray | None:
        """Frames from ``first`` on in one read, or None if the decoder gives up."""
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
        done = 0
        with self._quiet():
            self._file.seek(0)
        while True:
            try:
                with self._quiet():
                    samples = self._file.read(_BLOCK, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                self.faults.append(f"it is damaged after about {done / self.sample_rate:.1f} s ({reason_of(error)})")
                yield from self._rest(done)
                return
            done += len(samples)
            if len(samples):
                yield samples
            if len(samples) < _BLOCK:
                return

    def _rest(self, done: int) -> Iterator[np.ndarray]:
        """What FFmpeg reads of a FLAC file that libsndfile gives up after ``done`` frames; of others nothing."""
        self.is_broken = self.container != "FLAC"
        if self.is_broken:
            return
        with ExitStack() as stack:
            part = dataclasses.replace(self.part, demuxer="flac")
            again = FFmpegDecoder(self.path, self.container, part, stack)
            for samples in again.blocks():
                skipped = min(done, len(samples))
                done -= skipped
                if skipped < len(samples):
                    yield samples[skipped:]


class FFmpegDecoder:
    """A part of a file in FFmpeg; attributes as in :class:`LibsndfileDecoder`."""

    is_broken = False

    def __init__(self, path: str | Path, container: str, part: SoundPart, stack: ExitStack) -> None:
        """Open the part and decode its first frame: some coders' headers say half the sample rate."""
        import av

        self.path, self.container, self.part = path, container, part
        self.faults: list[str] = []
        window = stack.enter_context(_Window(path, part.start, part.stop))
        av.logging.set_level(None)  # it would print what it thinks of damaged files
        demuxer, *options = str(part.demuxer).split(":")
        try:
            opened: Any = av.open(
                window, format=demuxer, options=dict.fromkeys(options, "1"), metadata_errors="replace"
            )
            stack.callback(opened.close)
            stream = opened.streams.best("audio")
            if stream is None:
                raise RiffError(f"{self.path} holds no sound")
            self._check_codec(stream)
            self._stream, self._opened = stream, opened
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

    def texts(self) -> dict[str, str]:
        """The texts stored in it, by name in lower case."""
        stored = dict(self._opened.metadata) | dict(self._stream.metadata)
        return {str(name).lower(): str(text) for name, text in stored.items()}

    def read(self, first: int, count: int) -> np.ndarray | None:
        """None: FFmpeg's seeking is not exact to the sample, so what comes before is decoded too."""
        return None

    def blocks(self) -> Iterator[np.ndarray]:
        """``(t, C)`` float32 from front to back."""
        import av

        first = self._first
        self._first = None
        if first is None:  # read a second time
            with ExitStack() as stack:
                yield from FFmpegDecoder(self.path, self.container, self.part, stack).blocks()
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

    def _check_codec(self, stream: Any) -> None:
        name = stream.codec_context.name if stream.codec_context is not None else "an unknown or protected codec"
        if not FFMPEG_CODECS.fullmatch(name):
            raise RiffError(f"{self.path} is a {self.container} file with {name} inside; convert it to WAV or FLAC")

    def _stated_frames(self, demuxer: str) -> int | None:
        """Samples by the container's header, of those whose headers can be believed."""
        stream = self._stream
        if demuxer in ("wav", "w64", "caf", "mov", "aiff", "tta", "wv", "ape", "au", "asf") and stream.duration:
            return round(float(stream.duration * stream.time_base) * self.sample_rate)
        if demuxer == "matroska" and self._opened.duration:
            return round(self._opened.duration / 1e6 * self.sample_rate)
        return None

    def _decoded(self) -> Iterator[Any]:
        """FFmpeg's frames; packets that cannot be decoded are counted."""
        import av

        damaged = 0
        packets = self._opened.demux(self._stream)
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


def open_decoder(
    path: str | Path, container: str, part: SoundPart, stack: ExitStack
) -> LibsndfileDecoder | FFmpegDecoder:
    """The decoder for a part of a file, which ``stack`` closes."""
    kind = LibsndfileDecoder if part.demuxer is None else FFmpegDecoder
    return kind(path, container, part, stack)


def reason_of(error: Exception) -> str:
    """libsndfile's own words, without the object's name around them."""
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
