"""Mel magnitudes to a waveform: inverse mel, a first phase from the magnitude's slopes, then alternating projections.

The sound is looked for at the lowest rate that holds the band, and drawn at the output's rate in the last step alone.
It lies on a ring of frames: a loop is that ring, a clip is a ring with silent frames between its end and its start.
A long canvas is worked through block by block; each block holds on to the sound that the one before has settled.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.engine import engine_of, filters_of, mel_to_linear
from riff.heap import heap_phase
from riff.phase import frame_phase
from riff.ring import Ring

Quality = Literal["fast", "default", "high", "best", "griffin-lim"]
BLOCK = 1024  # frames that are worked on at once


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much work a quality is.

    Attributes:
        n_iter: iterations that hold the mel magnitudes.
        padding: transform length, in windows, at which the first phase is found: 1 or 2.
        power: over-relaxation of the iterations; 3 diverges.
        momentum: of the iterations (Perraudin, Balazs & Søndergaard, 2013).
    """

    n_iter: int
    padding: int = 2
    power: float = 1.5
    momentum: float = 0.99


PRESETS: dict[str, Preset] = {
    "fast": Preset(4, padding=1, momentum=0.9),
    "default": Preset(10),
    "high": Preset(24),
    "best": Preset(80),
}
QUALITIES = (*PRESETS, "griffin-lim")


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
    magnitude = mel_to_linear(mel, filters_of(config, 1, task.stretch, mel.device))
    guide, ring = magnitude, one
    if preset.padding == 2:
        guide, ring = mel_to_linear(mel, filters_of(config, 2, task.stretch, mel.device)), two
    given = ring.to_frames(task.settled).angle()
    phase = first_phase(
        guide, ring, generator=generator, known=task.known, given=given, parallel=mel.device.type != "cpu"
    )[..., :: preset.padding]
    filters = filters_of(config, 2, task.stretch, mel.device)
    least = 1e-6 * mel.amax((1, 2), keepdim=True) + 1e-30
    current, before = torch.polar(magnitude, phase), None
    for iteration in range(preset.n_iter):
        sound = (two if iteration else one).to_ring(current, weight)
        rebuilt = two.to_frames(task.fold(sound))
        magnitude = _square(rebuilt).sqrt_()
        ratio = (mel + least) / (filters.gather(magnitude) + least)
        magnitude *= filters.spread(ratio.pow_(preset.power))
        current, before = _with_magnitude(magnitude, _ahead(rebuilt, before, preset.momentum)), rebuilt
    return current


def _square(numbers: Tensor) -> Tensor:
    """Squared moduli; several times faster than ``abs``, which guards against overflow."""
    real, imaginary = torch.view_as_real(numbers).unbind(-1)
    return torch.addcmul(real * real, imaginary, imaginary)


def _with_magnitude(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Complex numbers of the given magnitude and of another's phase."""
    scale = magnitude * _square(direction).add_(1e-30).rsqrt_()
    return torch.view_as_complex(torch.view_as_real(direction) * scale[..., None])


def _ahead(now: Tensor, before: Tensor | None, momentum: float) -> Tensor:
    return now if before is None else now + momentum * (now - before)
