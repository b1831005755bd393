"""Whether a run is well: losses that are not finite, gradients that are not, and losses that jump."""

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
                logger_health.warning("the %s was not finite and the step is skipped (%s", what, where())
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
            logger_health.warning("%s (%s", text, where())


# Where a run's progress and figures go: a bar or a line now and then, TensorBoard, accelerate's trackers.

LINE_SECONDS = 30.0
logger_log = logging.getLogger(__name__)


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
            logger_log.info(
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


# How a run stands, in a small file beside its checkpoints, and what its validation losses say.

SUMMARY = "summary.json"
_SAME = 0.005  # losses that differ by less, as a share, say nothing
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
    summary = RunSummary(step, steps, name, to_json(validation), advice(validation))
    write_json(run / SUMMARY, dataclasses.asdict(summary))


def read_summary(run: Path) -> RunSummary:
    """The summary of a run's last checkpoint.

    Raises:
        RiffError: ``run`` has none, or it is no summary.
    """
    path = run / SUMMARY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunSummary(**values | {"validation": from_json(values["validation"])})
    except FileNotFoundError as error:
        raise RiffError(f"{run} holds no {SUMMARY}; give the folder of a training run") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RiffError(f"{path} is no summary of a run ({error}); the next checkpoint replaces it") from error


def to_json(history: History) -> History:
    """A history that JSON can hold: what is not finite becomes None."""
    return [(step, loss if math.isfinite(loss) else None) for step, loss in history]  # type: ignore[misc]


def from_json(history: list[list[float | None]]) -> History:
    """The inverse of :func:`to_json`."""
    return [(int(step or 0), math.nan if loss is None else float(loss)) for step, loss in history]


def note_signal(run: Path, signal: int | None) -> None:
    """Record that a signal stopped a run between its steps: while it was prepared, or was prepared once more."""
    run.mkdir(parents=True, exist_ok=True)
    if (run / SUMMARY).is_file():
        found = read_summary(run)
        write_summary(run, step=found.step, steps=found.steps, signal=signal, validation=found.validation)
    else:
        write_summary(run, step=0, steps=0, signal=signal, validation=[])
