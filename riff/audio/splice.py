"""Putting new sound into a kept recording: outside the regions it stays as it was, sample for sample.

Two sounds of one level and correlation r, mixed with gains g1 and g2, have the power g1^2 + g2^2 + 2 r g1 g2. A fade
keeps that at 1 if weights u = 1 - s and v = s are divided by sqrt(u^2 + v^2 + 2 r u v): for r = 1 this is the
equal-gain fade, for r = 0 the equal-power one, and between them whatever the two sounds need (Fink, Holters and Zölzer
2016). Where the levels differ, the mixture's lies between them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from riff.utils.errors import RiffError

Regions = Sequence[tuple[int, int]]

# A gain comes to 1 / sqrt(1 - r^2) at most where r < 0: 1.25 dB here; below, what is not opposed would swell audibly.
LEAST_CORRELATION = -0.5
# Of a fade, by which the new sound may be moved to fit: 2 ms of a usual 30 ms.
SHIFT_SHARE = 15


def splice(
    original: Tensor, new: Tensor, regions: Regions, *, fade_samples: int, shift_samples: int | None = None
) -> Tensor:
    """``original`` with regions of it taken from ``new``.

    Every fade lies inside its region's edge and keeps the level; a region that begins or ends with the sound has none
    there. Each region of the new sound is moved by whole samples to where it correlates best with the original in
    the fades.

    Args:
        original: (C, T) floating.
        new: (C, T), of which the regions are used, and up to ``shift_samples`` beside them.
        regions: (first sample, sample after the last), 0..T; overlapping and touching ones are joined.
        fade_samples: length of a fade, >= 0; at most half a region is faded at either edge.
        shift_samples: how far the new sound may be moved; None is a fifteenth of a fade.

    Returns:
        (C, T), equal to ``original`` bit for bit outside the regions.

    Raises:
        RiffError: shapes differ, or a region does not lie in the sound.
    """
    _check_sounds(original, new)
    spliced = original.clone()
    for start, stop in joined_regions(regions, original.shape[-1]):
        fades = _fades(start, stop, original.shape[-1], fade_samples)
        shift = _best_shift(original, new, (start, stop), fades, _most(shift_samples, fade_samples))
        there = new[:, start + shift : stop + shift].to(original)
        spliced[:, start:stop] = _mixed(original[:, start:stop], there, fades)
    return spliced


def band_splice(
    original: Tensor,
    new: Tensor,
    regions: Regions,
    *,
    sample_rate: int,
    low_hz: float,
    high_hz: float,
    fade_samples: int,
    shift_samples: int | None = None,
) -> Tensor:
    """``original`` with one frequency band of regions of it taken from ``new``.

    The band is cut out without delay or change of phase, by a transform whose edges are raised cosines inside
    ``low_hz``..``high_hz``; the rest of the spectrum stays the original's. See :func:`splice` for the other arguments.

    Args:
        original: (C, T) floating.
        new: (C, T); up to half a second beside the regions is used to cut the band out.
        regions: (first sample, sample after the last), 0..T.
        sample_rate: samples per second.
        low_hz: from where, in Hz; 0 is all below.
        high_hz: to where, in Hz; half the sample rate is all above.
        fade_samples: length of a fade, >= 0.
        shift_samples: how far the new band may be moved; None is a fifteenth of a fade.

    Returns:
        (C, T), equal to ``original`` bit for bit outside the regions.

    Raises:
        RiffError: shapes differ, a region does not lie in the sound, or the band is none.
    """
    _check_sounds(original, new)
    if not (math.isfinite(low_hz) and math.isfinite(high_hz) and 0 <= low_hz < high_hz <= sample_rate / 2):
        raise RiffError(f"the band is {low_hz!r} to {high_hz!r} Hz; use low < high from 0 to {sample_rate / 2:g} Hz")
    length, beside = original.shape[-1], sample_rate // 2
    spliced = original.clone()
    for start, stop in joined_regions(regions, length):
        fades = _fades(start, stop, length, fade_samples)
        first, last = max(0, start - beside), min(length, stop + beside)
        old, fresh = (_band(x[:, first:last], sample_rate, low_hz, high_hz).to(original) for x in (original, new))
        inside = (start - first, stop - first)
        shift = _best_shift(old, fresh, inside, fades, _most(shift_samples, fade_samples))
        kept = old[:, inside[0] : inside[1]]
        mixed = _mixed(kept, fresh[:, inside[0] + shift : inside[1] + shift], fades)
        spliced[:, start:stop] = original[:, start:stop] - kept + mixed
    return spliced


def append(original: Tensor, continuation: Tensor, *, overlap_samples: int) -> Tensor:
    """``original`` and then ``continuation``, which begins ``overlap_samples`` before the original ends.

    Args:
        original: (C, T) floating.
        continuation: (C, S).
        overlap_samples: that are faded into each other at one level, 0..min(S, T). Nothing is moved, so that what
            follows keeps its time.

    Returns:
        (C, T + S - overlap_samples), equal to ``original`` bit for bit up to the overlap.

    Raises:
        RiffError: channels differ, or the overlap is longer than a sound.
    """
    if original.ndim != 2 or continuation.ndim != 2 or len(original) != len(continuation):
        shapes = tuple(original.shape), tuple(continuation.shape)
        raise RiffError(
            f"the sounds have shapes {shapes[0]} and {shapes[1]}; use (channels, samples) of equal channels"
        )
    length = original.shape[-1]
    most = min(length, continuation.shape[-1])
    if isinstance(overlap_samples, bool) or not isinstance(overlap_samples, int) or not 0 <= overlap_samples <= most:
        raise RiffError(f"overlap_samples is {overlap_samples!r}; use a whole number from 0 to {most}")
    continuation, kept = continuation.to(original), length - overlap_samples
    mixed = _mixed(original[:, kept:], continuation[:, :overlap_samples], (overlap_samples, 0))
    return torch.cat([original[:, :kept], mixed, continuation[:, overlap_samples:]], dim=-1)


def fade_gains(count: int, correlation: float) -> Tensor:
    """Gains (2, count), float64, of what goes and of what comes, that keep the level of two equally loud sounds.

    Args:
        count: samples of the fade.
        correlation: of the two, -1..1; below -0.5 it counts as that, and the level dips.
    """
    share = torch.sin((torch.arange(count, dtype=torch.float64) + 0.5) / max(count, 1) * (math.pi / 2)).square()
    bounded = max(LEAST_CORRELATION, correlation)
    gains = torch.stack([1.0 - share, share])
    return gains / (gains.square().sum(0) + 2.0 * bounded * gains.prod(0)).sqrt()


def joined_regions(regions: Regions, length: int) -> list[tuple[int, int]]:
    """Regions in order, those that overlap or touch made one.

    Raises:
        RiffError: there is none, or one is empty, runs backwards or does not lie in 0..length.
    """
    found: list[tuple[int, int]] = []
    for region in regions:
        whole = isinstance(region, (tuple, list)) and len(region) == 2 and all(type(x) is int for x in region)
        if not whole or not 0 <= region[0] < region[1] <= length:
            raise RiffError(f"a region is {region!r}; use (start, stop) in samples with 0 <= start < stop <= {length}")
    for start, stop in sorted((start, stop) for start, stop in regions):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    if not found:
        raise RiffError("there is no region; give at least one (start, stop) in samples")
    return found


def _check_sounds(original: Tensor, new: Tensor) -> None:
    if original.ndim != 2 or original.shape != new.shape or not original.is_floating_point():
        shapes = tuple(original.shape), tuple(new.shape)
        raise RiffError(f"the sounds have shapes {shapes[0]} and {shapes[1]}; use two of (channels, samples), floating")


def _most(shift_samples: int | None, fade_samples: int) -> int:
    most = fade_samples // SHIFT_SHARE if shift_samples is None else shift_samples
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise RiffError(f"shift_samples is {shift_samples!r}; use a whole number of at least 0")
    return most


def _fades(start: int, stop: int, length: int, fade_samples: int) -> tuple[int, int]:
    """Samples of the fade into a region and of the one out of it."""
    if isinstance(fade_samples, bool) or not isinstance(fade_samples, int) or fade_samples < 0:
        raise RiffError(f"fade_samples is {fade_samples!r}; use a whole number of at least 0")
    faded = min(fade_samples, (stop - start) // 2)
    return faded if start > 0 else 0, faded if stop < length else 0


def _best_shift(old: Tensor, new: Tensor, region: tuple[int, int], fades: tuple[int, int], most: int) -> int:
    """How many samples later the new sound is to be read, so that it correlates best where it is faded.

    One shift for both edges: two would need a join inside the region.
    """
    start, stop = region
    edges = [(start, start + fades[0]), (stop - fades[1], stop)]
    edges = [(first, last) for first, last in edges if last > first]
    shifts = range(max(-most, -start), min(most, old.shape[-1] - stop) + 1)
    if not edges or len(shifts) < 2:
        return 0
    scores = torch.zeros(len(shifts), dtype=torch.float64)
    for first, last in edges:
        kept = old[:, first:last].double()
        near = new[:, first + shifts[0] : last + shifts[-1]].double()
        products = torch.nn.functional.conv1d(near[None], kept[None]).flatten()
        energy = torch.nn.functional.pad(near.square().sum(0).cumsum(0), (1, 0))
        energies = (energy[last - first :] - energy[: first - last]).clamp(min=0.0)
        scores += products / (energies * kept.square().sum()).sqrt().clamp(min=1e-12)
    # Of equally good ones the nearest.
    scores -= 1e-3 * torch.tensor([abs(shift) / most for shift in shifts], dtype=torch.float64)
    return shifts[int(scores.argmax())]


def _mixed(old: Tensor, new: Tensor, fades: tuple[int, int]) -> Tensor:
    """``new``, faded in from ``old`` over the first samples and out to it over the last ones."""
    mixed = new.clone()
    if fades[0]:
        mixed[:, : fades[0]] = _crossfade(old[:, : fades[0]], new[:, : fades[0]])
    if fades[1]:
        mixed[:, -fades[1] :] = _crossfade(new[:, -fades[1] :], old[:, -fades[1] :])
    return mixed


def _crossfade(before: Tensor, after: Tensor) -> Tensor:
    powers = before.double().square().sum() * after.double().square().sum()
    product = (before.double() * after.double()).sum()
    correlation = float(product / powers.sqrt()) if float(powers) > 0 else 0.0
    gains = fade_gains(before.shape[-1], correlation).to(before)
    return gains[0] * before + gains[1] * after


def _band(sound: Tensor, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """What of a sound (C, T) lies in a band; its edges rise over a quarter of the band, at most 100 Hz."""
    length = sound.shape[-1]
    size = 1 << (length + sample_rate // 4 - 1).bit_length()  # room for the ringing, which else wraps round
    hz = torch.fft.rfftfreq(size, 1.0 / sample_rate, dtype=torch.float64)
    width = min(100.0, (high_hz - low_hz) / 4.0)
    mask = torch.ones_like(hz)
    if low_hz > 0:
        mask *= _rise((hz - low_hz) / width)
    if high_hz < sample_rate / 2:
        mask *= _rise((high_hz - hz) / width)
    return torch.fft.irfft(torch.fft.rfft(sound.double(), n=size) * mask, n=size)[:, :length]


def _rise(share: Tensor) -> Tensor:
    return torch.sin(share.clamp(0.0, 1.0) * (math.pi / 2)).square()
