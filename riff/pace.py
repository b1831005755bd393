"""When each bar of endless music is begun, and in how many steps it is drawn: as late, and as well, as is safe.

What is newly asked for is walked to in the first quarter of the next bar that is begun. A change that comes just after
a bar was begun waits for what is left of the bar that is heard, the one that is being drawn, and the way: the
:func:`lookahead_s`, a bar and a quarter. Where a bar is drawn in half of its time, that is two bars. It is less where
there is time to begin the bar anew.
"""

import math

STEPS = (6, 10)  # of a bar: at least, and at most
SHARE = 0.45  # of a bar's time, in which it is drawn where that is possible
_MARGIN = 1.5  # times what a bar usually takes, for which it is begun before it is due
_NARROW = 1.2  # and for which one that is no longer wanted is begun anew


def lookahead_s(bar_seconds: float, took_s: float) -> float:
    """Seconds before the end of what was sent at which the next bar is begun: as late as is safe, at most a bar.

    Args:
        bar_seconds: length of a bar.
        took_s: that it takes to draw one.
    """
    return min(max(_MARGIN * took_s, 0.5 * bar_seconds), bar_seconds)


def fitting_steps(bar_seconds: float, step_s: float) -> int:
    """Denoising steps for which there is time, between the least and the most of :data:`STEPS`.

    Args:
        bar_seconds: length of a bar.
        step_s: that a step takes, with its share of all the rest.
    """
    return min(max(int(SHARE * bar_seconds / step_s), STEPS[0]), STEPS[1])


class Pace:
    """How one listener's music is kept up; the clock is the caller's.

    Attributes:
        gaps: how often the listener has had to wait.
        end: when what was sent will have been heard; None before the first bar.
    """

    def __init__(self, steps: int | None = None, *, most: int = STEPS[1]) -> None:
        """Before the first bar, which takes the least of steps, to come soon.

        Args:
            steps: of every bar; None takes as many as there is time for.
            most: that it takes then.
        """
        self._steps, self._most = steps, most
        self._step_s = math.inf  # until it is known
        self.gaps = 0
        self.end: float | None = None

    def steps(self, bar_seconds: float) -> int:
        """Denoising steps of the next bar."""
        if self._steps is not None:
            return self._steps
        return min(fitting_steps(bar_seconds, self._step_s), self._most)

    def note_sent(self, seconds: float, *, took_s: float, steps: int, now: float) -> None:
        """Count a bar that the listener has got. Who had to wait for it hears it from now on.

        Args:
            seconds: of music.
            took_s: from when it was asked for; the first bar's does not count, since a compiler may have run.
            steps: that it was drawn in.
            now: on a monotonic clock.
        """
        if self.end is None:
            self.end = now
        else:
            step_s = took_s / steps
            self._step_s = step_s if math.isinf(self._step_s) else 0.5 * (self._step_s + step_s)
        if now > self.end:
            self.gaps += 1
            self.end = now
        self.end += seconds

    def idle_s(self, bar_seconds: float, now: float) -> float:
        """Seconds from ``now`` until the next bar should be begun."""
        if self.end is None:
            return 0.0
        return max(0.0, self.end - now - lookahead_s(bar_seconds, self._bar_s(bar_seconds)))

    def has_time(self, bar_seconds: float, now: float) -> bool:
        """Whether a bar that is begun at ``now`` will be there when it is due."""
        return self.end is not None and self.end - now > _NARROW * self._bar_s(bar_seconds)

    def _bar_s(self, bar_seconds: float) -> float:
        """Seconds that the next bar will take."""
        return self._step_s * self.steps(bar_seconds)
