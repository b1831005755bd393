"""One measured number, how sure it is, and what it means."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from riff.evaluate.accuracy import Accuracy
from riff.evaluate.sets import wilson_interval

RESAMPLINGS = 1000


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
        detector: how often that which hears it is right itself, where it was measured; else empty.
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
