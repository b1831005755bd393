"""A canvas of any length to a waveform, block by block: memory for one block, and no seam between two."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from riff.config import SpectrogramConfig
from riff.engine import engine_of, is_fast
from riff.inversion import BLOCK, Preset, Task, invert
from riff.ring import Ring

_SLACK = 64


@dataclasses.dataclass(frozen=True)
class MelFrames:
    """A mel on a picture's grid, read at the frames of a uniform hop.

    Attributes:
        mel: (B, M, N) >= 0.
        columns_at: numbers of frames, (n,) float64, to where they lie in columns.
        count: frames.
        loop: whether the last column leads back to the first.
    """

    mel: Tensor
    columns_at: Callable[[Tensor], Tensor]
    count: int
    loop: bool = False

    @functools.cached_property
    def _floor(self) -> Tensor:
        return self.mel.amax((-2, -1), keepdim=True).clamp(min=1e-12) * 1e-6

    def at(self, index: Tensor) -> Tensor:
        """(B, len(index), M); between columns loudness moves evenly in decibels, so that decays stay exponential."""
        n_columns = self.mel.shape[-1]
        # On the CPU: not every device counts in double precision.
        position = self.columns_at(index.cpu().remainder(self.count).double()).to(self.mel.device)
        if not self.loop:
            position = position.clamp(max=n_columns - 1)
        below = position.floor().long()
        share = (position - below).to(self.mel)
        if not bool(share.any()):
            return self.mel[..., below % n_columns].transpose(1, 2)
        above = (below + 1) % n_columns if self.loop else (below + 1).clamp(max=n_columns - 1)
        low, high = ((self.mel[..., place % n_columns] + self._floor).log() for place in (below, above))
        return (torch.lerp(low, high, share).exp() - self._floor).clamp(min=0.0).transpose(1, 2)


class _Canvas:
    """Sound that is settled from left to right; frame n covers ``win_length`` samples from n hops on.

    Attributes:
        sound: (B, total) samples.
        settled: (total,) from 0, free, to 1, settled; it falls over half a window, so that blocks fade into each other.
    """

    def __init__(self, mel: Tensor, frames: int, ring: Ring) -> None:
        self.ring = ring
        self.sound = mel.new_zeros(len(mel), frames * ring.hop_length)
        self.settled = mel.new_zeros(frames * ring.hop_length)

    def places(self, first: int, count: int) -> Tensor:
        """Indices of the samples in the hops of ``count`` frames from ``first`` on."""
        hop = self.ring.hop_length
        return torch.arange(first * hop, (first + count) * hop, device=self.sound.device).remainder(len(self.settled))

    def accept(self, found: Tensor, places: Tensor, skip: int, count: int, *, to_end: bool) -> None:
        """Settle what a block found for ``count`` of its frames, after the first ``skip``."""
        hop, half = self.ring.hop_length, self.ring.win_length // 2
        start = skip * hop
        stop = len(places) if to_end else (skip + count) * hop + half
        share = torch.ones(len(places), device=places.device)
        share[stop:] = 0.0
        if not to_end:
            share[stop - half : stop] = torch.linspace(1.0, 0.0, half, device=places.device)
        if skip and not bool(self.settled.any()):  # a loop's first block: the last one will fade into it
            share[start : start + half] = torch.linspace(0.0, 1.0, half, device=places.device)
        here = places[start:stop]
        kept = self.settled[here]
        self.sound[:, here] = torch.lerp(found[:, start:stop], self.sound[:, here], kept)
        self.settled[here] = torch.maximum(kept, share[start:stop])


def _mirror(places: Tensor, length: int, half: int) -> Tensor:
    """Where samples are taken from: the windows at a clip's ends saw its sound mirrored."""
    inside = (places - half).abs()
    inside = torch.where(inside > length - 1, 2 * (length - 1) - inside, inside)
    outside = (inside < 0) | (inside > length - 1)
    return torch.where(outside, places, inside + half)


def _silence(count: int, least: int) -> int:
    """Silent frames after ``count`` others, so that transforms of all of them are quick; at most ``_SLACK`` more."""
    return next((n for n in range(least, least + _SLACK) if is_fast(count + n)), least)


def frames_to_waveform(
    mel: MelFrames,
    config: SpectrogramConfig,
    preset: Preset,
    *,
    length: int,
    stretch: float = 1.0,
    block: int = BLOCK,
    generator: torch.Generator,
) -> Tensor:
    """A sound whose mel at every hop is the one given.

    Args:
        mel: frames ``config.hop_length`` samples apart, the first one centred on sample 0.
        config: geometry.
        preset: how much work.
        length: samples to return; of a loop, as many hops as there are frames.
        stretch: samples returned per sample of the sound; the pitch is lowered to make up for it.
        block: frames worked on at once.
        generator: CPU source of the phases that the magnitudes do not tell.

    Returns:
        (B, length) float32.
    """
    engine = engine_of(config)
    n_frames, loop = mel.count, mel.loop
    half = engine.full.win_length // 2
    margin = 2 * engine.full.overlap
    frames = n_frames if loop else n_frames + engine.full.overlap + _SLACK
    low, full = (_Canvas(mel.mel, frames, ring) for ring in (engine.low, engine.full))
    low_length = None if loop else round(length * engine.low.hop_length / config.hop_length)
    if n_frames <= block + 2 * margin:
        task = _task(mel, (0, n_frames), low, low_length, stretch)
        found = invert(task, config, preset, generator=generator)
        return engine.at_full(found).roll(-half, 1)[:, :length]
    for first in range(0, n_frames, block):
        count = min(block, n_frames - first)
        before = margin if loop else min(margin, first)
        after = margin if loop else min(margin, n_frames - first - count)
        task = _task(mel, (first - before, before + count + after), low, low_length, stretch)
        found = invert(task, config, preset, generator=generator)
        for canvas, drawn in ((low, found), (full, engine.at_full(found))):
            places = canvas.places(first - before, len(task.active))
            canvas.accept(drawn, places, before, count, to_end=not loop and first + count == n_frames)
    return full.sound.roll(-half, 1)[:, :length]


def _task(mel: MelFrames, span: tuple[int, int], low: _Canvas, length: int | None, stretch: float) -> Task:
    """What a block of frames is to sound like; ``length`` is the clip's at the low rate, None for a loop."""
    first, count = span
    ring, device = low.ring, mel.mel.device
    silent = 0 if mel.loop and count == mel.count else _silence(count, ring.overlap)
    places = low.places(first, count + silent)
    sound, settled = low.sound[:, places], low.settled[places]
    something = bool(settled.any())
    known = torch.zeros(count + silent, dtype=torch.bool, device=device)
    if something:
        covered = torch.cat([settled, settled.new_zeros(ring.win_length)]).unfold(0, ring.win_length, ring.hop_length)
        known[:count] = covered.amin(1)[:count] >= 1.0
    ends = sources = places[:0]
    if length is not None:
        mirrored = _mirror(places, length, ring.win_length // 2) - first * ring.hop_length
        moved = mirrored != torch.arange(len(places), device=device)
        ends = torch.nonzero(moved & (mirrored >= 0) & (mirrored < len(places)))[:, 0]
        sources = mirrored[ends]

    def fold(found: Tensor) -> Tensor:
        found = found.clone()
        found[:, ends] = found[:, sources]
        return torch.lerp(found, sound, settled) if something else found

    return Task(
        mel=functional.pad(mel.at(torch.arange(first, first + count, device=device)), (0, 0, 0, silent)),
        active=torch.arange(count + silent, device=device) < count,
        fold=fold,
        known=known,
        settled=sound,
        stretch=stretch,
    )
