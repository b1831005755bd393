"""The training loop: one model, one loss, resumable at any instant, the same bits however often it is stopped."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from riff.train.checkpoints import sole_trainer
from riff.train.processes import largest_over, new_accelerator, on_main
from riff.train.progress import RunLog, advice, write_summary
from riff.train.settings import BatchLoss, LoopSettings, NumberedLoss
from riff.train.state import TrainState
from riff.utils.errors import RiffError

LOG_STEPS = 20
Preview = Callable[[nn.Module, int, Any], None]
Validation = Callable[[nn.Module], float]
logger = logging.getLogger(__name__)


def train(
    model: nn.Module,
    batch_loss: BatchLoss | NumberedLoss,
    settings: LoopSettings,
    run: Path,
    *,
    preview: Preview | None = None,
    validation: Validation | None = None,
    recipe: Mapping[str, Any] | None = None,
    until: int | None = None,
) -> bool:
    """Train ``model`` in place, from the run's last checkpoint if it has one; it ends with the averaged weights.

    Under ``accelerate launch`` with several processes, every one calls this; their gradients are averaged, and the
    main one writes. How the run stands, with the signal that stopped it and the validation losses, is then in
    ``run/summary.json`` (:func:`riff.train.progress.read_summary`).

    Args:
        model: what is trained; parameters that do not require gradients stay as they are.
        batch_loss: samples a batch with the given generator and returns the loss and figures to log; as a
            :class:`riff.train.settings.NumberedLoss` it also gets the number of the micro-batch in the run.
        settings: see :class:`riff.train.settings.LoopSettings`.
        run: folder of checkpoints and TensorBoard logs; all processes must see it.
        preview: called on the main process with the averaged model, the step and the TensorBoard writer.
        validation: called on every process with the averaged model each ``validation_steps`` and at the end; its loss
            is logged as ``validation/loss`` and kept, and advice on when to stop comes from it.
        recipe: plain facts of the caller's (batch size, data) that a resumed run must find unchanged.
        until: stop after this step although the schedule goes on, so that a later call can go on with more data.

    Returns:
        False if SIGINT or SIGTERM cut it short, with a checkpoint of that moment; else True. A second signal ends the
        process at once.

    Raises:
        RiffError: another process trains in ``run``, or what is there was made with other settings or another model.
        ModelError: losses or gradients were not finite, or far too high, for twenty steps in a row; or every
            checkpoint is damaged.
        SystemProblem: a checkpoint could not be written. The older ones are whole.
    """
    if settings.steps is None:
        raise RiffError("the settings have no number of steps; give one")
    with contextlib.ExitStack() as held:
        accelerator = new_accelerator(settings, str(run / "logs"))
        on_main(accelerator, lambda: held.enter_context(sole_trainer(run)))
        state = TrainState(model, settings, run, accelerator, recipe or {})
        first = state.restore()
        last = settings.steps if until is None else min(until, settings.steps)
        log = held.enter_context(RunLog(accelerator, run, settings, first, last))
        stop = held.enter_context(StopFlag(launched=accelerator.num_processes > 1))
        stopped_by = _Run(state, NumberedLoss.of(batch_loss), preview, validation, log, stop).go(first, last)
        state.ema.copy_to(state.parameters)
    return stopped_by is None


# Ctrl-C and SIGTERM: the first asks for a clean stop, a second leaves at once.


class StopFlag:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one takes effect at once.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self, *, launched: bool = False) -> None:
        """``launched``: this is one of several processes, so a second signal right after the first is its echo."""
        self.signal: int | None = None
        self._launched = launched
        self._when = 0.0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: object) -> None:
        if self.signal is None:
            self.signal, self._when = number, time.monotonic()
        elif not self._launched or time.monotonic() - self._when > _ECHO_SECONDS:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def check(self) -> None:
        """Raise StopRequested if a signal came."""
        if self.signal is not None:
            raise StopRequested

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class _Run:
    """The steps of one call, with all that happens between them."""

    def __init__(
        self,
        state: TrainState,
        loss_of: NumberedLoss,
        preview: Preview | None,
        validation: Validation | None,
        log: RunLog,
        stop: StopFlag,
    ) -> None:
        self.state, self.loss_of, self.log, self.stop = state, loss_of, log, stop
        self.preview, self.validation = preview, validation
        self.settings, self.accelerator = state.settings, state.accelerator

    def go(self, first: int, last: int) -> int | None:
        """Take the steps from ``first`` to ``last``; the signal that cut them short, or None."""
        if first:
            self._validate(first, last)  # due, perhaps, when the run was stopped
        for step in range(first, last):
            loss, figures = self.state.learn(self.loss_of, step)
            done = step + 1
            self.log.progress.update(note=f"loss {loss:.4f}")
            if done % LOG_STEPS == 0 or done == last:
                self.log.write_with_speed(self.state.figures(figures, loss, step), done)
            # All processes have to leave after the same step, whichever of them got the signal.
            stopped_by = largest_over(self.accelerator, self.stop.signal or 0) or None
            if stopped_by is None:
                self._validate(done, last)
            if stopped_by is not None or done % self.settings.checkpointing_steps == 0 or done == last:
                self._publish(done, stopped_by)
            if stopped_by is not None:
                if self.accelerator.is_main_process:
                    name = signal.Signals(stopped_by).name
                    logger.info("stopped by %s at step %d of %d; the same command goes on from there", name, done, last)
                return stopped_by
            self._show(done, last)  # after what is kept: no step depends on a preview
        return None

    def _publish(self, done: int, stopped_by: int | None) -> None:
        state = self.state
        state.publish(done)
        steps, history = self.settings.steps or 0, state.validation
        on_main(
            self.accelerator,
            lambda: write_summary(state.run, step=done, steps=steps, signal=stopped_by, validation=history),
        )

    def _validate(self, done: int, last: int) -> None:
        history = self.state.validation
        due = done % self.settings.validation_steps == 0 or done == last
        if self.validation is None or not due or (history and history[-1][0] == done):
            return
        with self.state.averaged() as model:
            loss = float(self.validation(model))
        history.append((done, loss))
        if math.isfinite(loss):
            self.log.write({"validation/loss": loss}, done)
        words = advice(history)
        if words and self.accelerator.is_main_process:
            logger.info("%s", words)

    def _show(self, done: int, last: int) -> None:
        due = done % self.settings.preview_steps == 0 or done == last
        if self.preview is not None and due and self.log.writer is not None:
            with self.state.averaged() as model:
                self.preview(model, done, self.log.writer)


# A launcher of several processes passes Ctrl-C on to workers that have it from the terminal already.
_ECHO_SECONDS = 2.0


class StopRequested(Exception):
    """A signal came while a run was being prepared; what was worked out is in its cache."""
