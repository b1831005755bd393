"""Waveform to mel spectrogram and back, on either grid and at any tempo."""

import dataclasses
import math

import torch
from torch import Tensor

from riff.blocks import MelFrames, frames_to_waveform
from riff.config import SpectrogramConfig
from riff.engine import filters_of, mel_to_linear
from riff.errors import RiffError
from riff.filterbank import mel_filterbank
from riff.inversion import PRESETS, QUALITIES, Preset, Quality
from riff.phase import griffin_lim
from riff.ring import resize_ring
from riff.tempo import TempoMap

_CHUNK = 256  # frames analysed at once


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
    window = torch.hann_window(config.win_length, device=waveform.device)
    filters = mel_filterbank(config).to(waveform.device)
    offsets = torch.arange(config.win_length, device=waveform.device)
    mel = torch.empty(len(flat), config.n_mels, len(centres), device=waveform.device)
    # A few frames at a time: their spectra are 8 to 80 times the sound.
    for row, sound in zip(mel, padded, strict=True):
        for start in range(0, len(centres), _CHUNK):
            frames = sound[centres[start : start + _CHUNK, None] + offsets] * window
            row[:, start : start + _CHUNK] = filters @ torch.fft.rfft(frames, n=config.n_fft).abs().T
    return mel.reshape(*lead, config.n_mels, len(centres))


def _samples_to_columns(samples: Tensor, config: SpectrogramConfig, bpm: float | TempoMap | None) -> Tensor:
    """Where samples lie on the grid, float64."""
    if config.grid == "beats" and isinstance(bpm, TempoMap) and bpm.steady is None:
        return bpm.beats_at(samples / config.sample_rate) * config.frames_per_beat
    return samples / config.column_samples(bpm=bpm)


def _columns_to_samples(columns: Tensor, config: SpectrogramConfig, bpm: float | TempoMap | None) -> Tensor:
    if config.grid == "beats" and isinstance(bpm, TempoMap) and bpm.steady is None:
        return bpm.seconds_at(columns / config.frames_per_beat) * config.sample_rate
    return columns * config.column_samples(bpm=bpm)


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
    if waveform.ndim < 2 or waveform.shape[-2] != config.channels:
        raise RiffError(
            f"waveform has shape {tuple(waveform.shape)}; this config needs (..., {config.channels}, samples)"
        )
    n_samples = waveform.shape[-1]
    if n_samples == 0:
        raise RiffError("the waveform is empty; at least one sample is needed")
    n_columns = float(_samples_to_columns(torch.tensor(n_samples, dtype=torch.float64), config, bpm))
    columns = torch.arange(max(1, math.ceil(n_columns - 0.01)), dtype=torch.float64)
    centres = _columns_to_samples(columns, config, bpm).round().long().clamp(max=n_samples - 1)
    return _mel_at(_stereo_to_channels(waveform.float(), config), centres.to(waveform.device), config)


def mel_to_waveform(
    mel: Tensor,
    config: SpectrogramConfig,
    *,
    bpm: float | TempoMap | None = None,
    quality: Quality = "default",
    n_iter: int | None = None,
    loop: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A sound with the given mel magnitudes: inverse mel, then phase recovery, then exact length.

    On the beats grid the columns are first resampled in time, through ``bpm``, to frames every ``config.hop_length``
    samples, so one window and hop serve every tempo. Memory does not grow with the length beyond the sound itself.

    Args:
        mel: (..., C, M, N) >= 0, C = ``config.channels``.
        config: geometry.
        bpm: beats per minute, or a map of beats to seconds; needed on the beats grid.
        quality: ``"fast"``, ``"default"``, ``"high"`` or ``"best"``: the more iterations the better; or
            ``"griffin-lim"``, the textbook's (Griffin & Lim, 1984; momentum of Perraudin et al., 2013) from random
            phases.
        n_iter: iterations in place of the quality's, >= 0; Griffin-Lim's are 32.
        loop: whether the end leads back into the start.
        generator: CPU generator of phases that the magnitudes do not tell; ``None`` is one seeded with 0.

    Returns:
        (..., C, T) float32, T = ``config.frames_to_samples(N, bpm=bpm)``.

    Raises:
        RiffError: wrong shape, negative or non-finite magnitudes, no tempo on the beats grid, unknown quality.
    """
    _check_mel(mel, config)
    preset = _preset(quality, n_iter)
    if preset is None and loop:
        raise RiffError("quality 'griffin-lim' cannot loop; use fast, default, high or best")
    generator = generator or torch.Generator().manual_seed(0)
    n_samples = config.frames_to_samples(mel.shape[-1], bpm=bpm)
    hop = config.hop_length
    n_frames = max(1, round(n_samples / hop)) if loop else n_samples // hop + 1
    step = n_samples / n_frames if loop else hop

    def columns_at(frames: Tensor) -> Tensor:
        return _samples_to_columns(frames * step, config, bpm)

    frames = MelFrames(mel.float().flatten(0, -3), columns_at, n_frames, loop=loop)
    if preset is None:
        every = torch.arange(n_frames, device=mel.device)
        linear = mel_to_linear(frames.at(every), filters_of(config, 1, 1.0, mel.device))
        waveform = _griffin_lim(linear, config, n_samples, 32 if n_iter is None else n_iter, generator)
    elif loop:
        length = n_frames * hop
        ring = frames_to_waveform(
            frames, config, preset, length=length, stretch=length / n_samples, generator=generator
        )
        waveform = resize_ring(ring, n_samples)
    else:
        waveform = frames_to_waveform(frames, config, preset, length=n_samples, generator=generator)
    return _channels_to_stereo(waveform.reshape(*mel.shape[:-2], n_samples), config)


def _check_mel(mel: Tensor, config: SpectrogramConfig) -> None:
    if mel.ndim < 3 or mel.shape[-3] != config.channels or mel.shape[-2] != config.n_mels or mel.shape[-1] < 1:
        raise RiffError(
            f"mel has shape {tuple(mel.shape)}; this config needs (..., {config.channels}, {config.n_mels}, columns)"
        )
    if not bool(torch.isfinite(mel).all()) or bool((mel < 0).any()):
        raise RiffError("mel holds NaN, infinite or negative magnitudes; it must be finite and >= 0")


def _preset(quality: str, n_iter: int | None) -> Preset | None:
    """The work that a quality is; None is the textbook's."""
    if n_iter is not None and (isinstance(n_iter, bool) or not isinstance(n_iter, int) or n_iter < 0):
        raise RiffError(f"n_iter is {n_iter!r}; use a whole number of iterations, 0 or more")
    if quality == "griffin-lim":
        return None
    if quality not in PRESETS:
        raise RiffError(f"quality is {quality!r}; use {', '.join(QUALITIES)}")
    preset = PRESETS[quality]
    return preset if n_iter is None else dataclasses.replace(preset, n_iter=n_iter)


def _griffin_lim(
    linear: Tensor, config: SpectrogramConfig, n_samples: int, n_iter: int, generator: torch.Generator
) -> Tensor:
    """Magnitudes (B, N, F) of the band to (B, n_samples): the textbook's way, at the output's rate."""
    n_fft = config.win_length
    linear = torch.nn.functional.pad(linear, (0, n_fft // 2 + 1 - linear.shape[-1])).transpose(1, 2)
    sound = griffin_lim(
        linear,
        n_fft=n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        # The border frames need half a window of sound on either side: recover a longer one, then cut.
        length=max(n_samples, (linear.shape[-1] - 1) * config.hop_length, n_fft),
        n_iter=n_iter,
        generator=generator,
    )
    return sound[..., :n_samples]
