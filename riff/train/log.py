"""Where a run's progress and figures go: a bar or a line now and then, TensorBoard, accelerate's trackers."""

import logging
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from riff.train.settings import LoopSettings
from riff.utils.errors import SystemProblem

LINE_SECONDS = 30.0
logger = logging.getLogger(__name__)


class LoggedProgress:
    """A bar on a terminal. Elsewhere a line: after the first piece of work, then every half a minute, and at the end.

    Args:
        total: pieces of work in all.
        unit: what one is called.
        what: the work, for the line.
        initial: pieces done before.
        show: False is silent.
    """

    def __init__(self, total: int, unit: str, what: str, *, initial: int = 0, show: bool = True) -> None:
        self._bar = tqdm(total=total, initial=initial, unit=unit, desc=what, disable=None if show else True)
        self._lines = show and self._bar.disable
        self._total, self._unit, self._what, self._first = total, unit, what, initial
        self._done, self._began, self._said = initial, time.monotonic(), 0.0

    def update(self, count: int = 1, note: str = "") -> None:
        """Some more pieces are done; ``note`` follows the numbers."""
        self._done += count
        self._bar.update(count)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        now = time.monotonic()
        if self._lines and count and (not self._said or now - self._said > LINE_SECONDS or self._done == self._total):
            self._said = now
            more = f", {note}" if note else ""
            logger.info(
                "%s: %d of %d %ss, %s%s", self._what, self._done, self._total, self._unit, self._left(now), more
            )

    @property
    def total(self) -> int:
        """Pieces of work in all."""
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._total = self._bar.total = total

    def _left(self, now: float) -> str:
        each = (now - self._began) / max(1, self._done - self._first)
        seconds = each * (self._total - self._done)
        if self._done == self._total:
            return f"{now - self._began:.0f} s"
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"

    def __enter__(self) -> "LoggedProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class RunLog:
    """The log of one process; all but the main one's is empty.

    Attributes:
        writer: TensorBoard's, or None where this is not the main process.
    """

    def __init__(self, accelerator: Any, run: Path, settings: LoopSettings, first: int, last: int) -> None:
        self.accelerator, self._first = accelerator, first
        self.folder = run / "logs"
        self.writer: Any = None
        if accelerator.is_main_process:
            self._open(first)
        if accelerator.log_with:
            accelerator.init_trackers("riff", config=dict(vars(settings)))
        self.progress = LoggedProgress(last, "step", "training", initial=first, show=accelerator.is_main_process)
        self._began = time.monotonic()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.__exit__()
        if self.writer is not None:
            try:
                self.writer.close()
            except OSError as error:  # the checkpoints are what counts, and they are written
                logger.warning("the end of the log in %s could not be written (%s)", self.folder, error)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def write(self, figures: dict[str, float], done: int) -> None:
        """Log figures under their names as of ``done`` steps."""
        if self.writer is not None:
            try:
                self._scalars(figures, done)
            except OSError as error:  # of its thread: the folder was deleted, or the disk is full
                logger.warning("a part of the log in %s is lost (%s)", self.folder, error)
                self._open(0)
                self._scalars(figures, done)
        self.accelerator.log(figures, step=done)

    def write_with_speed(self, figures: dict[str, float], done: int) -> None:
        """As :meth:`write`, with the steps a second of this call."""
        speed = (done - self._first) / max(time.monotonic() - self._began, 1e-9)
        self.write(figures | {"steps_per_s": speed}, done)

    def _scalars(self, figures: dict[str, float], done: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, done)

    def _open(self, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            # What a killed run wrote after its last checkpoint is overwritten.
            self.writer = SummaryWriter(str(self.folder), purge_step=first + 1 if first else None)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SystemProblem(
                f"cannot write the log in {self.folder}: {reason}; make room, and the same command goes on from the "
                "last checkpoint"
            ) from error
