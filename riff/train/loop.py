"""The training loop: one model, one loss, resumable at any instant, the same bits however often it is stopped."""

import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable
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
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel
    from torch.utils.tensorboard import SummaryWriter

    accelerator = Accelerator(mixed_precision=settings.mixed_precision, cpu=device == "cpu")
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = accelerator.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=fused,
    )
    prepared, optimizer = accelerator.prepare(torch.compile(model) if settings.compile else model, optimizer)
    ema = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    ema.to(accelerator.device)
    found, skipped = load_checkpoint(run)
    for folder in skipped:
        print(f"passed over the damaged checkpoint {folder}", file=sys.stderr)
    first, bad = 0, 0
    if found is not None:
        first = found.step
        model.load_state_dict(found.tensors["model"])
        tensors_to_optimizer(found.tensors["optimizer"], optimizer.optimizer)
        ema.shadow_params = [found.tensors["ema"][str(i)].to(accelerator.device) for i in range(len(parameters))]
        ema.optimization_step = found.state["ema_step"]

    def publish(step: int) -> None:
        if accelerator.is_main_process:
            tensors = {
                "model": dict(model.state_dict()),
                "ema": {str(i): value for i, value in enumerate(ema.shadow_params)},
                "optimizer": optimizer_to_tensors(optimizer.optimizer),
            }
            save_checkpoint(run, Checkpoint(step, tensors, {"ema_step": ema.optimization_step}))

    last = settings.steps if until is None else min(until, settings.steps)
    writer = SummaryWriter(str(run / "logs")) if accelerator.is_main_process else None
    began, step = time.time(), first
    with _StopFlag() as stop, tqdm(total=last, initial=first, disable=None, unit="step") as bar:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(
                (settings.seed * 1_000_003 + step) * accelerator.num_processes + accelerator.process_index
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, settings)
            with accelerator.autocast():
                loss, figures = batch_loss(prepared, generator)
            if bool(torch.isfinite(loss)):
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
                optimizer.step()
                ema.step(parameters)
                bad = 0
            else:
                bad += 1
                if bad == MAX_BAD_LOSSES:
                    raise RiffError(
                        f"the loss was not finite for {bad} steps in a row (step {step}); lower the learning rate"
                    )
            optimizer.zero_grad(set_to_none=True)
            bar.update()
            done = step + 1
            if writer and (done % 20 == 0 or done == last):
                rate = (done - first) / (time.time() - began)
                figures = figures | {
                    "loss": float(loss.detach()),
                    "lr": learning_rate_at(step, settings),
                    "steps_per_s": rate,
                }
                for name, value in figures.items():
                    writer.add_scalar(name, value, done)
                bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
                if bar.disable and done % 100 == 0:
                    print(
                        f"step {done}/{last} {figures} eta {(last - done) / rate:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
            if writer and preview and (done % settings.preview_steps == 0 or done == last):
                ema.store(parameters)
                ema.copy_to(parameters)
                preview(model, done, writer)
                ema.restore(parameters)
            if stop.signal is not None or done % settings.checkpointing_steps == 0 or done == last:
                publish(done)
            if stop.signal is not None:
                break
    if writer:
        writer.close()
    ema.copy_to(parameters)
    return stop.signal is None
