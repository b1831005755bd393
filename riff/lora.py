"""LoRA files on top of a model: read safely, checked, named after their file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from riff.components import quiet_libraries
from riff.errors import ModelError, SystemProblem
from riff.trigger import EMBEDS_NAME, add_word, read_words
from riff.weights import check_safetensors, first_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


LORA_NAME = "pytorch_lora_weights.safetensors"


def find_lora(path: Path) -> tuple[Path | None, Path | None]:
    """The files of a LoRA: its weights, and the words that it teaches, which lie beside them.

    Args:
        path: a file, or a folder that ``riff train`` or diffusers wrote.

    Raises:
        ModelError: there is neither.
    """
    if path.is_dir():
        weights: Path | None = path / LORA_NAME
        words: Path | None = path / EMBEDS_NAME
    elif path.name == EMBEDS_NAME:
        weights, words = None, path
    else:
        weights, words = path, path.with_name(EMBEDS_NAME)
    found = tuple(each if each is not None and each.is_file() else None for each in (weights, words))
    if found == (None, None) or (found[0] is None and weights is not None and not path.is_dir()):
        raise ModelError(
            f"{path} is no LoRA file; give the path of a .safetensors file or of a folder that riff train wrote"
        )
    return found[0], found[1]


def check_lora(path: Path) -> None:
    """Refuse what can be no LoRA with any model.

    Raises:
        ModelError: no such file, or a damaged one.
        SystemProblem: peft is not installed.
    """
    weights, words = find_lora(path)
    for file in (weights, words):
        if file is not None and file.suffix.lower() != ".safetensors":
            raise ModelError(f"{file} is no LoRA file; give the path of a .safetensors file")
        if file is not None:
            check_safetensors(file)
    if weights is None:
        return
    try:
        import peft  # noqa: F401 - diffusers finds it by itself
    except ImportError as error:
        raise SystemProblem("a LoRA needs peft; install it: python -m pip install 'riff-music[lora]'") from error


def put_lora(pipeline: "StableDiffusionPipeline", path: Path) -> str:
    """Load a LoRA (Hu et al., 2021) into UNet and text encoder, and the words that lie beside it.

    Args:
        pipeline: the model.
        path: a ``.safetensors`` file in diffusers' or kohya's layout, or a folder that ``riff train`` wrote.

    Returns:
        The adapter's name; of a folder that only teaches words, a name that no adapter has.

    Raises:
        ModelError: no such file, damaged, not finite, or made for another model.
        SystemProblem: peft is not installed.
    """
    check_lora(path)
    weights, words = find_lora(path)
    name = _free_name(pipeline, path)
    if weights is not None:
        _put_weights(pipeline, weights, name)
    if words is not None:
        for word, vector in read_words(words).items():
            add_word(word, vector, pipeline.tokenizer, pipeline.text_encoder)
    return name


def _free_name(pipeline: "StableDiffusionPipeline", path: Path) -> str:
    taken = {name for names in pipeline.get_list_adapters().values() for name in names}
    name = re.sub(r"\W+", "_", path.stem) or "lora"
    while name in taken:
        name += "_"
    return name


def _put_weights(pipeline: "StableDiffusionPipeline", path: Path, name: str) -> None:
    from safetensors.torch import load_file

    weights = load_file(path)
    if not weights or not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelError(f"{path} is empty or holds NaN or infinite weights; restore it")
    try:
        with quiet_libraries():
            pipeline.load_lora_weights(weights, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path} does not fit this model ({first_line(error)}); use one made for it") from error
    if not any(name in names for names in pipeline.get_list_adapters().values()):
        raise ModelError(f"{path} holds no LoRA for this model's UNet or text encoder; use one made for it")
