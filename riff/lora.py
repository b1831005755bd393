"""LoRA files on top of a model: read safely, checked, named after their file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from riff.errors import ModelError, SystemProblem
from riff.weights import check_safetensors, first_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def check_lora(path: Path) -> None:
    """Refuse what can be no LoRA with any model.

    Raises:
        ModelError: no such file, or a damaged one.
        SystemProblem: peft is not installed.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        raise ModelError(f"{path} is no LoRA file; give the path of a .safetensors file")
    check_safetensors(path)
    try:
        import peft  # noqa: F401 - diffusers finds it by itself
    except ImportError as error:
        raise SystemProblem("a LoRA needs peft; install it: python -m pip install 'riff-music[lora]'") from error


def put_lora(pipeline: "StableDiffusionPipeline", path: Path) -> str:
    """Load a LoRA (Hu et al., 2021) into UNet and text encoder and return the adapter's name.

    Args:
        pipeline: the model.
        path: a ``.safetensors`` file in diffusers' or kohya's layout.

    Raises:
        ModelError: no such file, damaged, not finite, or made for another model.
        SystemProblem: peft is not installed.
    """
    check_lora(path)
    from safetensors.torch import load_file

    weights = load_file(path)
    if not weights or not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelError(f"{path} is empty or holds NaN or infinite weights; restore it")
    taken = {name for names in pipeline.get_list_adapters().values() for name in names}
    name = re.sub(r"\W+", "_", path.stem) or "lora"
    while name in taken:
        name += "_"
    try:
        pipeline.load_lora_weights(weights, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path} does not fit this model ({first_line(error)}); use one made for it") from error
    if not any(name in names for names in pipeline.get_list_adapters().values()):
        raise ModelError(f"{path} holds no LoRA for this model's UNet or text encoder; use one made for it")
    return name
