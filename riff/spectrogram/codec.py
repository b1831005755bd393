"""Sound to spectrogram image and back in one object, with what an image cannot hold kept beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.audio.loudness import peak_normalize
from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.image import MAX_PIXELS, image_to_mel, mel_to_image
from riff.spectrogram.inversion.waveform import MAX_SECONDS, mel_to_waveform
from riff.spectrogram.mel import count_columns, waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError
from riff.utils.validation import positive_number


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The spectrogram image of a sound.

    Attributes:
        image: (C, M, N) in [0, 1], row 0 the highest frequency.
        max_value: mel magnitude of black on the power scale, so that loudness survives; None on the decibel scale.
        bpm: tempo or tempo map by which the columns were cut; None on the seconds grid.
        samples: length of the sound, which may end within the last column; None if unknown.
    """

    image: Tensor
    max_value: float | None = None
    bpm: float | TempoMap | None = None
    samples: int | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What :func:`riff.write_png` should keep, so that the image can be decoded without further arguments.

        ``max_value``, ``samples``, and ``bpm``, or ``tempo``, a :class:`riff.spectrogram.tempo.TempoMap` as JSON,
        where the tempo changes.
        """
        fields: dict[str, Any] = {"max_value": self.max_value, "samples": self.samples}
        if isinstance(self.bpm, TempoMap) and self.bpm.steady is None:
            fields["tempo"] = self.bpm.to_dict()
        else:
            fields["bpm"] = self.bpm.steady if isinstance(self.bpm, TempoMap) else self.bpm
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def read(
        cls,
        image: Tensor,
        config: SpectrogramConfig,
        made: Mapping[str, Any],
        *,
        bpm: float | TempoMap | None = None,
        name: str = "the image",
    ) -> "Encoded":
        """The inverse of :attr:`metadata`, from a file that anybody may have written.

        Args:
            image: (C, M, N) in [0, 1].
            config: of the image.
            made: its metadata, as :func:`riff.read_png` gives it.
            bpm: used in place of what the metadata says.
            name: of the image, in errors.

        Returns:
            The image; ``bpm`` is None on the seconds grid, and where it is unknown.

        Raises:
            RiffError: the tempo map is damaged, or makes more than two hours of the image.
        """
        samples = made.get("samples") if bpm is None else None
        if config.grid == "seconds":
            bpm = None
        elif bpm is None and "tempo" not in made:
            bpm = positive_number(made.get("bpm"))
        elif bpm is None:
            try:
                bpm = TempoMap.from_dict(made["tempo"])
                seconds = float(bpm.seconds_at(image.shape[-1] / config.frames_per_beat))
                if not 0.0 < seconds <= MAX_SECONDS:
                    raise RiffError(f"it makes {seconds:.4g} s of the image")
            except RiffError as error:
                raise RiffError(f"{name} has a damaged tempo map: {error}; give its bpm") from error
        whole = isinstance(samples, int) and not isinstance(samples, bool)
        return cls(image, positive_number(made.get("max_value")), bpm, samples if whole else None)


@dataclasses.dataclass(frozen=True)
class SpectrogramCodec:
    """Waveforms to spectrogram images and back, for one config.

    Attributes:
        config: geometry and amplitude scale; default riff-mini's.
    """

    config: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)

    def encode(self, waveform: Tensor | np.ndarray, *, bpm: float | TempoMap | None = None) -> Encoded:
        """The image of a sound.

        Args:
            waveform: (C, T), or (T,) for one channel, floating in [-1, 1] at ``config.sample_rate``,
                C = ``config.channels``.
            bpm: tempo or tempo map of the sound; needed on the beats grid.

        Raises:
            RiffError: wrong shape or type, samples that are not finite, no tempo on the beats grid, or an image of
                more than 67 million pixels.
        """
        sound = torch.atleast_2d(_floating(waveform, "the sound"))
        if not bool(torch.isfinite(sound).all()):
            raise RiffError("the sound holds NaN or infinite samples; no spectrogram can be made of it")
        columns = count_columns(sound.shape[-1], self.config, bpm)
        if columns * self.config.n_mels > MAX_PIXELS:
            raise RiffError(
                f"the image would have {columns} x {self.config.n_mels} pixels; at most {MAX_PIXELS:,} are written, so cut it"  # noqa: E501
            )
        mel = waveform_to_mel(sound, self.config, bpm=bpm)
        image = mel_to_image(mel, self.config)
        loudest = float(mel.max()) if self.config.amplitude == "power" else 0.0
        on_beats = bpm if self.config.grid == "beats" else None
        return Encoded(image, loudest if loudest > 0 else None, on_beats, sound.shape[-1])

    def decode(
        self,
        image: Encoded | Tensor | np.ndarray,
        *,
        bpm: float | TempoMap | None = None,
        max_value: float | None = None,
        samples: int | None = None,
        quality: Quality = "default",
        loop: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The sound of an image.

        Args:
            image: what :meth:`encode` returned, or (C, M, N) in [0, 1].
            bpm: tempo or tempo map; needed on the beats grid, and another one than an ``Encoded`` has changes its
                length.
            max_value: mel magnitude of black on the power scale. Without it the loudness is unknown, and the sound
                is brought to a peak of 0.89.
            samples: length of the sound, at most a column shorter than the image; default that of an ``Encoded``,
                else the whole image's.
            quality: see :func:`riff.mel_to_waveform`.
            loop: whether the end leads back into the start; a loop is as long as its columns.
            generator: CPU generator of phases that the image does not determine; ``None`` is one seeded with 0.

        Returns:
            (C, T) float32, scaled down only where it would clip.

        Raises:
            RiffError: wrong shape, NaN pixels, no tempo on the beats grid, unknown quality.
        """
        if isinstance(image, Encoded):
            samples = image.samples if samples is None and bpm is None else samples
            bpm = image.bpm if bpm is None else bpm
            max_value = image.max_value if max_value is None else max_value
            image = image.image
        image = _floating(image, "the image")
        mel = image_to_mel(image, self.config, max_value=max_value)
        unknown = self.config.amplitude == "power" and max_value is None
        if unknown:
            mel = mel / mel.max().clamp(min=1e-12)  # far from float32's ends
        waveform = mel_to_waveform(mel, self.config, bpm=bpm, quality=quality, loop=loop, generator=generator)
        if samples is not None and not loop:
            waveform = self._cut(waveform, image.shape[-1], samples, bpm)
        if unknown or float(waveform.abs().max()) > 1.0:
            return peak_normalize(waveform)
        return waveform

    def _cut(self, waveform: Tensor, columns: int, samples: int, bpm: float | TempoMap | None) -> Tensor:
        """``waveform`` at the length that was encoded, if that lies in the image's last column."""
        least = self.config.frames_to_samples(columns - 1, bpm=bpm)
        # A stub of up to 1 % of a column opened none of its own.
        most = waveform.shape[-1] + 0.01 * (waveform.shape[-1] - least) + 1
        if not least < samples <= most:
            return waveform
        return torch.nn.functional.pad(waveform, (0, max(0, samples - waveform.shape[-1])))[..., :samples]


def _floating(values: Tensor | np.ndarray, name: str) -> Tensor:
    """An array or tensor as a float32 or float64 tensor."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RiffError(f"{name} is {type(values).__name__}; use a tensor or an array of floats") from error
    if not tensor.is_floating_point():
        raise RiffError(f"{name} holds {tensor.dtype}; use floats (integers divided by their full scale)")
    return tensor if tensor.dtype == torch.float64 else tensor.float()
