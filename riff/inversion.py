"""Mel magnitudes to a waveform: inverse mel, a first phase from the magnitude's slopes, then alternating projections.

The sound is looked for at the lowest rate that holds the band, and drawn at the output's rate in the last step alone.
It lies on a ring of frames: a loop is that ring, a clip is a ring with silent frames between its end and its start.
A long canvas is worked through block by block; each block holds on to the sound that the one before has settled.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.filterbank import mel_filterbank
from riff.heap import heap_phase
from riff.phase import frame_phase
from riff.ring import Ring

Quality = Literal["fast", "default", "high", "best", "griffin-lim"]
BLOCK = 1024  # frames that are worked on at once
TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much work a quality is.

    Attributes:
        padding: transform length, in windows, at which the first phase is found.
        n_iter: fast Griffin-Lim iterations, which hold the linear magnitudes.
        n_mel_iter: iterations that hold the mel magnitudes instead, on transforms of two windows.
        power: over-relaxation of those; 3 diverges.
        momentum: of both (Perraudin, Balazs & Søndergaard, 2013).
    """

    padding: int
    n_iter: int
    n_mel_iter: int
    power: float = 1.8
    momentum: float = 0.99


PRESETS: dict[str, Preset] = {
    "fast": Preset(1, 4, 0),
    "default": Preset(2, 3, 6, 1.5),
    "high": Preset(2, 15, 16, 2.0),
    "best": Preset(2, 30, 64, 2.0),
}
QUALITIES = (*PRESETS, "griffin-lim")


@dataclasses.dataclass(frozen=True)
class Engine:
    """The geometry of one config's inversion.

    Attributes:
        low: ring of one window's transform at the low rate.
        full: the same at the output's rate.
    """

    low: Ring
    full: Ring

    @property
    def n_bins(self) -> int:
        """Bins of the low ring's transform."""
        return self.low.n_fft // 2 + 1

    def doubled(self) -> Ring:
        """The low ring with transforms of two windows, which sample the filters finely enough."""
        return dataclasses.replace(self.low, n_fft=2 * self.low.win_length)


