"""How far one set of sounds is from another, in an embedding: Fréchet distance, its limit for many clips, kernel MMD.

A set is one row of features for each clip, so that clips can be drawn again for the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from riff.evaluate.figures import Figure
from riff.utils.errors import RiffError

FRECHET = (
    "Squared Fréchet distance of the Gaussians fitted to two sets of {name}, one row a clip (Dowson & Landau 1982); "
    "grows as clips get fewer, so compare equal numbers only. 95 % bootstrap over both sets' clips, its bias taken off."
)
FRECHET_LIMIT = (
    "Fréchet distance of {name}, fitted over 1/N by a line through 15 sizes of the evaluated set and read at N = "
    "infinity, the reference being held (Chong & Forsyth 2020; Gui et al. 2024)."
)
KERNEL = (
    "Unbiased squared maximum mean discrepancy of {name} with {kernel}; about 0 (and below it as often as above) for "
    "sets of one kind. 95 % bootstrap over the clips of both sets."
)
KERNELS = {
    "rbf": "a Gaussian kernel as wide as the reference's median distance, the measure of KAD (Chung et al. 2025)",
    "polynomial": "the kernel (x.y / d + 1)^3, the measure of KID (Binkowski et al. 2018)",
}
FEWEST = 8  # clips of either set
LIMIT_FROM = 24  # clips of the evaluated set from which a line over sizes says something
Kernel = Literal["rbf", "polynomial"]


def frechet(
    generated: np.ndarray, reference: np.ndarray, name: str, *, resamplings: int = 200, seed: int = 0
) -> Figure:
    """Fréchet distance of two sets with its interval.

    Args:
        generated: features (n, d), one row a clip.
        reference: features (m, d).
        name: of the embedding.
        resamplings: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The figure, NaN with fewer than 8 clips on either side.

    Raises:
        RiffError: shapes that do not fit, or values that are not finite.
    """
    generated, reference = _checked(generated, reference)
    title, definition = f"Fréchet distance ({name})", FRECHET.format(name=name)
    n, m = len(generated), len(reference)
    if min(n, m) < FEWEST:
        return Figure(title, math.nan, n=n, definition=definition)
    distance = _FrechetRows(generated, reference)
    value = distance(np.arange(n), np.arange(m))
    rng = np.random.default_rng(seed)
    drawn = [distance(rng.integers(0, n, n), rng.integers(0, m, m)) for _ in range(resamplings)]
    # Clips that are drawn twice stand for less spread, which moves every resampled distance the same way.
    low, high = np.percentile(drawn, (2.5, 97.5)) - np.mean(drawn) + value
    return Figure(title, value, "", max(float(low), 0.0), float(high), n, definition)


def frechet_limit(
    generated: np.ndarray, reference: np.ndarray, name: str, *, sizes: int = 15, repeats: int = 6, seed: int = 0
) -> Figure:
    """Fréchet distance as it would be of endlessly many generated clips.

    Args:
        generated: features (n, d), one row a clip.
        reference: features (m, d), held as they are.
        name: of the embedding.
        sizes: subsets from a third of the clips to all of them.
        repeats: subsets of each size.
        seed: draws the subsets.

    Returns:
        The figure; its interval is that of the line's intercept (1.96 standard errors), which knows nothing of what
        other clips would have given. NaN with fewer than 24 generated or 8 reference clips.

    Raises:
        RiffError: shapes that do not fit, or values that are not finite.
    """
    generated, reference = _checked(generated, reference)
    title, definition = f"Fréchet distance, N to infinity ({name})", FRECHET_LIMIT.format(name=name)
    n, m = len(generated), len(reference)
    if n < LIMIT_FROM or m < FEWEST:
        return Figure(title, math.nan, n=n, definition=definition)
    distance = _FrechetRows(generated, reference)
    rng = np.random.default_rng(seed)
    counts = np.linspace(n / 3, n, sizes).round().astype(int)
    every = np.arange(m)
    means = [
        np.mean([distance(rng.choice(n, count, replace=False), every) for _ in range(repeats)]) for count in counts
    ]
    inverse = 1.0 / counts
    # A larger subset tells more of the intercept; all its repeats share clips, so weights go with the size alone.
    (_, intercept), covariance = np.polyfit(inverse, means, 1, w=np.sqrt(counts), cov=True)
    reach = 1.96 * math.sqrt(max(float(covariance[1, 1]), 0.0))
    return Figure(title, float(intercept), "", float(intercept) - reach, float(intercept) + reach, n, definition)


def kernel_distance(
    generated: np.ndarray,
    reference: np.ndarray,
    name: str,
    *,
    kernel: Kernel = "rbf",
    resamplings: int = 500,
    seed: int = 0,
) -> Figure:
    """Unbiased squared MMD of two sets (Gretton et al. 2012, equation 3) with its interval.

    Args:
        generated: features (n, d), one row a clip.
        reference: features (m, d).
        name: of the embedding.
        kernel: ``"rbf"`` (KAD's) or ``"polynomial"`` (KID's).
        resamplings: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The figure, NaN with fewer than 8 clips on either side. KAD as published is 100 times the value of ``"rbf"``.

    Raises:
        RiffError: shapes that do not fit, values that are not finite, or an unknown kernel.
    """
    if kernel not in KERNELS:
        raise RiffError(f"kernel is {kernel!r}; use one of {', '.join(KERNELS)}")
    generated, reference = _checked(generated, reference)
    short = "Gaussian" if kernel == "rbf" else "cubic"
    title, definition = f"MMD, {short} kernel ({name})", KERNEL.format(name=name, kernel=KERNELS[kernel])
    n, m = len(generated), len(reference)
    if min(n, m) < FEWEST:
        return Figure(title, math.nan, n=n, definition=definition)
    of = _rbf(reference) if kernel == "rbf" else _cubic
    grams = of(generated, generated), of(reference, reference), of(generated, reference)
    value = _mmd(*grams, np.ones(n), np.ones(m))
    rng = np.random.default_rng(seed)
    drawn = [
        _mmd(*grams, np.bincount(rng.integers(0, n, n), minlength=n), np.bincount(rng.integers(0, m, m), minlength=m))
        for _ in range(resamplings)
    ]
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    return Figure(title, value, "", low, high, n, definition)


def mean_distance(rows: np.ndarray, *, resamplings: int = 200, seed: int = 0) -> tuple[float, float, float]:
    """Mean Euclidean distance of two different rows of (n, d), and its 95 % bootstrap interval over the rows."""
    gram = np.sqrt(_squared(rows, rows))
    count = len(rows)
    rng = np.random.default_rng(seed)
    drawn = [_pairs(gram, np.bincount(rng.integers(0, count, count), minlength=count)) for _ in range(resamplings)]
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    return _pairs(gram, np.ones(count)), low, high


class _FrechetRows:
    """Fréchet distance between rows chosen from two sets, as often as requested.

    With more features than clips the covariances have low rank: tr (A B)^(1/2) is the nuclear norm of the (n, m)
    products of the centred rows, so that nothing of size (d, d) is ever built.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self.a, self.b = a, b
        self.wide = a.shape[1] > min(len(a), len(b))
        if self.wide:
            shift = b.mean(0)  # far from the origin the products would lose digits
            a, b = a - shift, b - shift
            self.aa, self.bb, self.ab = a @ a.T, b @ b.T, a @ b.T

    def __call__(self, rows_a: np.ndarray, rows_b: np.ndarray) -> float:
        if not self.wide:
            from riff.evaluate.figures import frechet_distance

            return frechet_distance(self.a[rows_a], self.b[rows_b])
        aa, bb = self.aa[np.ix_(rows_a, rows_a)], self.bb[np.ix_(rows_b, rows_b)]
        ab = self.ab[np.ix_(rows_a, rows_b)]
        n, m = len(rows_a), len(rows_b)
        gap = aa.mean() + bb.mean() - 2.0 * ab.mean()
        spread = (np.trace(aa) - n * aa.mean()) / (n - 1) + (np.trace(bb) - m * bb.mean()) / (m - 1)
        centred = ab - ab.mean(0) - ab.mean(1, keepdims=True) + ab.mean()
        cross = np.linalg.svd(centred, compute_uv=False).sum() / math.sqrt((n - 1) * (m - 1))
        return float(max(gap + spread - 2.0 * cross, 0.0))


