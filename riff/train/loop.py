"""The training loop: one model, one loss, resumable at any instant, the same bits however often it is stopped."""

import contextlib
import hashlib
import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riff.train.checkpoints import (
    Checkpoint,
    figures_over,
    gathered,
    largest_over,
    load_checkpoint,
    mean_over,
    new_accelerator,
    new_optimizer,
    newest_checkpoint,
    on_main,
    optimizer_to_tensors,
    same_everywhere,
    save_checkpoint,
    sharded_like,
    sole_trainer,
    tensors_to_optimizer,
)
from riff.train.progress import Health, History, RunLog, advice, lifted, plain, write_summary
from riff.train.settings import (
    BatchLoss,
    LoopSettings,
    NumberedLoss,
    changes,
    generator_of,
    learning_rate_at,
    micro_batch_numbers,
    recipe_of,
)
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
    allow_changes: bool = False,
    until: int | None = None,
    device: str | None = None,
) -> bool:
    """Train ``model`` in place, from the run's last checkpoint if it has one; it ends with the averaged weights.

    Under ``accelerate launch`` with several processes, every one calls this; their gradients are averaged, and the
    main one writes. How the run stands, with the signal that stopped it and the validation losses, is then in
    ``run/summary.json`` (:func:`riff.train.progress.read_summary`).

    Args:
        model: what is trained; parameters that do not require gradients stay as they are.
        batch_loss: draws a batch with the generator it is given and returns the loss and figures to log; as a
            :class:`riff.train.settings.NumberedLoss` it is also told which micro-batch of the run this is.
        settings: see :class:`riff.train.settings.LoopSettings`.
        run: folder of checkpoints and TensorBoard logs; all processes must see it.
        preview: called on the main process with the averaged model, the step and the TensorBoard writer.
        validation: called on every process with the averaged model each ``validation_steps`` and at the end; its loss
            is logged as ``validation/loss`` and kept, and advice on when to stop comes from it.
        recipe: plain facts of the caller's own (batch size, data) that a resumed run must find unchanged.
        allow_changes: go on although settings or ``recipe`` have changed.
        until: stop after this step although the schedule goes on, so that a later call can go on with more data.
        device: ``None`` is what accelerate finds.

    Returns:
        False if SIGINT or SIGTERM cut it short, with a checkpoint of that moment; else True. A second signal is
        obeyed at once.

    Raises:
        RiffError: another process trains in ``run``, or what is there was made with other settings or another model.
        ModelError: losses or gradients were not finite, or far too high, for twenty steps in a row; or every
            checkpoint is damaged.
        SystemProblem: a checkpoint could not be written. The older ones are whole.
    """
    with contextlib.ExitStack() as held:
        accelerator = new_accelerator(settings, str(run / "logs"), device)
        on_main(accelerator, lambda: held.enter_context(sole_trainer(run)))
        trainee = TrainState(model, settings, run, accelerator, recipe or {})
        first = trainee.restore(allow_changes=allow_changes)
        last = settings.steps if until is None else min(until, settings.steps)
        log = held.enter_context(RunLog(accelerator, run, settings, first, last))
        stop = held.enter_context(StopFlag(launched=accelerator.num_processes > 1))
        course = _Run(trainee, NumberedLoss.of(batch_loss), preview, validation, log, stop)
        stopped_by = course.go(first, last)
        trainee.ema.copy_to(trainee.parameters)
    return stopped_by is None


# WAS riff/train/stop.py: Ctrl-C and SIGTERM: the first asks for a clean stop after the step, a second leaves at
# once.


class StopFlag:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one is obeyed at once.

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
                self._old[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _frame: object) -> None:
        if self.signal is None:
            self.signal, self._when = number, time.monotonic()
        elif not self._launched or time.monotonic() - self._when > _SAME_SECONDS:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


# WAS riff/train/trainee.py: A model with all that changes while it trains: the optimizer step, and the way to
# disk and back.


