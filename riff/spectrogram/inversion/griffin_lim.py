"""Phase without a queue: the textbook's Griffin-Lim, and a first guess that a GPU can make frame by frame."""

import functools
import math

import torch
from torch import Tensor

from riff.spectrogram.inversion.pghi import HANN_GAMMA
from riff.utils.interrupt import checkpoint


def pghi_framewise(
    magnitude: Tensor, *, n_fft: int, hop_length: int, win_length: int, known: Tensor, given: Tensor
) -> Tensor:
    """Phases for STFT magnitudes from the same slopes as :func:`riff.spectrogram.inversion.pghi.pghi`, summed frame by frame.

    Each bin turns on from the frame before at its instantaneous frequency, then leans on its louder neighbours through
    the phase's slope along frequency, which lines up the bins of an attack. All bins of a frame are worked on at once,
    so this suits a GPU; the heap's order comes closer to the truth.

    Args:
        magnitude: (B, N, F) >= 0.
        n_fft: transform length; F = n_fft // 2 + 1 or fewer.
        hop_length: samples between frames.
        win_length: Hann window in samples.
        known: (N,) bool, frames whose phase is given.
        given: (B, N, F) phases of those, in radians.

    Returns:
        (B, N, F) phases in radians, counted from the window's centre.
    """
    gamma = HANN_GAMMA * win_length**2
    log = (magnitude + 1e-7 * magnitude.amax((1, 2), keepdim=True).clamp(min=1e-30)).log()
    bins = torch.arange(magnitude.shape[2], device=magnitude.device, dtype=torch.float64)
    turn = (2.0 * math.pi * hop_length / n_fft * bins).remainder(2.0 * math.pi).to(log)
    turn = turn + hop_length * n_fft / gamma * torch.gradient(log, dim=2)[0]
    rate = 0.25 * win_length / (math.pi * hop_length)
    lean = -2.0 * win_length / n_fft * (rate * (log.roll(-1, 1) - log.roll(1, 1))).atan()
    step = torch.polar(torch.ones_like(turn), torch.cat([turn[:, :1], (turn[:, 1:] + turn[:, :-1]) / 2], dim=1))
    slope = torch.polar(torch.ones_like(lean[..., 1:]), (lean[..., 1:] + lean[..., :-1]) / 2)
    settled = torch.polar(torch.ones_like(given), given)
    power = magnitude.square()
    phase = torch.empty_like(step)
    current = torch.ones_like(step[:, 0])
    for frame, given_here in enumerate(known.tolist()):
        if given_here:
            current = settled[:, frame]
        else:
            loud = power[:, frame] * current * step[:, frame]
            leaning = loud.clone()
            leaning[:, 1:] += loud[:, :-1] * slope[:, frame]
            leaning[:, :-1] += loud[:, 1:] * slope[:, frame].conj()
            current = torch.sgn(leaning + 1e-20)
        phase[:, frame] = current
    return phase.angle()


def griffin_lim(
    magnitude: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int,
    length: int,
    n_iter: int = 32,
    momentum: float = 0.99,
    phase: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A waveform whose STFT has the given magnitudes, by the fast Griffin-Lim iteration.

    Griffin & Lim (1984), with the momentum of Perraudin, Balazs & Søndergaard (2013). Random starting phases are
    drawn on the CPU, so a seed is the same sound on every device.

    Args:
        magnitude: (..., F, N), F = n_fft // 2 + 1; frame n is centred on sample n * hop_length.
        n_fft: transform length in samples.
        hop_length: samples between frames.
        win_length: Hann window in samples.
        length: samples to return.
        n_iter: iterations, >= 1.
        momentum: 0 is the plain algorithm; below 1.
        phase: (..., F, N) starting phasors, complex of modulus 1; ``None`` draws uniformly random ones.
        generator: CPU source of those; ``None`` is a generator seeded with 0.

    Returns:
        (..., length) float32.
    """
    *lead, n_bins, n_frames = magnitude.shape
    flat = magnitude.reshape(-1, n_bins, n_frames)
    window = torch.hann_window(win_length, device=magnitude.device)
    stft = functools.partial(
        torch.stft,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        window=window,
        return_complex=True,
    )
    istft = functools.partial(
        torch.istft, n_fft=n_fft, hop_length=hop_length, win_length=win_length, window=window, length=length
    )
    if phase is None:
        generator = generator or torch.Generator().manual_seed(0)
        angle = torch.rand(flat.shape, generator=generator).to(magnitude.device) * (2 * math.pi)
        phase = torch.polar(torch.ones_like(angle), angle)
    current = phase.reshape(flat.shape)
    previous = torch.zeros_like(current)
    keep = momentum / (1 + momentum)
    for _ in range(n_iter):
        checkpoint()
        rebuilt = stft(istft(flat * current))[..., :n_frames]
        current = torch.sgn(rebuilt - keep * previous)
        previous = rebuilt
    return istft(flat * current).reshape(*lead, length)