@functools.lru_cache(maxsize=16)
def engine_of(config: SpectrogramConfig) -> Engine:
    """The engine of a config: the least whole hop whose rate holds the band and leaves a whole, fast window."""
    hop, win = config.hop_length, config.win_length
    # A fortieth more than the band's two samples a period: the window smears a tone over its neighbours.
    least = min(hop, math.ceil(hop * 2.05 * config.f_max / config.sample_rate))
    low = next((h for h in range(least, hop) if win * h % hop == 0 and _is_fast(win * h // hop)), hop)
    low_win = win * low // hop
    return Engine(Ring(low_win, low_win, low), Ring(win, win, hop))


def _is_fast(n: int) -> bool:
    """Whether transforms of this length are fast: even, with no prime factor above 7."""
    odd = n
    for prime in (2, 3, 5, 7):
        while odd % prime == 0:
            odd //= prime
    return odd == 1 and n % 2 == 0


@functools.lru_cache(maxsize=16)
def mel_basis(config: SpectrogramConfig, padding: int, stretch: float = 1.0) -> Tensor:
    """(M, F) mel weights for transforms of ``padding`` windows at the engine's low rate.

    The mel was measured on the config's own bins; each of those is written as a mixture of two of these.

    Args:
        config: geometry.
        padding: windows per transform.
        stretch: ring samples per sample of the sound; a loop is stretched to whole frames.
    """
    n_fft = padding * config.win_length
    fine = mel_filterbank(config)
    position = torch.arange(fine.shape[1], dtype=torch.float64) * (n_fft / (config.n_fft * stretch))
    below = position.floor().long().clamp(max=n_fft // 2)
    above = (below + 1).clamp(max=n_fft // 2)
    share = (position - below).clamp(0.0, 1.0).to(fine)
    basis = torch.zeros(fine.shape[0], n_fft // 2 + 1)
    basis.index_add_(1, below, fine * (1 - share))
    basis.index_add_(1, above, fine * share)
    return basis[:, : padding * (engine_of(config).n_bins - 1) + 1].contiguous()


def mel_to_linear(mel: Tensor, basis: Tensor, *, n_iter: int = 5) -> Tensor:
    """Non-negative linear magnitudes whose mel is close to the given one.

    Multiplicative updates A <- A * D B' (m / B A)^1.5 with D = 1 / B'1 (after Richardson, 1972, and Lucy, 1974; the
    exponent over-relaxes).

    Args:
        mel: (..., N, M) >= 0.
        basis: (M, F) filterbank.
        n_iter: corrections.

    Returns:
        (..., N, F).
    """
    back = basis / basis.sum(0).clamp(min=TINY)
    linear = (mel / basis.sum(1).clamp(min=TINY)) @ back
    for _ in range(n_iter):
        ratio = mel / (linear @ basis.T).clamp(min=TINY)
        linear = linear * ((ratio * ratio.sqrt()) @ back)
    return linear


def first_phase(
    magnitude: Tensor, ring: Ring, *, generator: torch.Generator, known: Tensor, given: Tensor, parallel: bool
) -> Tensor:
    """Phases, counted from each frame's first sample, that the magnitude's slopes imply.

    Args:
        magnitude: (B, N, F) on a ring.
        ring: its transform.
        generator: CPU source of the phases of bins that nothing tells.
        known: (N,) bool, frames whose phase is settled.
        given: (B, N, F) phases of those.
        parallel: sum the slopes frame by frame, all bins at once, as a GPU likes it; else along the loudest paths,
            which comes closer.

    Returns:
        (B, N, F) in radians.
    """
    geometry = {"n_fft": ring.n_fft, "hop_length": ring.hop_length, "win_length": ring.win_length}
    bins = torch.arange(magnitude.shape[2], dtype=torch.float64)
    to_start = (math.pi * ring.win_length / ring.n_fft * bins).remainder(2.0 * math.pi).to(magnitude)
    if parallel:
        return frame_phase(magnitude, **geometry, known=known, given=given + to_start) - to_start
    # The same in every row: a clip sounds the same alone and in a batch, and what is in both channels is in the middle.
    random = torch.rand(magnitude.shape[1:], generator=generator).expand(magnitude.shape) * (2.0 * math.pi)
    start = torch.where(known[:, None], given + to_start, random)
    found = [
        heap_phase(loudness.numpy(), phase.numpy(), **geometry, known=known.numpy())
        for loudness, phase in zip(magnitude, start, strict=True)
    ]
    return torch.stack([torch.from_numpy(phase) for phase in found]) - to_start


@dataclasses.dataclass(frozen=True)
class Task:
    """One ring's worth of inversion.

    Attributes:
        mel: (B, N, M) >= 0; silent frames part what should not meet.
        active: (N,) bool, the frames that are asked to sound.
        fold: what a sound must be like, (B, N * hop) to the same: mirrored at a clip's ends, settled where it is.
        known: (N,) bool, frames that are settled.
        settled: (B, N * hop) at the low rate, read where ``known``.
        stretch: ring samples per sample of the sound.
    """

    mel: Tensor
    active: Tensor
    fold: Callable[[Tensor], Tensor]
    known: Tensor
    settled: Tensor
    stretch: float = 1.0


def invert(task: Task, config: SpectrogramConfig, preset: Preset, *, generator: torch.Generator) -> Tensor:
    """Frames (B, N, F) complex at the low rate whose mel is the task's, as nearly as ``preset`` has time for."""
    engine, mel = engine_of(config), task.mel
    one, two = engine.low, engine.doubled()
    weight = one.weight(task.active)
    magnitude = mel_to_linear(mel, mel_basis(config, 1, task.stretch).to(mel))
    guide, ring = magnitude, one
    if preset.padding == 2:
        guide, ring = mel_to_linear(mel, mel_basis(config, 2, task.stretch).to(mel)), two
    given = ring.to_frames(task.settled).angle()
    phase = first_phase(
        guide, ring, generator=generator, known=task.known, given=given, parallel=mel.device.type != "cpu"
    )[..., :: preset.padding]
    current, before = torch.polar(magnitude, phase), None
    for _ in range(preset.n_iter):
        rebuilt = one.to_frames(task.fold(one.to_ring(current, weight)))
        current, before = _with_magnitude(magnitude, _ahead(rebuilt, before, preset.momentum)), rebuilt
    if preset.n_mel_iter == 0:
        return current
    basis = mel_basis(config, 2, task.stretch).to(mel)
    back = basis / basis.sum(0).clamp(min=TINY)
    least = 1e-6 * mel.amax((1, 2), keepdim=True) + 1e-30
    current, before = two.to_frames(task.fold(one.to_ring(current, weight))), None
    for _ in range(preset.n_mel_iter):
        rebuilt = two.to_frames(task.fold(two.to_ring(current, weight)))
        magnitude = rebuilt.abs()
        ratio = (mel + least) / (magnitude @ basis.T + least)
        magnitude = magnitude * (ratio.pow(preset.power) @ back)
        current, before = _with_magnitude(magnitude, _ahead(rebuilt, before, preset.momentum)), rebuilt
    return current


def _with_magnitude(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Complex numbers of the given magnitude and of another's phase."""
    parts = torch.view_as_real(direction)
    scale = magnitude * parts.square().sum(-1).add(1e-30).rsqrt()
    return torch.view_as_complex(parts * scale[..., None])


def _ahead(now: Tensor, before: Tensor | None, momentum: float) -> Tensor:
    return now if before is None else now + momentum * (now - before)
