"""Waveform to mel spectrogram, on either grid and at any tempo, and the filterbank that it is made with."""

import functools
import math

import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError, checkpoint
from riff.utils.validation import check_default_dtype

_FRAMES = 256  # analysed at once: their spectra are 8 to 80 times the sound
_FILTERS = 32  # computed at once: in double precision all of them are ten times the sound


def waveform_to_mel(waveform: Tensor, config: SpectrogramConfig, *, bpm: float | TempoMap | None = None) -> Tensor:
    """Mel magnitudes of a sound, one column per grid step, the first one centred on the first sample.

    Args:
        waveform: (..., C, T) in [-1, 1], C = ``config.channels``.
        config: geometry; on the beats grid a column is ``1 / frames_per_beat`` of a beat.
        bpm: tempo of the sound in beats per minute, or its map, whose beat 0 is the first sample; needed on the beats
            grid, unused on the other.

    Returns:
        (..., C, M, N) float32 >= 0. N is T in columns, rounded up, so nothing of the sound is left out; a last
        stub of under 1 % of a column (rounding of the beat's length) opens no column.

    Raises:
        RiffError: wrong number of channels, no samples, or no tempo on the beats grid.
    """
    check_default_dtype()
    if waveform.ndim < 2 or waveform.shape[-2] != config.channels:
        raise RiffError(
            f"waveform has shape {tuple(waveform.shape)}; this config needs (..., {config.channels}, samples)"
        )
    n_samples = waveform.shape[-1]
    if n_samples == 0:
        raise RiffError("the waveform is empty; at least one sample is needed")
    columns = torch.arange(count_columns(n_samples, config, bpm), dtype=torch.float64)
    centres = _columns_to_samples(columns, config, bpm).round().long().clamp(max=n_samples - 1)
    return _mel_at(stereo_to_channels(waveform.float(), config), centres.to(waveform.device), config)


def _mel_at(waveform: Tensor, centres: Tensor, config: SpectrogramConfig) -> Tensor:
    """Mel magnitudes (..., M, N) of windows centred on the given samples; the sound is mirrored at its ends."""
    half = config.win_length // 2
    *lead, t = waveform.shape
    flat = waveform.reshape(-1, t)
    # Mirroring needs more samples than it mirrors; a clip shorter than the window is continued by silence first.
    if t <= half:
        flat = torch.nn.functional.pad(flat, (0, half + 1 - t))
    padded = torch.nn.functional.pad(flat[:, None], (half, half), mode="reflect")[:, 0]
    padded = torch.nn.functional.pad(padded, (0, config.win_length))
    window = torch.hann_window(config.win_length, dtype=torch.float32, device=waveform.device)
    filters = mel_filterbank(config).to(waveform.device)
    offsets = torch.arange(config.win_length, device=waveform.device)
    mel = torch.empty(len(flat), config.n_mels, len(centres), dtype=torch.float32, device=waveform.device)
    for row, sound in zip(mel, padded, strict=True):
        for start in range(0, len(centres), _FRAMES):
            checkpoint()
            frames = sound[centres[start : start + _FRAMES, None] + offsets] * window
            row[:, start : start + _FRAMES] = filters @ torch.fft.rfft(frames, n=config.n_fft).abs().T
    return mel.reshape(*lead, config.n_mels, len(centres))


@functools.lru_cache(maxsize=8)
def mel_filterbank(config: SpectrogramConfig, n_fft: int | None = None) -> Tensor:
    """Triangular filters that are equally spaced on the mel scale.

    Args:
        config: band, scale and norm.
        n_fft: transform length whose bins the filters weigh; default ``config.n_fft``.

    Returns:
        (M, F) weights, F = n_fft // 2 + 1, float32. Area norm: Slaney (1998).
    """
    size = n_fft or config.n_fft
    bins = torch.linspace(0.0, config.sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    corners = torch.tensor(config.mel_corners(), dtype=torch.float64)
    weights = torch.empty(config.n_mels, len(bins), dtype=torch.float32)
    # A few at a time: in double precision all of them are ten times the sound.
    for start in range(0, config.n_mels, _FILTERS):
        low, peak, high = (corners[start + corner :][:_FILTERS, None] for corner in range(3))
        low, peak = low[: len(high)], peak[: len(high)]
        triangles = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp(min=0.0)
        if config.norm == "slaney":
            triangles *= 2.0 / (high - low)
        weights[start : start + _FILTERS] = triangles
    return weights


def samples_to_columns(samples: Tensor, config: SpectrogramConfig, bpm: float | TempoMap | None) -> Tensor:
    """Where samples lie on the grid, float64."""
    if config.grid == "beats" and isinstance(bpm, TempoMap) and bpm.steady is None:
        return bpm.beats_at(samples / config.sample_rate) * config.frames_per_beat
    return samples / config.column_samples(bpm=bpm)


def count_columns(n_samples: int, config: SpectrogramConfig, bpm: float | TempoMap | None = None) -> int:
    """Columns of a sound's image; a last stub of under 1 % of a column opens none."""
    columns = float(samples_to_columns(torch.tensor(n_samples, dtype=torch.float64), config, bpm))
    return max(1, math.ceil(columns - 0.01))


def _columns_to_samples(columns: Tensor, config: SpectrogramConfig, bpm: float | TempoMap | None) -> Tensor:
    if config.grid == "beats" and isinstance(bpm, TempoMap) and bpm.steady is None:
        return bpm.seconds_at(columns / config.frames_per_beat) * config.sample_rate
    return columns * config.column_samples(bpm=bpm)


def stereo_to_channels(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """Left and right (..., 2, T) as the config's channels; mono as it is."""
    if config.channels == 2 and config.stereo == "mid-side":
        left, right = waveform.unbind(-2)
        return torch.stack([(left + right) / 2, (left - right) / 2], dim=-2)
    return waveform


def channels_to_stereo(waveform: Tensor, config: SpectrogramConfig) -> Tensor:
    """The inverse of :func:`stereo_to_channels`."""
    if config.channels == 2 and config.stereo == "mid-side":
        mid, side = waveform.unbind(-2)
        return torch.stack([mid + side, mid - side], dim=-2)
    return waveform
