"""Sounds that are others over again: in a set, of a training set, and two makings of one recipe.

A sound is found again by its landmarks, pairs of peaks of its spectrogram (Wang 2003): a hash says two frequencies and
the time between them, and a copy shares many hashes with the original at one shift in time. Ten thousand clips are one
sorted array of some millions of hashes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from riff.evaluate.figures import Figure, share_figure
from riff.evaluate.sounds import Sound

RATE = 11025
_WINDOW, _HOP = 1024, 256
_NEIGHBOURHOOD = (21, 11)  # bins and frames in which a peak is the loudest
_FAN, _NEAREST, _FARTHEST = 6, 2, 63  # pairs from a peak, and frames between its partners
_FLOOR_DB = 50.0
# Share of a sound's hashes found in another, at one shift, from which it is a copy of it. Of 160 composed clips the two
# that share most had 0.104 (two house clips) and 99 of 100 less than 0.04; copies through Vorbis had 0.42 to 0.77.
COPY = 0.15
LEAST = 20  # and so many of them
SHARED = 200  # clips a hash may be in, beyond which it says nothing (a metronome's click)


def fingerprint(sound: Sound) -> np.ndarray:
    """The landmarks of a sound.

    Returns:
        (k, 2) int64: hash and frame (23 ms) of each; none for silence.
    """
    from scipy.ndimage import maximum_filter

    from riff.audio.io import resample

    mono = resample(sound.mono[None], sound.sample_rate, RATE)[0].numpy().astype(np.float64)
    mono = np.pad(mono, (0, max(0, 2 * _WINDOW - mono.size)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    level = 20.0 * np.log10(np.abs(np.fft.rfft(frames, axis=1)).T + 1e-9)  # (bins, frames)
    highest = maximum_filter(level, _NEIGHBOURHOOD, mode="constant", cval=-np.inf)
    peaks = (level == highest) & (level > level.max() - _FLOOR_DB) & (level > -40.0)
    times, bins = np.nonzero(peaks.T)
    return _pairs(times, bins)


def _pairs(times: np.ndarray, bins: np.ndarray) -> np.ndarray:
    rows = []
    for ahead in range(1, 40):  # the next peaks in time, up to the fan of each
        later = np.arange(ahead, len(times))
        gap = times[later] - times[later - ahead]
        fits = (gap >= _NEAREST) & (gap <= _FARTHEST)
        first, second = later[fits] - ahead, later[fits]
        hashes = (bins[first].astype(np.int64) << 16) | (bins[second].astype(np.int64) << 6) | gap[fits]
        rows.append(np.stack([hashes, times[first], first], axis=1))
    every = np.concatenate(rows) if rows else np.empty((0, 3), np.int64)
    order = np.argsort(every[:, 2], kind="stable")  # by peak, the nearest partner first
    every = every[order]
    starts = np.searchsorted(every[:, 2], every[:, 2])
    found: np.ndarray = every[np.arange(len(every)) - starts < _FAN][:, :2]
    return found.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Match:
    """What a sound is most like.

    Attributes:
        index: of the sound in the searched set; -1 where it shares nothing with any.
        share: of its hashes that are in that one, at one shift in time.
        count: how many they are.
    """

    index: int
    share: float
    count: int

    @property
    def copy(self) -> bool:
        """Whether it is a copy."""
        return self.share >= COPY and self.count >= LEAST


class Index:
    """Fingerprints of many sounds, searchable.

    Args:
        prints: one of each sound, of :func:`fingerprint`.
    """

    def __init__(self, prints: Sequence[np.ndarray]) -> None:
        owner = np.repeat(np.arange(len(prints)), [len(found) for found in prints])
        every = np.concatenate([*prints, np.empty((0, 2), np.int64)])
        order = np.argsort(every[:, 0], kind="stable")
        self.hashes, self.frames, self.owner = every[order, 0], every[order, 1], owner[order]
        self.size = len(prints)

    def search(self, found: np.ndarray, *, leave_out: int | None = None) -> Match:
        """The sound that shares most.

        Args:
            found: of the sound that is looked for.
            leave_out: index of a sound that does not count: itself.
        """
        low = np.searchsorted(self.hashes, found[:, 0], side="left")
        high = np.searchsorted(self.hashes, found[:, 0], side="right")
        counts = np.where(high - low <= SHARED * 4, high - low, 0)
        if not counts.sum():
            return Match(-1, 0.0, 0)
        query = np.repeat(np.arange(len(found)), counts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
        owners, shift = self.owner[place], self.frames[place] - found[query, 1]
        if leave_out is not None:
            kept = owners != leave_out
            query, owners, shift = query[kept], owners[kept], shift[kept]
        if not len(owners):
            return Match(-1, 0.0, 0)
        # One hash counts once for a sound and shift; two neighbouring shifts are one, for resampling moves frames.
        best, where = 0, -1
        for half in (0, 1):
            votes = np.unique(np.stack([owners, (shift + half) // 2, query], axis=1), axis=0)
            groups, sizes = np.unique(votes[:, :2], axis=0, return_counts=True)
            most = int(np.argmax(sizes))
            if sizes[most] > best:
                best, where = int(sizes[most]), int(groups[most, 0])
        return Match(where, best / len(found), best)


def copies_within(prints: Sequence[np.ndarray]) -> list[Match]:
    """For each sound of a set, the other that it shares most with."""
    index = Index(prints)
    return [index.search(found, leave_out=number) for number, found in enumerate(prints)]


def copies_of(prints: Sequence[np.ndarray], training: Index) -> list[Match]:
    """For each sound, the one of a training set that it shares most with."""
    return [training.search(found) for found in prints]


def copy_figures(within: Sequence[Match], training: Sequence[Match] | None = None) -> list[Figure]:
    """Shares of copies.

    Args:
        within: of :func:`copies_within`.
        training: of :func:`copies_of`; None if there was no training set.
    """
    how = f"at least {COPY:.0%} and {LEAST} of its spectral landmarks (Wang 2003) are those of"
    figures = [share_figure("Copies within the set", [match.copy for match in within], f"{how} another clip.")]
    if training is not None:
        definition = f"{how} a clip of the training set, shifted in time or not."
        figures.append(share_figure("Copies of the training set", [match.copy for match in training], definition))
    return figures


def diversity(rows: np.ndarray, reference: np.ndarray | None, name: str) -> Figure:
    """How far a set's clips are from each other: the mean distance of two, over the reference's where there is one.

    Args:
        rows: features (n, d).
        reference: features (m, d) or None.
        name: of the embedding.

    Returns:
        The figure with its bootstrap interval over clips (a clip and itself never paired); NaN of fewer than 3 clips.
    """
    from riff.evaluate.distances import mean_distance

    title = f"Diversity ({name})"
    definition = f"Mean distance of two clips in {name}"
    definition += "; 1 is as various as the reference." if reference is not None else ", in its own units."
    if len(rows) < 3 or (reference is not None and len(reference) < 3):
        return Figure(title, float("nan"), n=len(rows), definition=definition)
    scale = mean_distance(reference)[0] if reference is not None else 1.0
    value, low, high = (number / max(scale, 1e-12) for number in mean_distance(rows))
    return Figure(title, value, "", low, high, len(rows), definition)


def determinism(made: Sequence[Mapping[str, str]], digests: Sequence[str]) -> Figure:
    """Of files that claim one recipe, the share that equal the first of them.

    Args:
        made: what each file says of its making; a file without a seed claims no recipe.
        digests: of each file's samples, as :func:`digest` gives them.

    Returns:
        The figure; NaN where no two files claim the same recipe.
    """
    recipes: dict[str, list[str]] = {}
    for fields, value in zip(made, digests, strict=True):
        if fields.get("seed"):
            recipes.setdefault(json.dumps(dict(fields), sort_keys=True), []).append(value)
    same = [value == values[0] for values in recipes.values() for value in values[1:]]
    definition = "Files that say they were made alike (model, seed, prompt and all else) hold the same samples."
    return share_figure("Same recipe, same sound", same, definition)


def digest(sound: Sound) -> str:
    """SHA-256 of a sound's rate and samples, whatever the file's format says beside them."""
    import hashlib

    found = hashlib.sha256(f"{sound.sample_rate} {tuple(sound.waveform.shape)}".encode())
    found.update(sound.waveform.contiguous().numpy().tobytes())
    return found.hexdigest()


def most_copied(matches: Sequence[Match]) -> list[tuple[int, int]]:
    """Index in the searched set and number of copies of it, the most copied first."""
    return Counter(match.index for match in matches if match.copy).most_common()


# Music that a model draws from memory: the same image, coarsely, though no peak of it is where it was.
#
# Landmarks (:mod:`riff.evaluate.copies`) find a recording again, but not what has been through an autoencoder. That
# has the same levels in the same broad bands from tenth to tenth of a second; these are looked for at every shift in
# time.

RATE_SKETCHES = 22050
BANDS, FRAMES = 48, 24  # of a window: 40 to 8000 Hz, 2.4 s
_HOP_SKETCHES = RATE_SKETCHES // 10
_RANGE = 50.0  # decibels below a sound's loudest cell that count
# Cosine of a window from which it is a copy. Of 160 composed clips the most alike two had 0.73; copies that had been
# through riff-mini's autoencoder and shifted had 0.60 to 0.97, three quarters of them more than this.
COPY_SKETCHES = 0.85
_LEAST_SPREAD = 0.05  # of a window's cells about their bands' means, below which it is silence or a held tone


def sketch(sound: Sound) -> np.ndarray:
    """Levels of a sound in 48 bands, ten a second, (48, N) float32 in [0, 1]; 0 lies 50 dB below the loudest."""
    from riff.audio.io import resample

    mono = resample(sound.mono[None], sound.sample_rate, RATE_SKETCHES)[0].double()
    mono = functional.pad(mono, (0, max(0, 2 * _HOP_SKETCHES - mono.numel())))
    window = torch.hann_window(2 * _HOP_SKETCHES, dtype=torch.float64)
    power = (
        torch.stft(mono, 2 * _HOP_SKETCHES, _HOP_SKETCHES, window=window, return_complex=True).abs().square().numpy()
    )
    hertz = np.fft.rfftfreq(2 * _HOP_SKETCHES, 1.0 / RATE_SKETCHES)
    mel = 2595.0 * np.log10(1.0 + np.array([40.0, 8000.0]) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(mel[0], mel[1], BANDS + 1) / 2595.0) - 1.0)
    bands = np.add.reduceat(power, np.searchsorted(hertz, edges), axis=0)[:-1]
    level = 10.0 * np.log10(bands / max(float(bands.max()), 1e-20) + 1e-12)
    cells: np.ndarray = np.clip(level / _RANGE + 1.0, 0.0, 1.0) if mono.abs().max() > 1e-4 else np.zeros_like(level)
    return cells.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What a sound looks most like.

    Attributes:
        index: of the sound in the searched set; -1 where none can be compared.
        similarity: cosine of their best 2.4 s, -1..1, each band's mean taken off.
    """

    index: int
    similarity: float