def _checked(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(generated, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise RiffError(f"feature sets have shapes {a.shape} and {b.shape}; use (n, d) and (m, d)")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise RiffError("a feature set holds NaN or infinite values; drop those clips first")
    return a, b


def _rbf(reference: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    distances = _squared(reference, reference)[np.triu_indices(len(reference), 1)]
    width = max(float(np.median(distances)), 1e-12)
    return lambda a, b: np.asarray(np.exp(-_squared(a, b) / (2.0 * width)))


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product: np.ndarray = (a @ b.T / a.shape[1] + 1.0) ** 3
    return product


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T, 0.0)


def _mmd(aa: np.ndarray, bb: np.ndarray, ab: np.ndarray, times_a: np.ndarray, times_b: np.ndarray) -> float:
    """MMD where every clip counts so many times, and never with itself."""
    return (
        _pairs(aa, times_a) + _pairs(bb, times_b) - 2.0 * float(times_a @ ab @ times_b / times_a.sum() / times_b.sum())
    )


def _pairs(gram: np.ndarray, times: np.ndarray) -> float:
    itself = times**2
    total = times @ gram @ times - itself @ np.diag(gram)
    pairs = times.sum() ** 2 - itself.sum()
    return float(total / pairs) if pairs else 0.0  # one clip drawn again and again


# Where single clips stand among others: how near to a reference, and where on the two main axes of all.

NEIGHBOURS = 5


def likeness(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How usual each clip would be among the reference.

    A clip's distance is the mean to its 5 nearest clips of the reference, features being scaled by the reference's
    spread; a reference clip's is that to the 5 nearest others.

    Args:
        generated: features (n, d).
        reference: features (m, d), m >= 3.

    Returns:
        (n,) shares 0..1 of the reference's clips that lie farther out than this one: about evenly spread for clips that
        are like the reference, 0 for a clip that is like none of it.
    """
    spread = reference.std(0)
    scale = np.where(spread > 1e-9, spread, max(float(spread.mean()), 1e-9))
    ours, theirs = generated / scale, reference / scale
    count = min(NEIGHBOURS, len(reference) - 1)
    inside = _distances(theirs, theirs)
    np.fill_diagonal(inside, np.inf)
    usual = np.sort(inside, axis=1)[:, :count].mean(1)
    found = np.sort(_distances(ours, theirs), axis=1)[:, :count].mean(1)
    shares: np.ndarray = (usual[None] > found[:, None]).mean(1)
    return shares


def main_axes(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of all clips on the two axes along which they differ most (principal components of both sets).

    Args:
        generated: features (n, d).
        reference: features (m, d); m may be 0.

    Returns:
        (n, 2) and (m, 2).
    """
    every = np.concatenate([generated, reference]) if len(reference) else generated
    centred = every - every.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    # The sign of an axis is arbitrary: its largest weight is made positive, so that a page is the same each time.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    places = np.zeros((len(every), 2))
    places[:, : len(axes)] = centred @ axes.T
    return places[: len(generated)], places[len(generated) :]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
