"""Waveform to mel spectrogram and back: framing on either grid, filterbank, inverse mel, phase recovery."""

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.phase import griffin_lim, magnitude_to_phase


def _hz_to_mel(hz: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + hz / 700.0)
    linear = hz * 3.0 / 200.0
    return torch.where(hz < 1000.0, linear, 15.0 + 27.0 * torch.log(hz.clamp(min=1e-9) / 1000.0) / math.log(6.4))


def _mel_to_hz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


@functools.lru_cache(maxsize=8)
def mel_filterbank(config: SpectrogramConfig, n_fft: int | None = None) -> Tensor:
    """Triangular filters that are equally spaced on the mel scale.

    Args:
        config: band, scale and norm.
        n_fft: transform length whose bins the filters weigh; default ``config.n_fft``.

    Returns:
        (M, F) weights, F = n_fft // 2 + 1, float32. HTK scale: O'Shaughnessy (1987); Slaney scale and area norm:
        Slaney (1998).
    """
    size = n_fft or config.n_fft
    bins = torch.linspace(0.0, config.sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    limits = torch.tensor([config.f_min, config.f_max], dtype=torch.float64)
    low, high = _hz_to_mel(limits, config.mel_scale)
    points = torch.linspace(float(low), float(high), config.n_mels + 2, dtype=torch.float64)
    corners = _mel_to_hz(points, config.mel_scale)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    weights = torch.minimum(rising, falling).clamp(min=0.0)
    if config.norm == "slaney":
        weights = weights * (2.0 / (corners[2:] - corners[:-2]))[:, None]
    return weights.float()


def _stereo_to_channels(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    if config.channels == 2 and config.stereo == "mid-side":
        left, right = waveform.unbind(-2)
        return torch.stack([(left + right) / 2, (left - right) / 2], dim=-2)
    return waveform


def _channels_to_stereo(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    if config.channels == 2 and config.stereo == "mid-side":
        mid, side = waveform.unbind(-2)
        return torch.stack([mid + side, mid - side], dim=-2)
    return waveform


def _frames_at(waveform: Tensor, centres: Tensor, config: SpectrogramConfig) -> Tensor:
    """Magnitudes (..., F, N) of windows centred on the given samples; the sound is mirrored at its ends."""
    half = config.win_length // 2
    *lead, t = waveform.shape
    flat = waveform.reshape(-1, t)
    # Mirroring needs more samples than it mirrors; a clip shorter than the window is continued by silence first.
    if t <= half:
        flat = torch.nn.functional.pad(flat, (0, half + 1 - t))
    padded = torch.nn.functional.pad(flat[:, None], (half, half), mode="reflect")[:, 0]
    padded = torch.nn.functional.pad(padded, (0, config.win_length))
    window = torch.hann_window(config.win_length, device=waveform.device)
    index = centres[:, None] + torch.arange(config.win_length, device=waveform.device)
    # One clip at a time: the windows of a clip are 8 to 40 times its samples.
    spectra = [torch.fft.rfft(row[index] * window, n=config.n_fft).abs().T for row in padded]
    return torch.stack(spectra).reshape(*lead, config.n_fft // 2 + 1, len(centres))


def waveform_to_mel(waveform: Tensor, config: SpectrogramConfig, *, bpm: float | None = None) -> Tensor:
    """Mel magnitudes of a sound, one column per grid step, the first one centred on the first sample.

    Args:
        waveform: (..., C, T) in [-1, 1], C = ``config.channels``.
        config: geometry; on the beats grid a column is ``1 / frames_per_beat`` of a beat.
        bpm: tempo of the sound in beats per minute; needed on the beats grid, unused on the other.

    Returns:
        (..., C, M, N) float32 >= 0. N is T in columns, rounded up, so nothing of the sound is left out; a last
        stub of under 1 % of a column (rounding of the beat's length) opens no column.

    Raises:
        RiffError: wrong number of channels, no samples, or no tempo on the beats grid.
    """
    if waveform.ndim < 2 or waveform.shape[-2] != config.channels:
        raise RiffError(
            f"waveform has shape {tuple(waveform.shape)}; this config needs (..., {config.channels}, samples)"
        )
    n_samples = waveform.shape[-1]
    if n_samples == 0:
        raise RiffError("the waveform is empty; at least one sample is needed")
    column = config.column_samples(bpm=bpm)
    n_frames = max(1, math.ceil(n_samples / column - 0.01))
    centres = (torch.arange(n_frames, dtype=torch.float64) * column).round().long().clamp(max=n_samples - 1)
    magnitudes = _frames_at(_stereo_to_channels(waveform.float(), config), centres.to(waveform.device), config)
    return mel_filterbank(config).to(waveform.device) @ magnitudes


def mel_to_linear(mel: Tensor, config: SpectrogramConfig, *, n_fft: int, n_iter: int = 5) -> Tensor:
    """Non-negative linear-frequency magnitudes whose mel is close to the given one.

    Args:
        mel: (..., M, N) >= 0.
        config: the filterbank's geometry.
        n_fft: transform length of the result, F = n_fft // 2 + 1.
        n_iter: multiplicative corrections.

    Returns:
        (..., F, N) >= 0, by multiplicative updates A <- A * D B' (m / B A)^1.5 with D = 1 / B'1 (after Richardson,
        1972, and Lucy, 1974; the exponent over-relaxes).
    """
    fine = mel_filterbank(config).to(mel)
    ratio = config.n_fft / n_fft
    if n_fft == config.n_fft:
        basis = fine
    else:
        # The mel was measured on the fine bins; write each of those as an interpolation of two coarse bins.
        position = torch.arange(fine.shape[1], device=mel.device, dtype=torch.float64) / ratio
        below = position.floor().long().clamp(max=n_fft // 2)
        above = (below + 1).clamp(max=n_fft // 2)
        weight = (position - below).to(fine)
        basis = torch.zeros(fine.shape[0], n_fft // 2 + 1).to(mel)
        basis.index_add_(1, below, fine * (1 - weight))
        basis.index_add_(1, above, fine * weight)
    tiny = 1e-12
    back = basis.T / basis.sum(0)[:, None].clamp(min=tiny)
    linear = back @ (mel / basis.sum(1)[:, None].clamp(min=tiny))
    for _ in range(n_iter):
        linear = linear * (back @ (mel / (basis @ linear).clamp(min=tiny)).pow(1.5))
    return linear


def _synthesis_columns(mel: Tensor, column: float, hop: int, n_samples: int) -> Tensor:
    """Resample the mel along time from the grid to frames every ``hop`` samples (first one on sample 0)."""
    n_out = n_samples // hop + 1
    position = torch.arange(n_out, device=mel.device, dtype=torch.float64) * hop / column
    position = position.clamp(max=mel.shape[-1] - 1)
    below = position.floor().long().clamp(max=mel.shape[-1] - 1)
    above = (below + 1).clamp(max=mel.shape[-1] - 1)
    weight = (position - below).to(mel)
    # Between columns loudness moves evenly in decibels, not in amplitude: decays stay exponential.
    floor = mel.amax((-2, -1), keepdim=True).clamp(min=1e-12) * 1e-6
    log = (mel + floor).log()
    return (torch.lerp(log[..., below], log[..., above], weight).exp() - floor).clamp(min=0.0)


def mel_to_waveform(
    mel: Tensor,
    config: SpectrogramConfig,
    *,
    bpm: float | None = None,
    n_iter: int = 16,
    phase: Literal["guess", "random"] = "guess",
    generator: torch.Generator | None = None,
) -> Tensor:
    """A sound with the given mel magnitudes: inverse mel, then phase recovery, then exact length.

    On the beats grid the columns are first resampled in time, at ``bpm``, to frames every ``config.hop_length``
    samples, so one window and hop serve every tempo.

    Args:
        mel: (..., C, M, N) >= 0, C = ``config.channels``.
        config: geometry.
        bpm: beats per minute; needed on the beats grid.
        n_iter: Griffin-Lim iterations, >= 0.
        phase: start from the phase that the magnitude's slopes imply, or from random phases.
        generator: CPU generator of random phases; ``None`` is one seeded with 0.

    Returns:
        (..., C, T) float32, T = ``config.frames_to_samples(N, bpm=bpm)``.

    Raises:
        RiffError: wrong shape, negative or non-finite magnitudes, no tempo on the beats grid.
    """
    if mel.ndim < 3 or mel.shape[-3] != config.channels or mel.shape[-2] != config.n_mels or mel.shape[-1] < 1:
        raise RiffError(
            f"mel has shape {tuple(mel.shape)}; this config needs (..., {config.channels}, {config.n_mels}, columns)"
        )
    if not bool(torch.isfinite(mel).all()) or bool((mel < 0).any()):
        raise RiffError("mel holds NaN, infinite or negative magnitudes; it must be finite and >= 0")
    if isinstance(n_iter, bool) or not isinstance(n_iter, int) or n_iter < 0:
        raise RiffError(f"n_iter is {n_iter!r}; use a whole number of iterations, 0 or more")
    if phase not in ("guess", "random"):
        raise RiffError(f"phase is {phase!r}; use 'guess' or 'random'")
    length = config.frames_to_samples(mel.shape[-1], bpm=bpm)
    columns = _synthesis_columns(mel.float(), config.column_samples(bpm=bpm), config.hop_length, length)
    # Padding the window refines the picture, not the sound: phase is found on transforms as long as the window.
    n_fft = config.win_length
    magnitude = mel_to_linear(columns, config, n_fft=n_fft)
    geometry = {"n_fft": n_fft, "hop_length": config.hop_length, "win_length": config.win_length}
    waveform = griffin_lim(
        magnitude,
        **geometry,
        # The border frames need half a window of sound on either side: recover a longer one, then cut.
        length=max(length, (magnitude.shape[-1] - 1) * config.hop_length, n_fft),
        n_iter=n_iter,
        phase=magnitude_to_phase(magnitude, **geometry) if phase == "guess" else None,
        generator=generator,
    )[..., :length]
    return _channels_to_stereo(waveform, config)