class Sketches:
    """Sketches of many sounds in a row, searchable at every shift.

    Args:
        sketches: of :func:`sketch`; those shorter than 2.4 s are repeated up to it.
    """

    def __init__(self, sketches: Sequence[np.ndarray]) -> None:
        whole = [_long_enough(each) for each in sketches]
        self.cells = torch.from_numpy(np.concatenate([*whole, np.zeros((BANDS, FRAMES), np.float32)], axis=1))
        owner = np.concatenate([np.repeat(np.arange(len(whole)), [each.shape[1] for each in whole]), [-1] * FRAMES])
        self.owner = torch.from_numpy(owner[: len(owner) - FRAMES + 1].astype(np.int64))
        self.inside = torch.from_numpy(owner[: len(owner) - FRAMES + 1] == owner[FRAMES - 1 :]) & (self.owner >= 0)
        sums = _moving_sum(self.cells)
        spread = (_moving_sum(self.cells.square()) - sums.square() / FRAMES).sum(0).clamp_min(0.0)
        self.norm = spread.sqrt()

    def search(self, found: np.ndarray, *, leave_out: int | None = None) -> Likeness:
        """The sound that looks most alike in any 2.4 s of the one looked for.

        Args:
            found: its sketch.
            leave_out: index of a sound that does not count: itself.
        """
        windows = _windows(_long_enough(found))
        usable = self.inside & (self.norm >= _least_norm())
        if leave_out is not None:
            usable = usable & (self.owner != leave_out)
        if not len(windows) or not bool(usable.any()):
            return Likeness(-1, 0.0)
        products = functional.conv1d(self.cells[None], windows)[0]  # (windows, places)
        norms = windows.flatten(1).norm(dim=1)[:, None] * self.norm.clamp_min(1e-9)
        best = torch.where(usable, products / norms, -1.0).amax(0)
        place = int(best.argmax())
        return Likeness(int(self.owner[place]), float(best[place]))


