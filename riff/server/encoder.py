"""Sound to MP3 or Ogg piece by piece, for streams that have no end."""

import os
from typing import Any

import soundfile
from torch import Tensor

FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"), "ogg": ("OGG", "VORBIS", "audio/ogg")}
_BLOCK = 16384  # libsndfile overruns its stack when a minute of Vorbis is written at once


class _Sink:
    """The file that libsndfile writes to: what is written can be taken once, and is then gone."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place, self._end = 0, 0

    def write(self, content: Any) -> int:
        """Keep what is new at the end; a header that is written again at the close is dropped."""
        piece = bytes(content)
        if self._place == self._end:
            self._pieces.append(piece)
            self._end += len(piece)
        self._place += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._end}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """As a file's."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Nothing; it is gone."""
        return b""

    def readinto(self, buffer: Any) -> int:
        """Nothing; it is gone."""
        return 0

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


class StreamEncoder:
    """One stream's encoder.

    Attributes:
        media_type: of what it makes.
    """

    def __init__(self, kind: str, sample_rate: int, channels: int) -> None:
        container, subtype, self.media_type = FORMATS[kind]
        self._sink = _Sink()
        options: dict[str, Any] = {"format": container, "subtype": subtype}
        if kind == "mp3":  # a stream has no header that tells a changing rate
            options |= {"bitrate_mode": "CONSTANT", "compression_level": 0.5}  # 160 kb/s; needs both to be heeded
        self._file = soundfile.SoundFile(self._sink, "w", samplerate=sample_rate, channels=channels, **options)

    def encode(self, waveform: Tensor) -> bytes:
        """(C, T) to the bytes that are ready by now."""
        samples = waveform.detach().float().clamp(-1.0, 1.0).numpy().T
        for first in range(0, len(samples), _BLOCK):
            self._file.write(samples[first : first + _BLOCK])
        return self._sink.take()

    def close(self) -> bytes:
        """What was still inside."""
        if not self._file.closed:
            self._file.close()
        return self._sink.take()
