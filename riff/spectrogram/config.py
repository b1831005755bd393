"""The one description of a spectrogram image; it travels with every artefact riff writes."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError
from riff.utils.files import write_json
from riff.utils.validation import show

CONFIG_NAME = "spectrogram_config.json"
MAX_NUMBERS = 1 << 25  # in a filterbank, or in the spectra that the inversion holds at once
MAX_OVERLAP = 128  # windows over one sample; the time that inversion takes grows with its square
_MOST = {"n_fft": 2**18, "win_length": 2**18, "hop_length": 2**18, "n_mels": 4096, "width": 2**16,
         "sample_rate": 768000, "frames_per_beat": 4096}  # fmt: skip
# How much work the step from image to sound is; see :mod:`riff.spectrogram.inversion.solver`.
Quality = Literal["fast", "default", "high", "best", "griffin-lim"]


def _hz_to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4)


def _mel_to_hz(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return mel * 200.0 / 3.0 if mel < 15.0 else 1000.0 * math.exp((mel - 15.0) * math.log(6.4) / 27.0)


@dataclasses.dataclass(frozen=True)
class SpectrogramConfig:
    """Geometry and amplitude scale of a mel spectrogram image.

    Fields are spelled as in torchaudio. The time axis is one of two grids: on ``"seconds"`` a column lasts
    ``hop_length`` samples; on ``"beats"`` it lasts ``1 / frames_per_beat`` of a beat, and the tempo enters only
    when the image becomes sound.

    Attributes:
        sample_rate: samples per second of the sound, in Hz.
        n_fft: transform length in samples, ``>= win_length`` (the window is zero-padded to it).
        win_length: Hann window in samples.
        hop_length: samples per column on the seconds grid; on the beats grid the hop at which phase is found.
        n_mels: rows of the image.
        f_min: lowest frequency of the filterbank, in Hz.
        f_max: highest frequency of the filterbank, in Hz.
        mel_scale: ``"htk"`` or ``"slaney"``.
        norm: ``None`` (filters peak at 1) or ``"slaney"`` (filters have equal area).
        amplitude: ``"decibel"`` (fixed reference, louder is brighter) or ``"power"`` (per-clip maximum, louder is
            darker, as in Riffusion).
        power: exponent of the power scale.
        reference: mel magnitude that is full white on the decibel scale.
        db_range: decibels between black and white on the decibel scale.
        channels: 1 mono, 2 stereo.
        stereo: what the two channels are: ``"mid-side"`` or ``"left-right"``.
        grid: ``"beats"`` or ``"seconds"``.
        frames_per_beat: columns per beat on the beats grid.
        width: columns of a training image.

    Raises:
        RiffError: a field is out of its range, or fields contradict each other.
    """

    sample_rate: int = 44100
    n_fft: int = 8192
    win_length: int = 4096
    hop_length: int = 512
    n_mels: int = 256
    f_min: float = 20.0
    f_max: float = 16000.0
    mel_scale: Literal["htk", "slaney"] = "htk"
    norm: Literal["slaney"] | None = None
    amplitude: Literal["decibel", "power"] = "decibel"
    power: float = 0.25
    reference: float = 300.0
    db_range: float = 70.0
    channels: int = 1
    stereo: Literal["mid-side", "left-right"] = "mid-side"
    grid: Literal["beats", "seconds"] = "beats"
    frames_per_beat: int = 32
    width: int = 256

    def __post_init__(self) -> None:
        whole = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "frames_per_beat", "width")
        for name in whole:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RiffError(f"{name} is {show(value)}; use a whole number of at least 1")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise RiffError(f"{name} is {show(getattr(self, name))}; use at most {most}")
        for name in ("f_min", "f_max", "power", "reference", "db_range"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1e30:
                raise RiffError(f"{name} is {show(value)}; use a finite number of at least 0")
        choices: dict[str, tuple[Any, ...]] = {
            "mel_scale": ("htk", "slaney"),
            "norm": (None, "slaney"),
            "amplitude": ("decibel", "power"),
            "channels": (1, 2),
            "stereo": ("mid-side", "left-right"),
            "grid": ("beats", "seconds"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed or isinstance(getattr(self, name), (bool, float)):
                raise RiffError(f"{name} is {show(getattr(self, name))}; use one of {allowed}")
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise RiffError(
                f"f_min {self.f_min} and f_max {self.f_max} must satisfy f_min < f_max and "
                f"f_max <= {self.sample_rate / 2} (half the sample rate)"
            )
        if not self.hop_length <= self.win_length <= self.n_fft:
            raise RiffError(
                f"hop_length {self.hop_length}, win_length {self.win_length} and n_fft {self.n_fft} "
                "must satisfy hop_length <= win_length <= n_fft"
            )
        if min(self.power, self.reference, self.db_range) <= 0:
            raise RiffError("power, reference and db_range must be greater than 0")
        self._check_memory()
        self._check_bands()

    def _check_memory(self) -> None:
        """Refuse a geometry whose inversion takes gigabytes, however small the file is that it came with."""
        if self.win_length > MAX_OVERLAP * self.hop_length:
            raise RiffError(
                f"win_length {self.win_length} is {self.win_length / self.hop_length:.0f} hops of {self.hop_length}; at most "  # noqa: E501
                f"{MAX_OVERLAP} windows overlap, so use a longer hop or a shorter window"
            )
        filters = self.n_mels * (self.n_fft // 2 + 1)
        # The frames that are worked on at once, and the bins of each: see riff.spectrogram.inversion.waveform.
        spectra = (1024 + 4 * -(-self.win_length // self.hop_length)) * (self.win_length + 1)
        for count, what, remedy in (
            (filters, f"n_mels {self.n_mels} and n_fft {self.n_fft}", "use fewer mels or a smaller n_fft"),
            (
                spectra,
                f"win_length {self.win_length} and hop_length {self.hop_length}",
                "use a longer hop or a shorter window",
            ),
        ):
            if count > MAX_NUMBERS:
                raise RiffError(f"{what} need {count:,} numbers at once; at most {MAX_NUMBERS:,} are held, so {remedy}")

    def _check_bands(self) -> None:
        """Refuse a filter that no bin of the transform falls into: its row would be silent for ever."""
        corners = self.mel_corners()
        spacing = self.sample_rate / self.n_fft
        for band, (low, high) in enumerate(zip(corners, corners[2:], strict=False)):
            if (math.floor(low / spacing) + 1) * spacing >= high:
                raise RiffError(
                    f"mel band {band} ({low:.1f} to {high:.1f} Hz) holds no bin of a {self.n_fft} point transform, "
                    f"whose bins are {spacing:.1f} Hz apart; use fewer than {self.n_mels} n_mels or a larger n_fft"
                )

    def mel_corners(self) -> list[float]:
        """Frequencies in Hz of the n_mels + 2 corners of the triangular filters, equally far apart in mels.

        HTK scale: O'Shaughnessy (1987); Slaney scale: Slaney (1998).
        """
        low, high = _hz_to_mel(self.f_min, self.mel_scale), _hz_to_mel(self.f_max, self.mel_scale)
        step = (high - low) / (self.n_mels + 1)
        return [_mel_to_hz(low + step * corner, self.mel_scale) for corner in range(self.n_mels + 2)]

    @classmethod
    def riffusion(cls, *, stereo: bool = False) -> "SpectrogramConfig":
        """Riffusion v1's images: 512 mels to 10 kHz, 10 ms columns, 100 ms window padded to 400 ms, power 0.25."""
        return cls(
            sample_rate=44100,
            n_fft=17640,
            win_length=4410,
            hop_length=441,
            n_mels=512,
            f_min=0.0,
            f_max=10000.0,
            amplitude="power",
            power=0.25,
            channels=2 if stereo else 1,
            stereo="left-right",
            grid="seconds",
            width=512,
        )

    def frames_to_samples(self, n_frames: int, *, bpm: float | TempoMap | None = None) -> int:
        """Samples of ``n_frames`` columns: exactly ``N * hop_length``, or N columns' worth of beats at ``bpm``."""
        if self.grid == "seconds":
            return n_frames * self.hop_length
        if isinstance(bpm, TempoMap) and bpm.steady is None:
            return round(float(bpm.seconds_at(n_frames / self.frames_per_beat)) * self.sample_rate)
        return round(n_frames * self.column_samples(bpm=bpm))

    def column_samples(self, *, bpm: float | TempoMap | None = None) -> float:
        """Samples per column; fractional on the beats grid, where ``bpm`` (beats per minute) is needed.

        Raises:
            RiffError: no tempo on the beats grid, or one that changes, so that columns are not equally long.
        """
        if self.grid == "seconds":
            return float(self.hop_length)
        if isinstance(bpm, TempoMap):
            if bpm.steady is None:
                raise RiffError("columns have no one length under a tempo that changes; use frames_to_samples")
            bpm = bpm.steady
        if bpm is None or not math.isfinite(bpm) or bpm <= 0:
            raise RiffError(f"bpm is {bpm!r}; an image on the beats grid needs a tempo greater than 0")
        return 60.0 * self.sample_rate / (bpm * self.frames_per_beat)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "SpectrogramConfig":
        """The inverse of :meth:`to_dict`; unknown fields are an error, missing ones take their default."""
        if not isinstance(fields, dict):
            raise RiffError(f"a spectrogram config is a JSON object of fields; got {type(fields).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise RiffError(f"unknown spectrogram config field(s) {unknown}; known are {sorted(known)}")
        return cls(**fields)

    def save(self, folder: str | Path) -> None:
        """Write ``spectrogram_config.json`` into ``folder``."""
        write_json(Path(folder) / CONFIG_NAME, self.to_dict())

    @classmethod
    def load(cls, folder: str | Path) -> "SpectrogramConfig":
        """Read ``spectrogram_config.json`` from ``folder``; without that file it is Riffusion v1's."""
        path = Path(folder) / CONFIG_NAME
        if not path.exists():
            return cls.riffusion()
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RiffError(f"{path} is not valid JSON ({error}); restore it or delete it") from error
        return cls.from_dict(fields)
