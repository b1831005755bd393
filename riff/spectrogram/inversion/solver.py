"""One ring of frames from mel magnitudes to sound: inverse mel, a first phase, then alternating projections.

The sound is found at the lowest rate that holds the band, and resampled to the output's rate once, at the end. A loop
is a ring of frames; a clip is a ring with silent frames between its end and its start.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.filters import (
    filters_of,
    inversion_geometry,
    mel_to_linear,
    mel_to_linear_compiled,
    sparse_filters_of,
)
from riff.spectrogram.inversion.pghi import pghi, pghi_framewise
from riff.spectrogram.inversion.projections import CompiledIteration, Iteration, TensorIteration
from riff.spectrogram.inversion.stft import CircularSTFT
from riff.utils.errors import checkpoint
from riff.utils.parallel import Map, mapping

BLOCK = 1024  # frames that are worked on at once


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much work a quality is.

    Attributes:
        n_iter: iterations that hold the mel magnitudes; each visits every frame once.
        n_interleaved: how many of them, the first ones, visit the frames in interleaved subsets, and go back to the
            sound after each (after the ordered subsets of Hudson & Larkin, 1994): quick at first, but not at last.
        padding: transform length of the iterations, in windows: 2, or 1, which costs half, but samples the filters
            too coarsely to come close.
        overlap: frames of a subset that should cover a sample.
        settling: momentum of the interleaved iterations; 0.45 diverges.
        momentum: of the others (Perraudin, Balazs & Søndergaard, 2013).
    """

    n_iter: int
    n_interleaved: int = 3
    padding: int = 2
    overlap: int = 3
    settling: float = 0.25
    momentum: float = 0.99

    def visits(self, overlap: int) -> Iterator[tuple[int, int, float]]:
        """First frame, stride and momentum of every step, where so many frames cover a sample."""
        stride = max(1, overlap // self.overlap)
        for iteration in range(self.n_iter):
            if iteration < self.n_interleaved:
                yield from ((first, stride, self.settling) for first in range(stride))
            else:
                yield 0, 1, self.momentum


PRESETS: dict[str, Preset] = {
    "fast": Preset(3, n_interleaved=2, padding=1),
    "default": Preset(11),
    "high": Preset(50, n_interleaved=10),
    "best": Preset(100, n_interleaved=10),
}
QUALITIES = (*PRESETS, "griffin-lim")


def first_phase(
    magnitude: Tensor,
    ring: CircularSTFT,
    *,
    generator: torch.Generator,
    known: Tensor,
    given: Tensor | None,
    parallel: bool,
    every: int = 1,
) -> Tensor:
    """Phases, counted from each frame's first sample, that the magnitude's slopes imply.

    Args:
        magnitude: (B, N, F) on a ring.
        ring: its transform.
        generator: CPU source of the phases of bins that the magnitudes do not determine.
        known: (N,) bool, frames whose phase is settled.
        given: (B, N, F') phases of those; None where there are none.
        parallel: sum the slopes frame by frame, all bins at once, as a GPU likes it; else along the loudest paths,
            which comes closer.
        every: 1, or 2 for every second bin's phase.

    Returns:
        (B, N, F') in radians, F' = (F - 1) / every + 1.
    """
    bins = torch.arange(0, magnitude.shape[2], every, dtype=torch.float64)
    to_start = (math.pi * ring.win_length / ring.n_fft * bins).remainder(2.0 * math.pi).to(magnitude)
    if parallel:
        given = torch.zeros_like(magnitude[..., ::every]) if given is None else given + to_start
        fine = given.repeat_interleave(every, 2)[..., : magnitude.shape[2]]
        return pghi_framewise(magnitude, ring, known=known, given=fine)[..., ::every] - to_start
    # The same in every row: a clip sounds the same alone and in a batch, and what is in both channels is in the middle.
    random = torch.rand(magnitude.shape[1], len(bins), generator=generator, dtype=torch.float32).mul_(2.0 * math.pi)
    found = []
    for row, loudness in enumerate(magnitude):
        start = random if given is None else torch.where(known[:, None], given[row] + to_start, random)
        found.append(pghi(loudness.numpy(), start.numpy(), ring, known=known.numpy(), every=every))
    return torch.stack([torch.from_numpy(phase) for phase in found]).sub_(to_start)


@dataclasses.dataclass(frozen=True)
class RingProblem:
    """One ring's worth of inversion.

    Attributes:
        mel: (B, N, M) >= 0; silent frames part what should not meet.
        active: (N,) bool, the frames that sound.
        constrain: a sound (B, N * hop) to the nearest that is allowed: mirrored at a clip's ends, and as it was where
            it is settled.
        known: (N,) bool, frames that are settled.
        settled: (B, N * hop) at the low rate, read where ``known``.
        stretch: ring samples per sample of the sound.
    """

    mel: Tensor
    active: Tensor
    constrain: Callable[[Tensor], Tensor]
    known: Tensor
    settled: Tensor
    stretch: float = 1.0


def invert(
    problem: RingProblem,
    config: SpectrogramConfig,
    preset: Preset,
    *,
    generator: torch.Generator,
    compiled: bool | None = None,
) -> Tensor:
    """A ring of sound (B, N * hop) at the low rate whose mel is the problem's, as nearly as ``preset`` has time for.

    Args:
        problem: mel and constraints.
        config: geometry.
        preset: how much work.
        generator: CPU source of the phases that the magnitudes do not determine.
        compiled: whether a CPU does the work in compiled loops, on as many threads as torch uses; None is yes on a CPU.
    """
    compiled = problem.mel.device.type == "cpu" if compiled is None else compiled
    with mapping(torch.get_num_threads() if compiled else 1) as each:
        return _invert(problem, config, preset, generator, each if compiled else None)


def _invert(
    problem: RingProblem, config: SpectrogramConfig, preset: Preset, generator: torch.Generator, each: Map | None
) -> Tensor:
    one, two = inversion_geometry(config).low, inversion_geometry(config).doubled()
    ring = two if preset.padding == 2 else one
    device = problem.mel.device
    iteration: Iteration
    if each is not None:
        fine = mel_to_linear_compiled(problem.mel, sparse_filters_of(config, 2, problem.stretch), each=each)
        held = sparse_filters_of(config, preset.padding, problem.stretch)
        iteration = CompiledIteration(problem.mel, ring, problem.active, held, each)
    else:
        fine = mel_to_linear(problem.mel, filters_of(config, 2, problem.stretch, device))
        filters = filters_of(config, preset.padding, problem.stretch, device)
        iteration = TensorIteration(problem.mel, ring, problem.active, filters)
    checkpoint()
    # Every second bin of two windows' transform is one of one window's.
    magnitude = fine[..., ::2].contiguous()
    given = one.to_frames(problem.settled).angle() if bool(problem.known.any()) else None
    parallel = device.type != "cpu"
    phase = first_phase(fine, two, generator=generator, known=problem.known, given=given, parallel=parallel, every=2)
    sound = problem.constrain(iteration.synthesize(magnitude, phase))
    for first, stride, momentum in preset.visits(one.overlap):
        checkpoint()
        sound = problem.constrain(iteration.step(sound, first=first, stride=stride, momentum=momentum))
    return sound


# The textbook's Griffin-Lim from random phases: the baseline, and the only one that knows no slopes.


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

    Griffin & Lim (1984), with the momentum of Perraudin, Balazs & Søndergaard (2013). torchaudio's ``GriffinLim`` is
    the
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
