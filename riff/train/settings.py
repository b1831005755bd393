"""How long and how fast to train, what a resumed run must find unchanged, and the numbers of micro-batches."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from riff.utils.errors import RiffError
from riff.utils.validation import check_number, show

Schedule = Literal["cosine", "constant"]
_PRECISIONS = ("no", "bf16", "fp16")
# A resumed run may have other values of these: they change how long it trains and what is seen of it, not the recipe.
FREE = frozenset(
    {"steps", "checkpointing_steps", "preview_steps", "validation_steps", "report_to", "device", "allow_changes"}
)


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Attributes:
        steps: optimizer steps in all; None has to be replaced before training.
        learning_rate: peak learning rate of AdamW; None has to be replaced before training.
        warmup_steps: steps of linear rise to it.
        lr_scheduler: ``"cosine"`` falls to zero at the last step, ``"constant"`` stays.
        max_grad_norm: gradients are scaled down to this norm.
        weight_decay: of AdamW.
        ema_decay: decay of the running average of the weights that is kept as the result; it warms up.
        mixed_precision: ``"no"``, ``"bf16"`` or ``"fp16"`` (fp16 needs a GPU); None has to be replaced before training.
        checkpointing_steps: steps between checkpoints.
        preview_steps: steps between previews.
        seed: of everything random; step k of a run has the same random numbers however the run was interrupted.
        compile: compile the model with torch.compile.
        channels_last: keep convolution weights with channels innermost. Measure before you choose: on CPUs it made
            AutoencoderTiny 1.5 times faster and the UNet, with its group norms, slower.
        gradient_accumulation_steps: micro-batches whose gradients are averaged for one optimizer step, in each process.
        use_8bit_adam: keep the optimizer's moments in 8 bits; needs bitsandbytes.
        validation_steps: steps between validation losses, where a validation is given.
        report_to: accelerate trackers that get the figures beside TensorBoard, by name, with commas between them.
        device: "cpu" where a GPU is not to be used; None is what accelerate finds.
        allow_changes: resume although these settings or the caller's facts have changed.

    Raises:
        RiffError: a value outside its range.
    """

    steps: int | None
    learning_rate: float | None
    warmup_steps: int = 200
    lr_scheduler: Schedule = "cosine"
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    mixed_precision: str | None = "bf16"
    checkpointing_steps: int = 500
    preview_steps: int = 1000
    seed: int = 0
    compile: bool = False
    channels_last: bool = False
    gradient_accumulation_steps: int = 1
    use_8bit_adam: bool = False
    validation_steps: int = 500
    report_to: str = "tensorboard"
    device: str | None = None
    allow_changes: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "checkpointing_steps", "preview_steps", "validation_steps"):
            if getattr(self, name) is not None or name != "steps":
                check_number(getattr(self, name), name, 1, 10**8 - 1, whole=True)
        check_number(self.gradient_accumulation_steps, "gradient_accumulation_steps", 1, 10**6, whole=True)
        check_number(self.warmup_steps, "warmup_steps", 0, 10**9, whole=True)
        if self.learning_rate is not None:
            check_number(self.learning_rate, "learning_rate", 0.0, 10.0)
        check_number(self.max_grad_norm, "max_grad_norm", 1e-9, 1e9)
        check_number(self.weight_decay, "weight_decay", 0.0, 10.0)
        check_number(self.ema_decay, "ema_decay", 0.0, 1.0)
        for name, allowed in (("lr_scheduler", get_args(Schedule)), ("mixed_precision", (None, *_PRECISIONS))):
            if getattr(self, name) not in allowed:
                raise RiffError(f"{name} is {show(getattr(self, name))}; use one of {', '.join(filter(None, allowed))}")


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Learning rate of a step: linear warm-up, then a cosine to zero or a constant."""
    if settings.steps is None or settings.learning_rate is None:
        raise RiffError("the settings have no number of steps or no learning rate; give both")
    rise = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.lr_scheduler == "constant":
        return settings.learning_rate * rise
    return settings.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))


def recipe_of(settings: LoopSettings, processes: int, more: Mapping[str, Any], frozen: str) -> dict[str, Any]:
    """What a checkpoint records of how it was made, as JSON gives it back.

    Args:
        settings: of the loop.
        processes: how many trained together.
        more: facts of the caller's.
        frozen: hash of the weights that are not trained.
    """
    facts = dataclasses.asdict(settings) | {"processes": processes, "frozen_weights": frozen} | dict(more)
    recipe: dict[str, Any] = json.loads(json.dumps(facts))
    return recipe


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes and matters, each as ``name: old -> new``.

    A name that only one of them has is no change, so that a run may go on under a newer riff with more settings.
    """
    shared = [name for name in old if name in new and name not in FREE]
    return [f"{name}: {old[name]} -> {new[name]}" for name in shared if old[name] != new[name]]


BatchLoss = Callable[[nn.Module, torch.Generator], tuple[Tensor, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class NumberedLoss:
    """A loss that is given the number of the micro-batch in the whole run, for data in an order without replacement.

    Attributes:
        batch_loss: called with the model, a generator seeded for this micro-batch, and its number m, counted from 0
            over all steps, processes and accumulated micro-batches; returns the loss and figures to log.
        describe: names what micro-batch m holds, for the message of a run that has to stop.
    """

    batch_loss: Callable[[nn.Module, torch.Generator, int], tuple[Tensor, dict[str, float]]]
    describe: Callable[[int], str] | None = None

    @classmethod
    def of(cls, batch_loss: "BatchLoss | NumberedLoss") -> "NumberedLoss":
        """A loss of either kind as one that is given the number."""
        if isinstance(batch_loss, NumberedLoss):
            return batch_loss
        return cls(lambda model, generator, number: batch_loss(model, generator))


def micro_batch_numbers(step: int, accumulation: int, processes: int) -> list[list[int]]:
    """Numbers of one step's micro-batches, ``[accumulation index][rank]``.

    They are consecutive, so one process that accumulates two micro-batches takes the very ones that two processes
    take at once.
    """
    first = step * accumulation * processes
    return [[first + index * processes + rank for rank in range(processes)] for index in range(accumulation)]


def generator_of(seed: int, number: int) -> torch.Generator:
    """The source of a micro-batch's random numbers, from the run's seed and the micro-batch's number alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
