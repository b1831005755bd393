"""Where single clips stand among others: how near to a reference, and where on the two main axes of all."""

import numpy as np

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
