"""One measured number, how sure it is, and what it means."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from riff.utils.errors import RiffError

RESAMPLINGS = 1000


# How often the detectors behind the figures of an evaluation are right themselves, where that is known.
#
# ``python -m training.measure.detectors --ship`` measures it on composed music of held-out seeds and writes the file.


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How often a detector was right where the truth is known.

    Attributes:
        value: share, 0..1.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        n: of how many.
        of: which, in words.
    """

    value: float
    low: float
    high: float
    n: int
    of: str

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % of {self.n} {self.of}"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of an evaluation.

    Attributes:
        name: what was measured; a distance's name holds its embedding.
        value: the number; NaN where it cannot be measured.
        unit: such as "dB" or "LU"; shares are 0..1 and have the unit "share".
        low: lower end of a 95 % interval; NaN where there is none.
        high: upper end.
        n: clips or pairs that it stands on.
        definition: one sentence, with the source of the formula.
        detector: how often that which detects it is right itself, where it was measured; else empty.
    """

    name: str
    value: float
    unit: str = ""
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    definition: str = ""
    detector: tuple[Accuracy, ...] = ()

    @property
    def reliability(self) -> str:
        """The detector's accuracy in words: "97.4 % of 312 composed clips with drums"; empty if there is none."""
        return ", ".join(map(str, self.detector))


def share_figure(name: str, hits: Iterable[bool], definition: str) -> Figure:
    """The share of hits with its Wilson interval; NaN of none.

    Args:
        name: of the figure.
        hits: one of each clip.
        definition: of the figure.
    """
    counted = [bool(hit) for hit in hits]
    if not counted:
        return Figure(name, math.nan, "share", definition=definition)
    low, high = wilson_interval(sum(counted), len(counted))
    return Figure(name, sum(counted) / len(counted), "share", low, high, len(counted), definition)


def mean_figure(
    name: str,
    values: Sequence[float],
    unit: str,
    definition: str,
    *,
    statistic: Callable[[np.ndarray], float] = lambda values: float(np.mean(values)),
) -> Figure:
    """A statistic over clips, by default the mean, with a 95 % percentile bootstrap interval (Efron 1979).

    Args:
        name: of the figure.
        values: one of each clip; those that are not finite are left out, and ``n`` counts the others.
        unit: of the figure.
        definition: of the figure.
        statistic: (k,) numbers to one.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return Figure(name, math.nan, unit, definition=definition)
    value = statistic(finite)
    if len(finite) == 1:
        return Figure(name, value, unit, n=1, definition=definition)
    rng = np.random.default_rng(0)
    drawn = [statistic(finite[rng.integers(0, len(finite), len(finite))]) for _ in range(RESAMPLINGS)]
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    return Figure(name, value, unit, low, high, len(finite), definition)


ACCURACY_FILE = Path(__file__).parent.parent / "models" / "detectors.json"
_ALL, _RHYTHMIC = {"all": "composed clips"}, {"rhythmic": "composed clips with drums"}
# What is shipped: a measure to the groups of clips that it is told of.
SHIPPED = {
    **{
        f"riff: tempo within {tolerance} %{octave}": _RHYTHMIC | _ALL
        for octave in ("", ", any octave")
        for tolerance in (1, 4)
    },
    "riff, by the tagger: key exact": _ALL,
    "riff's tagger: genre": _ALL,
    "riff's tagger: instruments that play": {"all": "instruments in composed clips"},
    "riff's tagger: all instruments that play": _ALL,
}
_OF_FIGURE = {
    "Tempo within 1 %": "riff: tempo within 1 %",
    "Tempo within 4 %": "riff: tempo within 4 %",
    "Tempo within 1 %, any octave": "riff: tempo within 1 %, any octave",
    "Tempo within 4 %, any octave": "riff: tempo within 4 %, any octave",
    "Key exact": "riff, by the tagger: key exact",
    "Genre (riff's tagger)": "riff's tagger: genre",
    "Instruments (riff's tagger)": "riff's tagger: instruments that play",
    "All instruments (riff's tagger)": "riff's tagger: all instruments that play",
}


def detector_accuracy(figure: str) -> tuple[Accuracy, ...]:
    """That of the detector on which a figure rests.

    Args:
        figure: its name.

    Returns:
        One or more groups of clips; none where nothing was measured.
    """
    return _shipped().get(_OF_FIGURE.get(figure, ""), ())


@functools.cache
def _shipped() -> dict[str, tuple[Accuracy, ...]]:
    if not ACCURACY_FILE.is_file():
        return {}
    found: dict[str, tuple[Accuracy, ...]] = {}
    for row in json.loads(ACCURACY_FILE.read_text(encoding="utf-8"))["shares"]:
        name = row.pop("name")
        found[name] = (*found.get(name, ()), Accuracy(**row))
    return found


# Statistics of sets: the Fréchet distance between two sets of features, and how sure a counted share is.


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
