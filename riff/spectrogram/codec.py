"""Sound to picture and back in one object, with what a picture cannot hold kept beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from riff.audio.loudness import peak_normalize
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError
from riff.utils.validation import positive_number

MAX_SECONDS = 7200.0  # a stranger's tempo map may make hours of a few columns


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A picture of a sound.

    Attributes:
        image: (C, M, N) in [0, 1], row 0 the highest frequency.
        max_value: mel magnitude of black on the power scale, so that loudness survives; None on the decibel scale.
        bpm: tempo or tempo map by which the columns were cut; None on the seconds grid.
    """

    image: Tensor
    max_value: float | None = None
    bpm: float | TempoMap | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What :func:`riff.write_png` should keep, so that a picture can be played without being asked anything.

        ``max_value``; and ``bpm``, or ``tempo``, a :class:`riff.spectrogram.tempo.TempoMap` as JSON, where the tempo changes.
        """
        fields: dict[str, Any] = {"max_value": self.max_value}
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
        name: str = "the picture",
    ) -> "Encoded":
        """The inverse of :attr:`metadata`, out of a file that anybody may have written.

        Args:
            image: (C, M, N) in [0, 1].
            config: of the picture.
            made: what is written beside it, as :func:`riff.read_png` gives it.
            bpm: taken in place of what is written.
            name: of the picture, in errors.

        Returns:
            The picture; ``bpm`` is None on the seconds grid, and where nobody says it.

        Raises:
            RiffError: the tempo map is damaged, or makes more than two hours of the picture.
        """
        if config.grid == "seconds":
            bpm = None
        elif bpm is None and "tempo" not in made:
            bpm = positive_number(made.get("bpm"))
        elif bpm is None:
            try:
                bpm = TempoMap.from_dict(made["tempo"])
                seconds = float(bpm.seconds_at(image.shape[-1] / config.frames_per_beat))
                if not 0.0 < seconds <= MAX_SECONDS:
                    raise RiffError(f"it makes {seconds:.4g} s of the picture")
            except RiffError as error:
                raise RiffError(f"{name} has a damaged tempo map: {error}; give its bpm") from error
        return cls(image, positive_number(made.get("max_value")), bpm)


@dataclasses.dataclass(frozen=True)
class SpectrogramCodec:
    """Waveforms to pictures and pictures to waveforms, for one config.

    Attributes:
        config: geometry and amplitude scale; default riff-mini's.
    """

    config: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)

    def encode(self, waveform: Tensor, *, bpm: float | TempoMap | None = None) -> Encoded:
        """Draw a sound.

        Args:
            waveform: (C, T) in [-1, 1] at ``config.sample_rate``, C = ``config.channels``.
            bpm: tempo or tempo map of the sound; needed on the beats grid.

        Raises:
            RiffError: wrong shape, samples that are not finite, no tempo on the beats grid.
        """
        if not bool(torch.isfinite(waveform).all()):
            raise RiffError("the sound holds NaN or infinite samples; no picture can be drawn of it")
        mel = waveform_to_mel(waveform, self.config, bpm=bpm)
        on_beats = bpm if self.config.grid == "beats" else None
        if self.config.amplitude == "decibel":
            return Encoded(mel_to_image(mel, self.config), bpm=on_beats)
        loudest = float(mel.max())
        image = mel_to_image(mel, self.config)
        return Encoded(image, max_value=loudest if loudest > 0 else None, bpm=on_beats)

    def decode(
        self,
        image: Tensor,
        *,
        bpm: float | TempoMap | None = None,
        max_value: float | None = None,
        quality: Quality = "default",
        loop: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Play a picture.

        Args:
            image: (C, M, N) in [0, 1].
            bpm: tempo or tempo map to play it by; needed on the beats grid.
            max_value: mel magnitude of black on the power scale. Without it the loudness is unknown, and the sound
                is brought to a peak of 0.89.
            quality: see :func:`riff.mel_to_waveform`.
            loop: whether the end leads back into the start.
            generator: CPU generator of phases that the picture does not tell; ``None`` is one seeded with 0.

        Returns:
            (C, T) float32, scaled down only where it would clip.

        Raises:
            RiffError: wrong shape, NaN pixels, no tempo on the beats grid, unknown quality.
        """
        mel = image_to_mel(image, self.config, max_value=max_value)
        if self.config.amplitude == "power" and max_value is None:
            mel = mel / mel.max().clamp(min=1e-12)  # far from float32's ends
        waveform = mel_to_waveform(mel, self.config, bpm=bpm, quality=quality, loop=loop, generator=generator)
        unknown = self.config.amplitude == "power" and max_value is None
        if unknown or float(waveform.abs().max()) > 1.0:
            return peak_normalize(waveform)
        return waveform
