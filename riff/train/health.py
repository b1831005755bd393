"""Whether a run is well: losses that are not finite, gradients that are not, and losses that jump."""

import dataclasses
import logging
import math
import statistics
from collections.abc import Callable
from typing import Any

from riff.utils.errors import ModelError

MAX_BAD_STEPS = 20
SPIKE = 10.0
WINDOW = 100
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Health:
    """The losses of late, and how many steps in a row went wrong. It is saved with the run, so that one that was
    stopped and resumed judges as one that was not.

    Attributes:
        recent: the last losses that were no spikes, at most ``WINDOW``.
        first: the run's first finite loss.
        bad: steps in a row without a finite loss and gradient; they were skipped.
        spikes: steps in a row whose loss was more than ``SPIKE`` times the median of the recent ones.
    """

    recent: list[float] = dataclasses.field(default_factory=list)
    first: float | None = None
    bad: int = 0
    spikes: int = 0

    def state(self) -> dict[str, Any]:
        """Plain values for the checkpoint, from which ``Health(**state)`` is the same again."""
        return dataclasses.asdict(self)

    def judge(self, loss: float, *, learnt: bool, warm: bool, where: Callable[[], str]) -> None:
        """Take note of one step.

        Args:
            loss: of the step, over all its micro-batches.
            learnt: the step was taken, i.e. loss and gradient were finite.
            warm: the learning rate has finished its rise; a jump before that is no sign.
            where: says where the run is and what to do, for the message.

        Raises:
            ModelError: the twentieth bad step, or the twentieth spike, in a row.
        """
        if not learnt:
            self.bad += 1
            what = "loss" if not math.isfinite(loss) else "gradient"
            if self.bad == MAX_BAD_STEPS:
                raise ModelError(f"the {what} was not finite for {MAX_BAD_STEPS} steps in a row ({where()}")
            if self.bad == 1:
                logger.warning("the %s was not finite and the step is skipped (%s", what, where())
            return
        self.bad = 0
        self._note(loss, warm, where)

    def _note(self, loss: float, warm: bool, where: Callable[[], str]) -> None:
        if self.first is None:
            self.first = loss
        # A loss that has all but vanished may jump by any factor and mean nothing.
        usual = max(statistics.median(self.recent), self.first / 1000) if len(self.recent) == WINDOW else math.inf
        if not warm or usual <= 0 or loss <= SPIKE * usual:
            self.spikes = 0
            self.recent = [*self.recent, loss][-WINDOW:]
            return
        self.spikes += 1
        text = f"the loss jumped from {usual:.3g} to {loss:.3g}"
        if self.spikes == MAX_BAD_STEPS:
            raise ModelError(f"{text} and stayed there for {MAX_BAD_STEPS} steps ({where()}")
        if self.spikes == 1:
            logger.warning("%s (%s", text, where())
