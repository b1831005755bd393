"""Looking at a checkpoint's files before anything loads them: what is there, is it whole, is it safe."""

import json
from pathlib import Path
from typing import Any

from riff.errors import ModelError

# Weights files of each model component, without their suffix.
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
LEGACY_WEIGHTS = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}
COMPONENTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_LFS_POINTER = b"version https://git-lfs"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; anything else is a ModelError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; the checkpoint is incomplete, so copy or download it again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}); restore it or download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, not a JSON object; restore it or download it again")
    return content


def check_index(folder: Path) -> dict[str, Any]:
    """Read ``model_index.json`` and make sure it lists the parts of a Stable Diffusion 1 or 2 text-to-image
    model.

    Raises:
        ModelError: the folder is no checkpoint, or one of another kind.
    """
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"{folder} has no model_index.json, so it is not a checkpoint; give a folder as diffusers' "
            "save_pretrained writes it"
        )
    index = read_json(folder / "model_index.json")
    for name, classes in COMPONENTS.items():
        found = component_class(index, name)
        if found not in classes:
            raise ModelError(
                f"{folder}: its {name} is {found or 'missing'}; riff needs a Stable Diffusion {classes[0]}"
            )
    if component_class(index, "scheduler") is None:
        raise ModelError(f"{folder}: model_index.json names no scheduler; restore it or download it again")
    return index


def component_class(index: dict[str, Any], name: str) -> str | None:
    """Class name of a component in ``model_index.json``, None if it has none."""
    entry = index.get(name)
    named = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    return entry[1] if named and entry else None


def find_weights(folder: Path, component: str, *, variant: str | None, source: str) -> str | None:
    """Make sure a component has whole safetensors weights, and say in which variant.

    Args:
        folder: the checkpoint.
        component: "unet", "vae" or "text_encoder".
        variant: e.g. "fp16"; None prefers the plain file and falls back to the fp16 one.
        source: what the user called the checkpoint, for the message.

    Returns:
        The variant to load: None for the plain file.

    Raises:
        ModelError: no safetensors file, or one that is truncated, corrupt or a git-lfs pointer.
    """
    stem = WEIGHTS[component]
    for candidate in [variant] if variant else [None, "fp16"]:
        middle = f".{candidate}" if candidate else ""
        single = folder / component / f"{stem}{middle}.safetensors"
        shards = folder / component / f"{stem}.safetensors.index{middle}.json"
        if single.is_file():
            check_safetensors(single)
            return candidate
        if shards.is_file():
            _check_shards(shards)
            return candidate
    # Of a Hub model only safetensors were downloaded, so a missing file may mean a legacy upload.
    if any((folder / component).glob("*.bin")) or not Path(source).exists():
        raise ModelError(
            f"{source} has no safetensors weights for its {component}; legacy .bin files can hide code "
            f"and are not loaded; convert them once with: riff convert {source} -o DIR"
        )
    what = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    raise ModelError(f"{folder / component} has no {what}; the checkpoint is incomplete, so copy or download it again")


def check_safetensors(path: Path) -> None:
    """Raise ModelError unless ``path`` is a complete safetensors file; its tensors are not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise ModelError(f"{path} is a git-lfs pointer, not the weights; run 'git lfs pull' or download the file")
        if not start:
            raise ModelError(f"{path} is empty; download it again")
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is truncated or corrupt ({first_line(error)}); download it again") from error


def _check_shards(index_file: Path) -> None:
    names = read_json(index_file).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index_file} has no weight_map; restore it or download it again")
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{index_file} names {name!r}; a part must be a .safetensors file beside it")
        if not (index_file.parent / name).is_file():
            raise ModelError(f"{index_file.parent / name} is missing; copy or download it again")
        check_safetensors(index_file.parent / name)


def first_line(error: BaseException) -> str:
    """The first line of an error, short enough for one line of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