class TrainState:
    """A model, its optimizer, the running average of its weights, and what is known of how it is doing.

    Only what is trained is saved; of the frozen weights a hash is, by which a resumed run knows them.
    """

    def __init__(
        self, model: nn.Module, settings: LoopSettings, run: Path, accelerator: Any, recipe: Mapping[str, Any]
    ) -> None:
        from diffusers.training_utils import EMAModel

        self.model, self.settings, self.run, self.accelerator = model, settings, run, accelerator
        self.recipe = recipe_of(settings, accelerator.num_processes, recipe, _frozen_hash(model))
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        trained = [value for value in model.parameters() if value.requires_grad]
        if not trained:
            raise RiffError("nothing of the model is to be trained: no parameter requires a gradient")
        optimizer = new_optimizer(trained, settings, fused=accelerator.device.type in ("cpu", "cuda"))
        compiled = torch.compile(model) if settings.compile else model
        self.prepared, self.optimizer = accelerator.prepare(compiled, optimizer)
        # Sharding puts other parameters in the model's place, so they are looked up after it.
        self.parameters = [value for value in model.parameters() if value.requires_grad]
        self.ema = EMAModel(self.parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
        self.ema.to(accelerator.device)
        self.health = Health()
        self.validation: History = []

    def restore(self, *, allow_changes: bool) -> int:
        """Take up the newest whole checkpoint, if any; the number of steps done."""
        found, passed = load_checkpoint(self.run)
        if self.accelerator.is_main_process:
            for folder, fault in passed:
                warnings.warn(f"passed over the damaged checkpoint {folder}: {fault}", stacklevel=3)
        step = found.step if found else 0
        if not same_everywhere(self.accelerator, step):
            raise RiffError(f"the processes find different checkpoints in {self.run}; put it where all of them see it")
        if not same_everywhere(self.accelerator, self.recipe):
            raise RiffError("the processes were given different settings; start all of them with the same command")
        if found:
            self._check(found, allow_changes)
            self._take_up(found)
        return step

    def _check(self, found: Checkpoint, allow_changes: bool) -> None:
        changed = changes(found.state.get("recipe", {}), self.recipe)
        if changed and not allow_changes:
            raise RiffError(
                f"{self.run} was trained with other settings ({'; '.join(changed)}); "
                "give the old ones to go on, allow the changes, or choose another folder"
            )
        if changed and self.accelerator.is_main_process:
            logger_trainee.warning("going on with other settings: %s", "; ".join(changed))
        own, saved = self._trained(), found.tensors["model"]
        wrong = [name for name, value in own.items() if name not in saved or saved[name].shape != value.shape]
        if wrong or len(found.tensors["ema"]) != len(self.parameters):
            name = wrong[0] if wrong else "the running average"
            raise RiffError(
                f"{self.run} holds checkpoints of another model ({name} differs, and {max(0, len(wrong) - 1)} more); "
                "choose another folder"
            )

    def _trained(self) -> dict[str, Tensor]:
        """Parameters that are trained, and buffers, by their names in the model."""
        frozen = {name for name, value in self.model.named_parameters() if not value.requires_grad}
        return {name: value for name, value in self.model.state_dict().items() if name not in frozen}

    @torch.no_grad()
    def _take_up(self, found: Checkpoint) -> None:
        saved = found.tensors
        own = self.model.state_dict()
        for name, value in saved["model"].items():
            if name in own:
                own[name].copy_(sharded_like(value, own[name]))
        for i, average in enumerate(self.ema.shadow_params):
            average.copy_(sharded_like(saved["ema"][str(i)], average))
        moments = {
            key: sharded_like(value, self.parameters[int(key.split(".")[0])])
            for key, value in saved["optimizer"].items()
        }
        tensors_to_optimizer(moments, self.optimizer.optimizer)
        self.ema.optimization_step = found.state["ema_step"]
        self.health = Health(**found.state.get("health", {}))
        self.validation = lifted(found.state.get("validation", []))
        if self.accelerator.scaler is not None and "scaler" in found.state:
            self.accelerator.scaler.load_state_dict(found.state["scaler"])

    def publish(self, step: int) -> None:
        """Write a checkpoint of this moment; every process must call this."""
        from riff.version import __version__

        groups = {
            "model": self._trained(),
            "ema": {str(i): value for i, value in enumerate(self.ema.shadow_params)},
            "optimizer": optimizer_to_tensors(self.optimizer.optimizer),
        }
        tensors = {group: {name: gathered(value) for name, value in values.items()} for group, values in groups.items()}
        state = {
            "ema_step": self.ema.optimization_step,
            "recipe": self.recipe,
            "health": self.health.state(),
            "validation": plain(self.validation),
            "versions": {"riff": __version__, "torch": str(torch.__version__)},
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        on_main(self.accelerator, lambda: save_checkpoint(self.run, Checkpoint(step, tensors, state)))

    def learn(self, loss_of: NumberedLoss, step: int) -> tuple[float, list[dict[str, float]]]:
        """One optimizer step, or none where loss or gradient are not finite.

        Returns:
            The mean loss over the step's micro-batches in all processes, and the figures of this process's own.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.settings)
        own, figures = self._accumulate(loss_of, step)
        loss = mean_over(self.accelerator, own)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        learnt = math.isfinite(loss) and bool(torch.isfinite(gathered(norm)))
        # The scaler of fp16 has to see a gradient that overflowed, so that it scales less; it skips the step itself.
        if learnt or self.accelerator.scaler is not None:
            self.optimizer.step()
        if learnt:
            self.ema.step(self.parameters)
        self.optimizer.zero_grad(set_to_none=True)
        warm = step >= self.settings.warmup_steps
        self.health.judge(loss, learnt=learnt, warm=warm, tell=lambda: self._tell(loss_of, step))
        return loss, figures

    def _accumulate(self, loss_of: NumberedLoss, step: int) -> tuple[float, list[dict[str, float]]]:
        accelerator, seed = self.accelerator, self.settings.seed
        accumulation = self.settings.gradient_accumulation_steps
        losses, every = [], []
        for index, numbers in enumerate(micro_batch_numbers(step, accumulation, accelerator.num_processes)):
            number = numbers[accelerator.process_index]
            # Gradients travel between the processes once a step, with the last micro-batch.
            alone = nullcontext() if index == accumulation - 1 else accelerator.no_sync(self.prepared)
            with alone:
                with accelerator.autocast():
                    loss, figures = loss_of.batch_loss(self.prepared, generator_of(seed, number), number)
                accelerator.backward(loss / accumulation)
            losses.append(float(loss.detach()))
            every.append(figures)
        return sum(losses) / accumulation, every

    def _tell(self, loss_of: NumberedLoss, step: int) -> str:
        """Where a run that went wrong is, and how to mend it."""
        place = f"step {step}, learning rate {learning_rate_at(step, self.settings):.3g}"
        if loss_of.describe is not None:
            accumulation = self.settings.gradient_accumulation_steps
            numbers = micro_batch_numbers(step, accumulation, self.accelerator.num_processes)
            place += f", batch of {'; '.join(loss_of.describe(number) for each in numbers for number in each)}"
        newest = newest_checkpoint(self.run)
        saved = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        return f"{place}); {saved}; if it goes on, lower the learning rate or look at what the batch holds"

    def figures(self, figures: list[dict[str, float]], loss: float, step: int) -> dict[str, float]:
        """What to log of a step; every process must call this."""
        rate = learning_rate_at(step, self.settings)
        return figures_over(self.accelerator, figures) | {"loss": loss, "lr": rate}

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with its averaged weights, for the length of the block."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield self.model
        finally:
            self.ema.restore(self.parameters)


class _Run:
    """The steps of one call, with all that happens between them."""

    def __init__(
        self,
        trainee: TrainState,
        loss_of: NumberedLoss,
        preview: Preview | None,
        validation: Validation | None,
        log: RunLog,
        stop: StopFlag,
    ) -> None:
        self.trainee, self.loss_of, self.log, self.stop = trainee, loss_of, log, stop
        self.preview, self.validation = preview, validation
        self.settings, self.accelerator = trainee.settings, trainee.accelerator

    def go(self, first: int, last: int) -> int | None:
        """Take the steps from ``first`` to ``last``; the signal that cut them short, or None."""
        if first:
            self._validate(first, last)  # due, perhaps, when the run was stopped
        for step in range(first, last):
            loss, figures = self.trainee.learn(self.loss_of, step)
            done = step + 1
            self.log.bar.update()
            if done % LOG_STEPS == 0 or done == last:
                self.log.pace(self.trainee.figures(figures, loss, step), done)
            # All processes have to leave after the same step, whichever of them was told.
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
            self._show(done, last)  # after what is kept: nothing learnt hangs on a preview
        return None

    def _publish(self, done: int, stopped_by: int | None) -> None:
        trainee = self.trainee
        trainee.publish(done)
        steps, history = self.settings.steps, trainee.validation
        on_main(
            self.accelerator,
            lambda: write_summary(trainee.run, step=done, steps=steps, signal=stopped_by, validation=history),
        )

    def _validate(self, done: int, last: int) -> None:
        history = self.trainee.validation
        due = done % self.settings.validation_steps == 0 or done == last
        if self.validation is None or not due or (history and history[-1][0] == done):
            return
        with self.trainee.averaged() as model:
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
            with self.trainee.averaged() as model:
                self.preview(model, done, self.log.writer)


# A launcher of several processes passes Ctrl-C on to workers that the terminal has told already.
_SAME_SECONDS = 2.0
logger_trainee = logging.getLogger(__name__)


def _frozen_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        if not value.requires_grad:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
