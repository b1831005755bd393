"""AdamW, in 32 or 8 bits, and its state as flat tensors: no pickle is needed to keep it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from riff.errors import SystemProblem
from riff.train.settings import LoopSettings

BETAS = (0.9, 0.99)


def new_optimizer(parameters: Iterable[nn.Parameter], settings: LoopSettings, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW over ``parameters``.

    Raises:
        SystemProblem: ``use_8bit_adam`` without bitsandbytes.
    """
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
