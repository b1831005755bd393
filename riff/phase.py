"""Magnitudes to a waveform: a first guess of the phase from the magnitude's own slopes, then Griffin-Lim."""

import functools
import math

import torch
from torch import Tensor

# A Hann window of W samples is closest to a Gaussian exp(-pi t^2 / gamma) with gamma = 0.25645 W^2
# (Průša, Balazs & Søndergaard, 2017).
HANN_GAMMA = 0.25645


def magnitude_to_phase(magnitude: Tensor, *, n_fft: int, hop_length: int, win_length: int) -> Tensor:
    """Unit phasors for STFT magnitudes, from the slopes of the log-magnitude.

    For a Gaussian window the phase's derivatives are those of the log-magnitude with the axes exchanged (Portnoff,
    1979; Průša, Balazs & Søndergaard, 2017). They are summed frame by frame here: each bin turns on from the frame
    before at its instantaneous frequency, then leans on its louder neighbours through the phase's slope along
    frequency, which lines up the bins of an attack.

    Args:
        magnitude: (..., F, N), F = n_fft // 2 + 1; frame n is centred on sample n * hop_length.
        n_fft: transform length in samples.
        hop_length: samples between frames.
        win_length: Hann window in samples.

    Returns:
        (..., F, N) complex64 of modulus 1, for frames whose phase counts from the frame's first sample.
    """
    gamma = HANN_GAMMA * win_length**2
    log = (magnitude + 1e-7 * magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)).log()
    bins = torch.arange(magnitude.shape[-2], device=magnitude.device, dtype=torch.float64)
    along_frequency = torch.gradient(log, dim=-2)[0]
    centre = (2.0 * math.pi * hop_length / n_fft * bins).remainder(2.0 * math.pi).to(log)
    turn = centre[:, None] + hop_length * n_fft / gamma * along_frequency
    along_time = torch.gradient(log, dim=-1)[0] if log.shape[-1] > 1 else torch.zeros_like(log)
    lean = -gamma / (hop_length * n_fft) * along_time
    step = torch.polar(torch.ones_like(turn), torch.cat([turn[..., :1], (turn[..., 1:] + turn[..., :-1]) / 2], -1))
    slope = torch.polar(torch.ones_like(lean[..., 1:, :]), (lean[..., 1:, :] + lean[..., :-1, :]) / 2)
    power = magnitude.square()
    phase = torch.ones_like(step)
    current = torch.ones_like(step[..., 0])
    for frame in range(magnitude.shape[-1]):
        loud = power[..., frame] * current * step[..., frame]
        up, down = slope[..., frame], slope[..., frame].conj()
        leaning = loud.clone()
        leaning[..., 1:] += loud[..., :-1] * up
        leaning[..., :-1] += loud[..., 1:] * down
        current = torch.sgn(leaning + 1e-20)
        phase[..., frame] = current
    # The slopes hold for phases counted from the window's centre; move the count to the frame's first sample.
    back = (2.0 * math.pi * (n_fft // 2) / n_fft * bins).remainder(2.0 * math.pi).to(log)
    return phase * torch.polar(torch.ones_like(back), -back)[:, None]


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
        rebuilt = stft(istft(flat * current))[..., :n_frames]
        current = torch.sgn(rebuilt - keep * previous)
        previous = rebuilt
    return istft(flat * current).reshape(*lead, length)
