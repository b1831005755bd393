"""How a run stands, in a small file beside its checkpoints: for the command that trains, and for people."""

import dataclasses
import json
import logging
import math
import signal as signals
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from riff.train.settings import LoopSettings
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import write_json

SUMMARY = "summary.json"


# WAS riff/train/validation.py: What a run's validation losses say: whether to go on, in words.

History = list[tuple[int, float]]


def advice(history: History) -> str | None:
    """Advice on when to stop, from validation losses in the order of their steps; None while there are too few.

    The loop never stops by itself: the least loss is not always the best music.
    """
    if history and not math.isfinite(history[-1][1]):
        return f"the validation loss at step {history[-1][0]} is not finite; lower the learning rate"
    finite = [(step, loss) for step, loss in history if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    best_step, best = min(finite, key=lambda entry: entry[1])
    last_step, last = finite[-1]
    since = [loss for step, loss in finite if step > best_step]
    if not since:
        begun = finite[-3][1]
        if begun - last > _SAME * abs(begun):
            return f"validation loss still falls ({last:.4g} at step {last_step}); more steps may help"
        return f"validation loss hardly moves any more ({last:.4g} at step {last_step}); this is a good place to stop"
    if len(since) >= 2 and min(since[-2:]) > best + _SAME * abs(best):
        return (
            f"validation loss was least at step {best_step} ({best:.4g}) and has risen since ({last:.4g} at step "
            f"{last_step}); stop here and train {best_step} steps, or lower the learning rate"
        )
    return None


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run stands.

    Attributes:
        step: steps done, all of them in a checkpoint.
        steps: steps in all.
        signal: ``"SIGINT"`` or ``"SIGTERM"`` where that stopped it, else None.
        validation: (step, loss) of every validation; a loss that was not finite is NaN.
        advice: what the validation losses say, or None.
    """

    step: int
    steps: int
    signal: str | None
    validation: History
    advice: str | None


def write_summary(run: Path, *, step: int, steps: int, signal: int | None, validation: History) -> None:
    """Write ``run/summary.json``; errors as in :func:`riff.utils.files.write_json`."""
    name = None if signal is None else signals.Signals(signal).name
    summary = RunSummary(step, steps, name, plain(validation), advice(validation))
    write_json(run / SUMMARY, dataclasses.asdict(summary))


def read_summary(run: Path) -> RunSummary:
    """The summary of a run's last checkpoint.

    Raises:
        RiffError: ``run`` has none, or it is no summary.
    """
    path = run / SUMMARY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunSummary(**values | {"validation": lifted(values["validation"])})
    except FileNotFoundError as error:
        raise RiffError(f"{run} holds no {SUMMARY}; give the folder of a training run") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RiffError(f"{path} is no summary of a run ({error}); the next checkpoint writes it anew") from error


def plain(history: History) -> History:
    """A history that JSON can hold: what is not finite becomes None."""
    return [(step, loss if math.isfinite(loss) else None) for step, loss in history]  # type: ignore[misc]


def lifted(history: list[list[float | None]]) -> History:
    """The inverse of :func:`plain`."""
    return [(int(step or 0), math.nan if loss is None else float(loss)) for step, loss in history]


# WAS riff/train/health.py: Whether a run is still well: losses that are not finite, gradients that are not, and
# losses that jump.

MAX_BAD_STEPS = 20
SPIKE = 10.0
WINDOW = 100
logger_health = logging.getLogger(__name__)


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

    def judge(self, loss: float, *, learnt: bool, warm: bool, tell: Callable[[], str]) -> None:
        """Take note of one step.

        Args:
            loss: of the step, over all its micro-batches.
            learnt: the step was taken, i.e. loss and gradient were finite.
            warm: the learning rate has finished its rise; a jump before that is no sign.
            tell: says where the run is and what to do, for the message.

        Raises:
            ModelError: the twentieth bad step, or the twentieth spike, in a row.
        """
        if not learnt:
            self.bad += 1
            what = "loss" if not math.isfinite(loss) else "gradient"
            if self.bad == MAX_BAD_STEPS:
                raise ModelError(f"the {what} was not finite for {MAX_BAD_STEPS} steps in a row ({tell()}")
            if self.bad == 1:
                logger_health.warning("the %s was not finite and the step is skipped (%s", what, tell())
            return
        self.bad = 0
        self._note(loss, warm, tell)

    def _note(self, loss: float, warm: bool, tell: Callable[[], str]) -> None:
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
            raise ModelError(f"{text} and stayed there for {MAX_BAD_STEPS} steps ({tell()}")
        if self.spikes == 1:
            logger_health.warning("%s (%s", text, tell())


# WAS riff/train/log.py: Where a run's figures go: TensorBoard, the trackers accelerate knows, the bar, and a
# line where there is no bar.

logger_log = logging.getLogger(__name__)


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
                logger_log.warning("the end of the log in %s could not be written (%s)", self.folder, error)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def write(self, figures: dict[str, float], done: int) -> None:
        """Log figures under their names as of ``done`` steps."""
        if self.writer is not None:
            try:
                self._scalars(figures, done)
            except OSError as error:  # of its thread: the folder was deleted, or the disk is full
                logger_log.warning("a part of the log in %s is lost (%s)", self.folder, error)
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
            logger_log.info("step %d/%d loss %.4f, %.0f s left", done, self.last, figures["loss"], left)


# Losses that differ by less say nothing.
_SAME = 0.005