def threshold(held_out: Sequence[Likeness] = ()) -> float:
    """Similarity from which a clip is a copy: 0.85, or halfway from the highest of honest clips to 1 if that is more.

    Args:
        held_out: of music that surely is no copy, such as a reference, to the same training set.
    """
    honest = [one.similarity for one in held_out]
    return max(COPY_SKETCHES, 0.5 + 0.5 * max(honest)) if honest else COPY_SKETCHES


def sketch_figures(
    within: Sequence[Likeness], training: Sequence[Likeness] | None = None, held_out: Sequence[Likeness] = ()
) -> list[Figure]:
    """Shares of clips that look like others.

    Args:
        within: each clip among the others of its set.
        training: each clip among the training set; None if there was none.
        held_out: of a reference among the training set, for the scale.
    """
    how = f"Any {FRAMES / 10:g} s whose levels in {BANDS} bands, ten a second, have a cosine of"
    hits = [one.similarity >= COPY_SKETCHES for one in within]
    figures = [
        share_figure("Look-alikes within the set", hits, f"{how} {COPY_SKETCHES:g} or more with those of another clip.")
    ]
    if training is not None:
        least = threshold(held_out)
        definition = f"{how} {least:.2f} or more with those of a clip of the training set, at any shift."
        hits = [one.similarity >= least for one in training]
        figures.append(share_figure("Look-alikes of the training set", hits, definition))
    return figures


def _long_enough(cells: np.ndarray) -> np.ndarray:
    times = -(-FRAMES // cells.shape[1])
    repeated: np.ndarray = np.tile(cells, (1, times))[:, :FRAMES] if times > 1 else cells
    return repeated


def _windows(cells: np.ndarray) -> torch.Tensor:
    """(n, BANDS, FRAMES) with each band's mean taken off, every 0.8 s and the last; empty ones left out."""
    count = cells.shape[1]
    starts = sorted({*range(0, count - FRAMES + 1, FRAMES // 3), count - FRAMES})
    windows = torch.stack([torch.from_numpy(cells[:, start : start + FRAMES].copy()) for start in starts])
    windows = windows - windows.mean(2, keepdim=True)
    return windows[windows.flatten(1).norm(dim=1) >= _least_norm()]


def _least_norm() -> float:
    return _LEAST_SPREAD * float(BANDS * FRAMES) ** 0.5


def _moving_sum(cells: torch.Tensor) -> torch.Tensor:
    sums = functional.pad(cells.double().cumsum(1), (1, 0))
    return (sums[:, FRAMES:] - sums[:, :-FRAMES]).float()
