"""Where quality is lost on the way from sound to image and back: the ladder, rung by rung.

A sound goes to a mel spectrogram and back, then by way of a image in 8 bits as well, then by way of a checkpoint's
latents too; each return is compared with the sound that went in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from riff.evaluate.figures import Figure, mean_figure
from riff.evaluate.sounds import Sound
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from riff.spectrogram.config import Quality

RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # n_fft, hop, window (Yamamoto et al. 2020)
FLOOR = 1e-7  # of a magnitude, under a logarithm
RUNGS = ("mel", "8-bit image", "latents")
EVEN = 120.0
LONGEST = 60.0  # seconds of a sound that make the trip


@dataclasses.dataclass(frozen=True)
class Trip:
    """One sound's return from one rung.

    Attributes:
        rung: one of ``RUNGS``.
        convergence: spectral convergence, of magnitudes of 2048 samples.
        log_distance: log-spectral distance in dB.
        multi: multi-resolution STFT distance.
        onsets: correlation of onset strengths, -1..1; NaN where there are none.
    """

    rung: str
    convergence: float
    log_distance: float
    multi: float
    onsets: float


def round_trip(
    sound: Sound,
    config: SpectrogramConfig | None = None,
    *,
    vae: AutoencoderKL | None = None,
    quality: Quality = "default",
) -> list[Trip]:
    """Send a sound down the ladder and back, its first minute.

    Args:
        sound: any; mono, or what the config's channels make of it.
        config: of the images; default riff-mini's.
        vae: a checkpoint's autoencoder, for the rung of latents.
        quality: of the inversion.

    Returns:
        A trip for each rung, the way back being longer each time.

    Raises:
        RiffError: the sound is silent or shorter than a quarter of a second.
    """
    config = config or SpectrogramConfig()
    if sound.seconds < 0.25 or float(sound.waveform.abs().max()) < 1e-4:
        raise RiffError(
            f"{sound.path}: {sound.seconds:.2f} s at this level cannot go round; use 0.25 s of sound or more"
        )
    original = _fitted(sound, config)
    names = RUNGS if vae is not None else RUNGS[:2]
    returns = zip(names, _returns(original, config, vae, quality), strict=True)
    return [compare(original, returned, config.sample_rate, rung=rung) for rung, returned in returns]


def trip_figures(trips: Sequence[Sequence[Trip]]) -> list[Figure]:
    """Figures over sounds, rung by rung.

    Args:
        trips: of each sound, as :func:`round_trip` gives them.
    """
    figures = []
    for rung in RUNGS:
        found = [trip for each in trips for trip in each if trip.rung == rung]
        if not found:
            continue
        for field, name, unit, definition in _MEASURES:
            values = [float(getattr(trip, field)) for trip in found]
            figures.append(mean_figure(f"{name}, from {rung}", values, unit, definition))
    return figures


_MEASURES = (
    ("convergence", "Spectral convergence", "", "|S - S'| / |S| of magnitudes (Arik et al. 2019); 0 is equal."),
    (
        "log_distance",
        "Log-spectral distance",
        "dB",
        "RMS over bins of the ratio in dB, mean of frames (Gray & Markel).",
    ),
    (
        "multi",
        "Multi-resolution STFT distance",
        "",
        "Spectral convergence plus mean difference of log magnitudes, at three resolutions (Yamamoto et al. 2020).",
    ),
    ("onsets", "Onset correlation", "", "Pearson's of onset strengths 6 ms apart; 1 is equal."),
)


def compare(original: Tensor, returned: Tensor, sample_rate: int, *, rung: str = "mel") -> Trip:
    """How much two sounds differ, phase apart.

    Args:
        original: (C, T).
        returned: (C, T'), of which the common length counts.
        sample_rate: of both, in Hz.
        rung: name of the trip.
    """
    length = min(original.shape[-1], returned.shape[-1])
    a, b = original[..., :length].double(), returned[..., :length].double()
    return Trip(
        rung,
        spectral_convergence(a, b),
        log_spectral_distance(a, b),
        multi_resolution_distance(a, b),
        onset_correlation(a, b, sample_rate),
    )


def spectral_convergence(original: Tensor, returned: Tensor) -> float:
    """``|| |S| - |S'| ||_F / || |S| ||_F`` (Arik et al. 2019), transforms of 2048 samples; sounds (C, T)."""
    a, b = (_magnitude(sound, 2048, 512, 2048) for sound in (original, returned))
    return float((a - b).norm() / a.norm().clamp_min(1e-12))


def log_spectral_distance(original: Tensor, returned: Tensor) -> float:
    """Root mean square over bins of ``20 log10 (|S| / |S'|)``, mean over frames (Gray & Markel 1976), in dB.

    Magnitudes count down to 80 dB below the original's largest: silence against near silence is no difference.
    """
    a, b = (_magnitude(sound, 2048, 512, 2048) for sound in (original, returned))
    floor = float(a.max()) * 1e-4 + FLOOR
    ratio = 20.0 * (a.clamp_min(floor).log10() - b.clamp_min(floor).log10())
    return float(ratio.square().mean(-2).sqrt().mean())


def multi_resolution_distance(original: Tensor, returned: Tensor) -> float:
    """Spectral convergence and mean absolute difference of log magnitudes, added, mean of three resolutions.

    As the loss of Parallel WaveGAN (Yamamoto et al. 2020), with its resolutions.
    """
    parts = []
    for n_fft, hop, window in RESOLUTIONS:
        a, b = (_magnitude(sound, n_fft, hop, window).clamp_min(FLOOR**0.5) for sound in (original, returned))
        parts.append(float((a - b).norm() / a.norm()) + float((a.log() - b.log()).abs().mean()))
    return sum(parts) / len(parts)


def onset_correlation(original: Tensor, returned: Tensor, sample_rate: int) -> float:
    """Pearson's correlation of the rises of two sounds' log magnitudes, every 6 ms; NaN where one has none."""
    hop = max(1, round(0.006 * sample_rate))
    window = 4 * hop
    rises = []
    for sound in (original, returned):
        magnitude = _magnitude(sound.mean(0, keepdim=True), window, hop, window)[0]
        loud = torch.log1p(100.0 * magnitude / magnitude.max().clamp_min(1e-12))
        rises.append(loud.diff(dim=-1).clamp_min(0.0).sum(0).numpy())
    if min(float(np.std(rise)) for rise in rises) < 1e-9:
        return math.nan
    return float(np.corrcoef(rises[0], rises[1])[0, 1])


def _magnitude(sound: Tensor, n_fft: int, hop: int, window: int) -> Tensor:
    """(C, F, N)."""
    short = max(0, n_fft // 2 + 1 - sound.shape[-1])
    padded = torch.nn.functional.pad(sound, (0, short))
    shape = torch.hann_window(window, dtype=sound.dtype)
    return torch.stft(padded, n_fft, hop, window, shape, return_complex=True).abs()


def _fitted(sound: Sound, config: SpectrogramConfig) -> Tensor:
    """(C, T) at the config's rate and channels, at the level that its scale knows, padded to a grid that holds it."""
    from riff.audio.io import resample
    from riff.evaluate.embeddings import level

    part = sound.waveform[..., : round(LONGEST * sound.sample_rate)]
    part = part.mean(0, keepdim=True) if config.channels == 1 else part[:2].expand(2, -1)
    return level(resample(part, sound.sample_rate, config.sample_rate))


def _returns(original: Tensor, config: SpectrogramConfig, vae: AutoencoderKL | None, quality: Quality) -> list[Tensor]:
    """The sounds that come back: from the mel, from the image in 8 bits, and from the latents of that image."""
    from riff.diffusion.latents import downsampling, image_to_latents, latents_to_image
    from riff.spectrogram.image import image_to_mel, mel_to_image
    from riff.spectrogram.inversion.waveform import mel_to_waveform
    from riff.spectrogram.mel import waveform_to_mel

    bpm = EVEN if config.grid == "beats" else None
    mel = waveform_to_mel(original, config, bpm=bpm)
    loudest = float(mel.max()) if config.amplitude == "power" else None
    image = (mel_to_image(mel, config) * 255.0).round() / 255.0
    mels = [mel, image_to_mel(image, config, max_value=loudest)]
    if vae is not None:
        factor = downsampling(vae)
        columns = math.ceil(image.shape[-1] / factor) * factor
        # Silence beyond the end, as a model's images have it.
        blank = 0.0 if config.amplitude == "decibel" else 1.0
        padded = torch.nn.functional.pad(image, (0, columns - image.shape[-1]), value=blank)
        latents = image_to_latents(padded[None], vae)
        drawn = latents_to_image(latents, vae, channels=image.shape[0])[0].cpu()[..., : image.shape[-1]]
        mels.append(image_to_mel(drawn, config, max_value=loudest))
    return [mel_to_waveform(each, config, bpm=bpm, quality=quality) for each in mels]
