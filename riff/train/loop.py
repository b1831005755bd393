"""The training loop: one model, one loss, resumable at any instant, the same bits however often it is stopped."""

import dataclasses
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from riff.errors import RiffError
from riff.train.runs import (
    Checkpoint,
    load_checkpoint,
    optimizer_to_tensors,
    save_checkpoint,
    tensors_to_optimizer,
)

BatchLoss = Callable[[nn.Module, torch.Generator], tuple[Tensor, dict[str, float]]]
MAX_BAD_LOSSES = 20
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: peak learning rate of AdamW.
        warmup_steps: steps of linear rise to it.
        lr_scheduler: ``"cosine"`` falls to zero at the last step, ``"constant"`` stays.
        max_grad_norm: gradients are scaled down to this norm.
        weight_decay: of AdamW.
        ema_decay: decay of the running average of the weights that is kept as the result; it warms up.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"``.
        checkpointing_steps: steps between checkpoints.
        preview_steps: steps between previews.
        seed: of everything random; step k of a run draws the same numbers however the run was interrupted.
        compile: compile the model with torch.compile.
        channels_last: keep convolution weights with channels innermost. Measure before you choose: on CPUs it made
            AutoencoderTiny 1.5 times faster and the UNet, with its group norms, slower.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 200
    lr_scheduler: Literal["cosine", "constant"] = "cosine"
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    mixed_precision: str = "bf16"
    checkpointing_steps: int = 500
    preview_steps: int = 1000
    seed: int = 0
    compile: bool = False
    channels_last: bool = False


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to zero or a constant."""
    rise = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.lr_scheduler == "constant":
        return settings.learning_rate * rise
    return settings.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))


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

    def learn(self, batch_loss: BatchLoss, step: int) -> dict[str, float]:
        """One optimizer step, or none where the loss is not finite; the figures to log."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        generator = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + step) * processes + rank)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.settings)
        with self.accelerator.autocast():
            loss, figures = batch_loss(self.prepared, generator)
        if bool(torch.isfinite(loss)):
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
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
        return figures | {"loss": float(loss.detach()), "lr": learning_rate_at(step, self.settings)}

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
    batch_loss: BatchLoss,
    settings: LoopSettings,
    run: Path,
    *,
    preview: Callable[[nn.Module, int, Any], None] | None = None,
    until: int | None = None,
    device: str | None = None,
) -> bool:
    """Train ``model`` in place, from the run's last checkpoint if it has one; it ends with the averaged weights.

    Args:
        model: what is trained; parameters that do not require gradients stay as they are.
        batch_loss: draws a batch with the generator it is given and returns the loss and figures to log.
        settings: see :class:`LoopSettings`.
        run: folder of checkpoints and TensorBoard logs.
        preview: called with the averaged model, the step and the TensorBoard writer.
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
            figures = trainee.learn(batch_loss, step)
            bar.update()
            done = step + 1
            if writer and (done % 20 == 0 or done == last):
                _log(writer, bar, figures | {"steps_per_s": (done - first) / (time.time() - began)}, done)
            if writer and preview and (done % settings.preview_steps == 0 or done == last):
                with trainee.averaged():
                    preview(model, done, writer)
            if stop.signal is not None or done % settings.checkpointing_steps == 0 or done == last:
                trainee.publish(done)
            if stop.signal is not None:
                break
    if writer:
        writer.close()
    trainee.ema.copy_to(trainee.parameters)
    return stop.signal is None
