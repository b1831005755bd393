"""The textbook's Griffin-Lim from random phases: the baseline, and the only one that knows no slopes."""

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from riff.spectrogram.inversion.stft import CircularSTFT
from riff.utils.interrupt import checkpoint


def griffin_lim(
    magnitude: Tensor,
    stft: CircularSTFT,
    *,
    length: int,
    n_iter: int = 32,
    momentum: float = 0.99,
    phase: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A waveform whose STFT has the given magnitudes, by the fast Griffin-Lim iteration.

    Griffin & Lim (1984), with the momentum of Perraudin, Balazs & Søndergaard (2013). torchaudio's ``GriffinLim`` is the
    same iteration (a test compares them), but it samples its phases from PyTorch's global generator. Here a seed is the
    same sound on every device.

    Args:
        magnitude: (..., F, N), F = n_fft // 2 + 1; frame n is centred on sample n * hop_length, and does not wrap.
        stft: transform, hop and Hann window.
        length: samples to return.
        n_iter: iterations, >= 1.
        momentum: 0 is the plain algorithm; below 1.
        phase: (..., F, N) starting phasors, complex of modulus 1; ``None`` samples uniformly random ones.
        generator: CPU source of those; ``None`` is a generator seeded with 0.

    Returns:
        (..., length) float32.
    """
    *lead, n_bins, n_frames = magnitude.shape
    flat = magnitude.reshape(-1, n_bins, n_frames)
    geometry: dict[str, Any] = dataclasses.asdict(stft) | {"window": stft.window.to(magnitude.device)}
    to_frames: Any = functools.partial(torch.stft, **geometry, return_complex=True)
    to_sound: Any = functools.partial(torch.istft, **geometry, length=length)
    if phase is None:
        generator = generator or torch.Generator().manual_seed(0)
        angle = torch.rand(flat.shape, generator=generator, dtype=torch.float32).to(magnitude.device) * (2 * math.pi)
        phase = torch.polar(torch.ones_like(angle), angle)
    current = phase.reshape(flat.shape)
    previous = torch.zeros_like(current)
    keep = momentum / (1 + momentum)
    for _ in range(n_iter):
        checkpoint()
        rebuilt = to_frames(to_sound(flat * current))[..., :n_frames]
        current = torch.sgn(rebuilt - keep * previous)
        previous = rebuilt
    sound: Tensor = to_sound(flat * current)
    return sound.reshape(*lead, length)
