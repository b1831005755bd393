"""When sounds begin, to a millisecond: the energy after a moment over the energy before it.

Both fade exponentially away from the moment, so that the ratio peaks where an attack begins, short or long.
"""

import dataclasses
import math

import numpy as np

LATE = 0.9  # moments by which a peak is early, measured on clicks


@dataclasses.dataclass(frozen=True)
class Onsets:
    """How much louder a sound gets at every millisecond.

    Attributes:
        attack: (N,) logarithm of the energy after over the energy before, >= 0.
        rate: moments per second, near 1000.
    """

    attack: np.ndarray
    rate: float

    @classmethod
    def of(cls, mono: np.ndarray, sample_rate: int) -> "Onsets":
        """Those of a sound (T,) at ``sample_rate`` Hz."""
        hop = max(1, round(sample_rate / 1000))
        bright = np.diff(mono, prepend=mono[:1]) + 0.03 * mono
        rate = sample_rate / hop
        after, before = _around(bright, hop, 0.015 * rate)
        floor = 1e-3 * after.mean() + 1e-12
        attack = np.log(after + floor) - np.log(before + floor)
        return cls(np.clip(attack, 0.0, None), rate)

    def peak(self, time: float, near: float) -> tuple[float, float]:
        """Time and height of the peak of attack near a time, those farther away counting less; height 0 is none."""
        first = max(1, math.ceil((time - near) * self.rate))
        last = min(len(self.attack) - 1, math.floor((time + near) * self.rate) + 1)
        if last - first < 3:
            return time, 0.0
        here, left, right = (self.attack[first + step : last + step] for step in (0, -1, 1))
        distance = np.arange(first, last) / self.rate - time
        weighed = here * np.exp(-0.5 * (distance / (near / 2)) ** 2) * ((here >= left) & (here > right))
        index = int(np.argmax(weighed))
        if not weighed[index] > 0.0:
            return time, 0.0
        offset = 0.5 * (left[index] - right[index]) / (left[index] - 2.0 * here[index] + right[index])
        return (first + index + float(offset) + LATE) / self.rate, float(here[index])


def _around(sound: np.ndarray, hop: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy after and before each of the moments ``hop`` samples apart, fading over ``decay`` of them."""
    from scipy.signal import lfilter

    energy = np.add.reduceat(sound**2, np.arange(0, sound.size, hop)) / hop
    pole = math.exp(-1.0 / decay)
    smooth = (1.0 - pole) * np.stack([lfilter([1.0], [1.0, -pole], e) for e in (energy, energy[::-1])])
    return smooth[1][::-1], np.concatenate([[0.0], smooth[0][:-1]])
