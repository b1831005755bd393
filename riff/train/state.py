"""A model with all that changes while it trains: the optimizer's step, and the way to disk and back."""

import hashlib
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riff.train.checkpoints import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from riff.train.processes import figures_over, gathered, mean_over, on_main, same_everywhere, sharded_like
from riff.train.progress import Health, History, from_json, to_json
from riff.train.settings import (
    LoopSettings,
    NumberedLoss,
    changes,
    generator_of,
    learning_rate_at,
    micro_batch_numbers,
    recipe_of,
)
from riff.utils.errors import RiffError, SystemProblem

logger = logging.getLogger(__name__)


class TrainState:
    """A model, its optimizer, the running average of its weights, and what is known of its health.

    Only what is trained is saved; of the frozen weights a hash is, by which a resumed run recognises them.
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

    def restore(self) -> int:
        """Load the newest whole checkpoint, if any; the number of steps done."""
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
            self._check(found)
            self._load(found)
        return step

    def _check(self, found: Checkpoint) -> None:
        changed = changes(found.state.get("recipe", {}), self.recipe)
        if changed and not self.settings.allow_changes:
            raise RiffError(
                f"{self.run} was trained with other settings ({'; '.join(changed)}); "
                "give the old ones to go on, allow the changes, or choose another folder"
            )
        if changed and self.accelerator.is_main_process:
            logger.warning("going on with other settings: %s", "; ".join(changed))
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
    def _load(self, found: Checkpoint) -> None:
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
        self.validation = from_json(found.state.get("validation", []))
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
            "validation": to_json(self.validation),
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
        self.health.judge(loss, learnt=learnt, warm=warm, where=lambda: self._where(loss_of, step))
        return loss, figures

    def _accumulate(self, loss_of: NumberedLoss, step: int) -> tuple[float, list[dict[str, float]]]:
        accelerator, seed = self.accelerator, self.settings.seed
        accumulation = self.settings.gradient_accumulation_steps
        losses, all_figures = [], []
        for index, numbers in enumerate(micro_batch_numbers(step, accumulation, accelerator.num_processes)):
            number = numbers[accelerator.process_index]
            # Gradients travel between the processes once a step, with the last micro-batch.
            context = nullcontext() if index == accumulation - 1 else accelerator.no_sync(self.prepared)
            with context:
                with accelerator.autocast():
                    loss, figures = loss_of.batch_loss(self.prepared, generator_of(seed, number), number)
                accelerator.backward(loss / accumulation)
            losses.append(float(loss.detach()))
            all_figures.append(figures)
        return sum(losses) / accumulation, all_figures

    def _where(self, loss_of: NumberedLoss, step: int) -> str:
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
        """The figures to log of a step; every process must call this."""
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


def _frozen_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        if not value.requires_grad:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


BETAS = (0.9, 0.99)


def new_optimizer(parameters: Iterable[nn.Parameter], settings: LoopSettings, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW over ``parameters``, with moments in 32 or 8 bits."""
    values: dict[str, Any] = {"lr": settings.learning_rate, "betas": BETAS, "weight_decay": settings.weight_decay}
    if not settings.use_8bit_adam:
        return torch.optim.AdamW(parameters, fused=fused, **values)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise SystemProblem(
            "use_8bit_adam needs bitsandbytes, which is not installed; pip install bitsandbytes, or leave it out"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **values)
    return optimizer


def optimizer_to_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors: ``<parameter index>.<name>``, or ``<index>.<group>.<name>`` in 8 bits."""
    flat: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            inner = {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            flat |= {f"{index}.{key}": torch.as_tensor(each) for key, each in inner.items()}
    return flat


def tensors_to_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """The inverse of :func:`optimizer_to_tensors`, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, *groups, name = key.split(".")
        place = state.setdefault(int(index), {})
        for group in groups:
            place = place.setdefault(group, {})
        # 8-bit Adam counts its steps in a plain int, torch's in a float tensor.
        plain = value.ndim == 0 and not value.is_floating_point()
        place[name] = int(value) if plain else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
