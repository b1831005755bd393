"""Where a run's figures go: TensorBoard, the trackers accelerate knows, the bar, and a line where there is no bar."""

import logging
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from riff.errors import SystemProblem
from riff.train.settings import LoopSettings

logger = logging.getLogger(__name__)


class RunLog:
    """The log of one process; all but the main one's is empty.

    Attributes:
        writer: TensorBoard's, or None where this is not the main process.
    """

    def __init__(self, accelerator: Any, run: Path, settings: LoopSettings, first: int, last: int) -> None:
        self.accelerator, self.first, self.last = accelerator, first, last
        self.folder = run / "logs"
        self.writer: Any = None
        main = accelerator.is_main_process
        if main:
            self._open(first)
        if accelerator.log_with:
            accelerator.init_trackers("riff", config=dict(vars(settings)))
        self.bar = tqdm(total=last, initial=first, disable=None if main else True, unit="step")
        self.began = time.time()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
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

    def _scalars(self, figures: dict[str, float], done: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, done)

    def _open(self, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            # What a killed run wrote after its last checkpoint is drawn over.
            self.writer = SummaryWriter(str(self.folder), purge_step=first + 1 if first else None)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SystemProblem(
                f"cannot write the log in {self.folder}: {reason}; make room, and the same command goes on from the "
                "last checkpoint"
            ) from error

    def pace(self, figures: dict[str, float], done: int) -> None:
        """Log a step's figures with the speed, and show them."""
        speed = (done - self.first) / max(time.time() - self.began, 1e-9)
        self.write(figures | {"steps_per_s": speed}, done)
        self.bar.set_postfix(loss=f"{figures['loss']:.4f}")
        if self.writer is not None and self.bar.disable and done % 100 == 0:  # no terminal: a line for the log file
            left = (self.last - done) / speed
            logger.info("step %d/%d loss %.4f, %.0f s left", done, self.last, figures["loss"], left)
