"""Statistics of sets: the Fréchet distance between two sets of features, and how sure a counted share is."""

import math

import numpy as np

from riff.errors import RiffError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two feature sets (Dowson & Landau 1982).

    ``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2))`` with the sample covariances A and B. It is biased
    upwards for few samples: compare only figures taken with equal sizes.

    Args:
        a: features, shape (n, d), n >= 2.
        b: features, shape (m, d), m >= 2.

    Returns:
        The distance, >= 0, in squared units of the features.

    Raises:
        RiffError: the shapes do not fit, or a value is not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise RiffError(f"feature sets have shapes {a.shape} and {b.shape}; use (n, d) and (m, d) with n, m >= 2")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise RiffError("a feature set holds NaN or infinite values; drop those clips first")
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root_a = _symmetric_root(cov_a)
    # A B and A^(1/2) B A^(1/2) have the same eigenvalues, and the second is symmetric: no complex square
    # root.
    shared = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    cross = np.sqrt(np.clip(shared, 0.0, None)).sum()
    gap = a.mean(0) - b.mean(0)
    return float(max(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross, 0.0))


def wilson_interval(hits: int, total: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a share counted as ``hits`` of ``total`` (Wilson 1927).

    Args:
        hits: successes, 0 <= hits <= total.
        total: trials; 0 gives (0, 1).
        z: normal quantile, 1.96 for 95 %.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        RiffError: hits outside 0..total.
    """
    if not 0 <= hits <= total:
        raise RiffError(f"{hits} hits of {total} is not a share; use 0 <= hits <= total")
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    scale = 1.0 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root
