"""Mel magnitudes to a waveform of any length, block by block: memory for one block, and no seam between two.

A block is a stretch of frames on a ring of its own (see :mod:`riff.spectrogram.inversion.solver`). It begins and ends
with a margin of frames that belong to its neighbours: what the block before found is held there, so that the new frames
go on from it, and what the block itself finds in its last margin is thrown away, since those frames will be seen whole
by the next one. Between two blocks the sound fades over half a window.
"""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.inversion.filters import filters_of, inversion_geometry, is_fast, mel_to_linear
from riff.spectrogram.inversion.solver import BLOCK, PRESETS, QUALITIES, Preset, RingProblem, griffin_lim, invert
from riff.spectrogram.inversion.stft import CircularSTFT, fourier_resample
from riff.spectrogram.mel import channels_to_stereo, samples_to_columns
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError
from riff.utils.validation import check_default_dtype

MAX_SECONDS = 7200.0  # a tempo in a file may make days of a few columns
_SLACK = 64
# From a mel (C, M, N) with a frame every ``config.hop_length`` samples to the sound (C, T) at ``config.sample_rate``.
Vocoder = Callable[[Tensor], Tensor]


def mel_to_waveform(
    mel: Tensor,
    config: SpectrogramConfig,
    *,
    bpm: float | TempoMap | None = None,
    quality: Quality = "default",
    n_iter: int | None = None,
    loop: bool = False,
    generator: torch.Generator | None = None,
    vocoder: Vocoder | None = None,
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
        generator: CPU generator of phases that the magnitudes do not determine; ``None`` is one seeded with 0.
        vocoder: used in place of all that.

    Returns:
        (..., C, T) float32, T = ``config.frames_to_samples(N, bpm=bpm)``.

    Raises:
        RiffError: wrong shape, negative or non-finite magnitudes, no tempo on the beats grid, unknown quality.
    """
    check_default_dtype()
    _check_mel(mel, config)
    preset = _preset(quality, n_iter)
    if preset is None and loop and vocoder is None:
        raise RiffError("quality 'griffin-lim' cannot loop; use fast, default, high or best")
    generator = generator or torch.Generator().manual_seed(0)
    n_samples = config.frames_to_samples(mel.shape[-1], bpm=bpm)
    if n_samples > MAX_SECONDS * config.sample_rate:
        seconds = n_samples / config.sample_rate
        raise RiffError(f"the sound would last {seconds:.4g} s; at most {MAX_SECONDS:g} s are made, so cut the image")
    hop = config.hop_length
    n_frames = max(1, round(n_samples / hop)) if loop else n_samples // hop + 1
    step = n_samples / n_frames if loop else hop

    def columns_at(frames: Tensor) -> Tensor:
        return samples_to_columns(frames * step, config, bpm)

    frames = MelFrames(mel.float().flatten(0, -3), columns_at, n_frames, loop=loop)
    if vocoder is not None:
        waveform = _vocode(vocoder, frames.at(torch.arange(n_frames)).transpose(1, 2), n_samples)
    elif preset is None:
        every = torch.arange(n_frames, device=mel.device)
        linear = mel_to_linear(frames.at(every), filters_of(config, 1, 1.0, mel.device))
        waveform = _griffin_lim(linear, config, n_samples, 32 if n_iter is None else n_iter, generator)
    elif loop:
        length = n_frames * hop
        ring = frames_to_waveform(
            frames, config, preset, length=length, stretch=length / n_samples, generator=generator
        )
        waveform = fourier_resample(ring, n_samples)
    else:
        waveform = frames_to_waveform(frames, config, preset, length=n_samples, generator=generator)
    return channels_to_stereo(waveform.reshape(*mel.shape[:-2], n_samples), config)


def _vocode(vocoder: Vocoder, mel: Tensor, n_samples: int) -> Tensor:
    """The sound (B, n_samples) that a vocoder makes of ``mel`` (B, M, N), cut or filled up with silence."""
    sound = vocoder(mel)
    if not isinstance(sound, Tensor) or sound.dim() != 2 or len(sound) != len(mel):
        shape = tuple(sound.shape) if isinstance(sound, Tensor) else type(sound).__name__
        raise RiffError(
            f"the vocoder returned {shape} for a mel of shape {tuple(mel.shape)}; return (channels, samples)"
        )
    sound = sound.detach().float().cpu()[:, :n_samples]
    if not bool(torch.isfinite(sound).all()):
        raise RiffError("the vocoder returned NaN or infinite samples")
    return functional.pad(sound, (0, n_samples - sound.shape[-1]))


def _check_mel(mel: Tensor, config: SpectrogramConfig) -> None:
    if mel.ndim < 3 or mel.shape[-3] != config.channels or mel.shape[-2] != config.n_mels or mel.shape[-1] < 1:
        raise RiffError(
            f"mel has shape {tuple(mel.shape)}; this config needs (..., {config.channels}, {config.n_mels}, columns)"
        )
    if not bool(torch.isfinite(mel).all()) or bool((mel < 0).any()):
        raise RiffError("mel holds NaN, infinite or negative magnitudes; it must be finite and >= 0")


def _preset(quality: str, n_iter: int | None) -> Preset | None:
    """The work that a quality is; None for Griffin-Lim."""
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
    """Magnitudes (B, N, F) of the band to (B, n_samples): Griffin-Lim at the output's rate."""
    stft = inversion_geometry(config).full
    linear = functional.pad(linear, (0, stft.n_fft // 2 + 1 - linear.shape[-1])).transpose(1, 2)
    sound = griffin_lim(
        linear,
        stft,
        # The border frames need half a window of sound on either side: recover a longer one, then cut.
        length=max(n_samples, (linear.shape[-1] - 1) * config.hop_length, stft.n_fft),
        n_iter=n_iter,
        generator=generator,
    )
    return sound[..., :n_samples]


@dataclasses.dataclass(frozen=True)
class MelFrames:
    """A mel on an image's grid, read at the frames of a uniform hop.

    Attributes:
        mel: (B, M, N) >= 0.
        columns_at: numbers of frames, (n,) float64, to their places in columns.
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

    def __init__(self, mel: Tensor, frames: int, ring: CircularSTFT) -> None:
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
        share = torch.ones(len(places), dtype=torch.float32, device=places.device)
        share[stop:] = 0.0
        if not to_end:
            share[stop - half : stop] = torch.linspace(1.0, 0.0, half, dtype=torch.float32, device=places.device)
        if skip and not bool(self.settled.any()):  # a loop's first block: the last one will fade into it
            share[start : start + half] = torch.linspace(0.0, 1.0, half, dtype=torch.float32, device=places.device)
        here = places[start:stop]
        kept = self.settled[here]
        self.sound[:, here] = torch.lerp(found[:, start:stop], self.sound[:, here], kept)
        self.settled[here] = torch.maximum(kept, share[start:stop])


def _mirror(places: Tensor, length: int, half: int) -> Tensor:
    """Where samples are taken from: at a clip's ends the analysis saw its sound mirrored.

    Sample p of the canvas is sample p - half of the clip. One before 0 is the one as far after it, and one past the
    last, length - 1, the one as far before that; what no window of the clip reaches stays where it is.
    """
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
    """A sound with the given mel at every hop.

    Args:
        mel: frames ``config.hop_length`` samples apart, the first one centred on sample 0.
        config: geometry.
        preset: how much work.
        length: samples to return; of a loop, as many hops as there are frames.
        stretch: samples returned per sample of the sound; the pitch is lowered to make up for it.
        block: frames worked on at once.
        generator: CPU source of the phases that the magnitudes do not determine.

    Returns:
        (B, length) float32.
    """
    geometry = inversion_geometry(config)
    n_frames, loop = mel.count, mel.loop
    # Frame 0 is centred on sample 0, so on a canvas, where it begins at 0, the sound lies half a window later.
    half = geometry.full.win_length // 2
    margin = 2 * geometry.full.overlap
    frames = n_frames if loop else n_frames + geometry.full.overlap + _SLACK
    low, full = (_Canvas(mel.mel, frames, ring) for ring in (geometry.low, geometry.full))
    low_length = None if loop else round(length * geometry.low.hop_length / config.hop_length)
    if n_frames <= block + 2 * margin:
        problem = _problem(mel, (0, n_frames), low, low_length, stretch)
        found = invert(problem, config, preset, generator=generator)
        return geometry.at_full(found).roll(-half, 1)[:, :length]
    for first in range(0, n_frames, block):
        count = min(block, n_frames - first)
        before = margin if loop else min(margin, first)
        after = margin if loop else min(margin, n_frames - first - count)
        problem = _problem(mel, (first - before, before + count + after), low, low_length, stretch)
        found = invert(problem, config, preset, generator=generator)
        for canvas, sound in ((low, found), (full, geometry.at_full(found))):
            places = canvas.places(first - before, len(problem.active))
            canvas.accept(sound, places, before, count, to_end=not loop and first + count == n_frames)
    return full.sound.roll(-half, 1)[:, :length]


def _problem(mel: MelFrames, span: tuple[int, int], low: _Canvas, length: int | None, stretch: float) -> RingProblem:
    """The inversion of a block of frames; ``length`` is the clip's at the low rate, None for a loop."""
    first, count = span
    ring, device = low.ring, mel.mel.device
    # Silent frames part the block's end from its start on the ring; a whole loop has no such ends.
    silent = 0 if mel.loop and count == mel.count else _silence(count, ring.overlap)
    places = low.places(first, count + silent)
    sound, settled = low.sound[:, places], low.settled[places]
    has_settled = bool(settled.any())
    known = torch.zeros(count + silent, dtype=torch.bool, device=device)
    if has_settled:  # a frame is known if every sample of its window is settled
        covered = torch.cat([settled, settled.new_zeros(ring.win_length)]).unfold(0, ring.win_length, ring.hop_length)
        known[:count] = covered.amin(1)[:count] >= 1.0
    # The samples at a clip's ends that must mirror others, and those others, both within this block.
    ends = sources = places[:0]
    if length is not None:
        mirrored = _mirror(places, length, ring.win_length // 2) - first * ring.hop_length
        moved = mirrored != torch.arange(len(places), device=device)
        ends = torch.nonzero(moved & (mirrored >= 0) & (mirrored < len(places)))[:, 0]
        sources = mirrored[ends]

    def constrain(found: Tensor) -> Tensor:
        found = found.clone()
        found[:, ends] = found[:, sources]
        return torch.lerp(found, sound, settled) if has_settled else found

    return RingProblem(
        mel=functional.pad(mel.at(torch.arange(first, first + count, device=device)), (0, 0, 0, silent)),
        active=torch.arange(count + silent, device=device) < count,
        constrain=constrain,
        known=known,
        settled=sound,
        stretch=stretch,
    )
