"""The training loop: one model, one loss, resumable at any instant, the same bits however often it is stopped."""

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from riff.errors import RiffError
from riff.train.micro import BatchLoss, NumberedLoss, generator_of, micro_batch_numbers
from riff.train.runs import (
    Checkpoint,
    load_checkpoint,
    optimizer_to_tensors,
    save_checkpoint,
    tensors_to_optimizer,
)
from riff.train.settings import LoopSettings, learning_rate_at

__all__ = ["BatchLoss", "LoopSettings", "NumberedLoss", "learning_rate_at", "train"]
MAX_BAD_LOSSES = 20
logger = logging.getLogger(__name__)


class _StopFlag:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one is obeyed at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_StopFlag":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self.signal = number
        signal.signal(number, self._old[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class _Trainee:
    """A model with all that changes while it trains, and its way to disk and back."""

    def __init__(self, model: nn.Module, settings: LoopSettings, run: Path, device: str | None) -> None:
        from accelerate import Accelerator
        from diffusers.training_utils import EMAModel

        self.model, self.settings, self.run = model, settings, run
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision, cpu=device == "cpu")
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=self.accelerator.device.type == "cuda",
        )
        compiled = torch.compile(model) if settings.compile else model
        self.prepared, self.optimizer = self.accelerator.prepare(compiled, optimizer)
        self.ema = EMAModel(self.parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
        self.ema.to(self.accelerator.device)
        self.bad_losses = 0

    def restore(self) -> int:
        """Take up the newest whole checkpoint, if any; the number of steps done."""
        found, skipped = load_checkpoint(self.run)
        for folder in skipped:
            warnings.warn(f"passed over the damaged checkpoint {folder}", stacklevel=3)
        if found is None:
            return 0
        self.model.load_state_dict(found.tensors["model"])
        tensors_to_optimizer(found.tensors["optimizer"], self.optimizer.optimizer)
        averages = found.tensors["ema"]
        self.ema.shadow_params = [averages[str(i)].to(self.accelerator.device) for i in range(len(averages))]
        self.ema.optimization_step = found.state["ema_step"]
        return found.step

    def publish(self, step: int) -> None:
        """Write a checkpoint of this moment."""
        if self.accelerator.is_main_process:
            tensors = {
                "model": dict(self.model.state_dict()),
                "ema": {str(i): value for i, value in enumerate(self.ema.shadow_params)},
                "optimizer": optimizer_to_tensors(self.optimizer.optimizer),
            }
            save_checkpoint(self.run, Checkpoint(step, tensors, {"ema_step": self.ema.optimization_step}))

    def learn(self, loss_of: NumberedLoss, step: int) -> dict[str, float]:
        """One optimizer step, or none where the loss is not finite; the figures to log."""
        settings, accelerator = self.settings, self.accelerator
        accumulation = settings.gradient_accumulation_steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        total, figures = 0.0, {}
        for numbers in micro_batch_numbers(step, accumulation, accelerator.num_processes):
            number = numbers[accelerator.process_index]
            with accelerator.autocast():
                loss, figures = loss_of.batch_loss(self.prepared, generator_of(settings.seed, number), number)
            accelerator.backward(loss / accumulation)
            total += float(loss.detach()) / accumulation
        if math.isfinite(total):
            accelerator.clip_grad_norm_(self.parameters, settings.max_grad_norm)
            self.optimizer.step()
            self.ema.step(self.parameters)
            self.bad_losses = 0
        else:
            self.bad_losses += 1
            if self.bad_losses == MAX_BAD_LOSSES:
                raise RiffError(
                    f"the loss was not finite for {MAX_BAD_LOSSES} steps in a row (step {step}); "
                    "lower the learning rate"
                )
        self.optimizer.zero_grad(set_to_none=True)
        return figures | {"loss": total, "lr": learning_rate_at(step, settings)}

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with its averaged weights, for the length of the block."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        yield self.model
        self.ema.restore(self.parameters)


def _log(writer: Any, bar: Any, figures: dict[str, float], done: int) -> None:
    for name, value in figures.items():
        writer.add_scalar(name, value, done)
    bar.set_postfix(loss=f"{figures['loss']:.4f}")
    if bar.disable and done % 100 == 0:  # no terminal, so no bar: a line for the log file
        left = (bar.total - done) / figures["steps_per_s"]
        logger.info("step %d/%d loss %.4f, %.0f s left", done, bar.total, figures["loss"], left)


def train(
    model: nn.Module,
    batch_loss: BatchLoss | NumberedLoss,
    settings: LoopSettings,
    run: Path,
    *,
    preview: Callable[[nn.Module, int, Any], None] | None = None,
    validation: Callable[[nn.Module], float] | None = None,
    recipe: Mapping[str, Any] | None = None,
    allow_changes: bool = False,
    until: int | None = None,
    device: str | None = None,
) -> bool:
    """Train ``model`` in place, from the run's last checkpoint if it has one; it ends with the averaged weights.

    Args:
        model: what is trained; parameters that do not require gradients stay as they are.
        batch_loss: draws a batch with the generator it is given and returns the loss and figures to log; as a
            :class:`riff.train.micro.NumberedLoss` it is also told which micro-batch of the run this is.
        settings: see :class:`LoopSettings`.
        run: folder of checkpoints and TensorBoard logs.
        preview: called with the averaged model, the step and the TensorBoard writer.
        validation: called with the averaged model every ``validation_steps``; its loss is logged as
            ``validation/loss`` and kept, and advice on when to stop comes from it.
        recipe: plain facts of the caller's own (batch size, data) that a resumed run must find unchanged.
        allow_changes: go on although settings or ``recipe`` have changed.
        until: stop after this step although the schedule goes on, so that a later call can go on with more data.
        device: ``None`` is what accelerate finds.

    Returns:
        False if SIGINT or SIGTERM cut it short, with a checkpoint of that moment; else True.

    Raises:
        RiffError: twenty losses in a row were not finite.
    """
    from torch.utils.tensorboard import SummaryWriter

    trainee = _Trainee(model, settings, run, device)
    first = trainee.restore()
    last = settings.steps if until is None else min(until, settings.steps)
    writer = SummaryWriter(str(run / "logs")) if trainee.accelerator.is_main_process else None
    began = time.time()
    with _StopFlag() as stop, tqdm(total=last, initial=first, disable=None, unit="step") as bar:
        for step in range(first, last):
            figures = trainee.learn(NumberedLoss.of(batch_loss), step)
            bar.update()
            done = step + 1
            if writer and (done % 20 == 0 or done == last):
                _log(writer, bar, figures | {"steps_per_s": (done - first) / (time.time() - began)}, done)
            if writer and preview and (done % settings.preview_steps == 0 or done == last):
                with trainee.averaged():
                    preview(model, done, writer)
            if validation and (done % settings.validation_steps == 0 or done == last):
                with trainee.averaged():
                    loss = validation(model)
                if writer:
                    writer.add_scalar("validation/loss", loss, done)
            if stop.signal is not None or done % settings.checkpointing_steps == 0 or done == last:
                trainee.publish(done)
            if stop.signal is not None:
                break
    if writer:
        writer.close()
    trainee.ema.copy_to(trainee.parameters)
    return stop.signal is None
