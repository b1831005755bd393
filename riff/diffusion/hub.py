"""Where a checkpoint is: in the package, in a folder, in one file, or on the Hugging Face Hub."""

import re
from pathlib import Path
from typing import Any

from riff.utils.errors import ModelError
from riff.utils.files import check_safetensors, read_json

BUNDLED = Path(__file__).parents[1] / "models" / "riff-mini"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_METADATA = [
    "model_index.json",
    "spectrogram_config.json",
    *[f"{folder}/*.{suffix}" for folder in _FOLDERS for suffix in ("json", "txt")],
]
_SAFE = [*_METADATA, "music_prior.safetensors", *[f"{folder}/*.safetensors" for folder in _FOLDERS]]
_LEGACY = [*_METADATA, *[f"{folder}/*.bin" for folder in _FOLDERS]]


def locate(
    source: str | Path | None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    variant: str | None = None,
    legacy: bool = False,
) -> Path:
    """The local folder or file of a checkpoint, downloaded if it is on the Hub.

    Args:
        source: None or "riff-mini" for the bundled model, a folder, a file, or a Hub id such as
            "riffusion/riffusion-model-v1".
        revision: of a Hub id: branch, tag or commit.
        local_files_only: use the Hub's cache and no network.
        variant: of a Hub id: "fp16" downloads the half precision files.
        legacy: download .bin weights instead of safetensors; only ``riff convert`` does.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be downloaded.
    """
    if source is None or source == "riff-mini":
        if not BUNDLED.is_dir():
            raise ModelError(f"the bundled model is not in this installation ({BUNDLED}); install riff again")
        return BUNDLED
    path = Path(source)
    if source and path.exists():
        return path
    name = str(source)
    if not _HUB_ID.fullmatch(name) or ".." in name or isinstance(source, Path):
        raise ModelError(f"no checkpoint at {name}; give a folder, a .safetensors file or a Hub id such as owner/name")
    return _download(name, revision, local_files_only, variant, _LEGACY if legacy else _SAFE)


def _download(name: str, revision: str | None, offline: bool, variant: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    ignored = ["*.non_ema.*", *([] if variant else ["*.fp16.*"])]
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=offline,
            allow_patterns=patterns,
            ignore_patterns=ignored,
        )
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision {revision!r} on the Hub; leave it out or name one that exists"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name} is neither a folder here nor a model on the Hub; check the spelling") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(
            f"{name} is neither a folder here nor in the Hub's cache, and the Hub was not reached; go "
            "online, unset HF_HUB_OFFLINE, or give a folder"
        ) from error
    except (OSError, HFValidationError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name} could not be downloaded ({reason}); go online or give a folder") from error
    return Path(folder)


# A checkpoint's folder before anything loads it: what is there, is it whole, is it safe.

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
MOST_JSON = 64 << 20  # bytes; a tokenizer.json of Stable Diffusion has 2 MB


def check_files(folder: Path) -> None:
    """Refuse what could keep a reader waiting or fill the memory, and what would make a library load from elsewhere.

    Raises:
        ModelError: a pipe or a device in place of a file, a text of more than 64 MB, or an adapter in a component.
    """
    for place in (folder, *(folder / name for name in (*COMPONENTS, "scheduler"))):
        for path in sorted(place.glob("*.*")) if place.is_dir() else ():
            if path.suffix not in (".json", ".txt", ".safetensors", ".bin") or path.is_dir():
                continue
            if path.exists() and not path.is_file():
                raise ModelError(f"{path} is a pipe or device, not a file; download the checkpoint again")
            if path.suffix in (".json", ".txt") and path.is_file() and path.stat().st_size > MOST_JSON:
                raise ModelError(f"{path} has more than {MOST_JSON >> 20} MB; download the checkpoint again")
        if (place / "adapter_config.json").exists():
            raise ModelError(f"{place} holds a peft adapter; merge it into the model, or load it as a LoRA")


def check_index(folder: Path) -> dict[str, Any]:
    """Read ``model_index.json`` and make sure it lists the components of a Stable Diffusion 1 or 2 text-to-image model.

    Raises:
        ModelError: the folder is no checkpoint, or one of another kind.
    """
    check_files(folder)
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
    # Every index is checked: the libraries prefer it to a single file beside it.
    for index in (folder / component).glob("*.safetensors.index*.json"):
        _shards(index)
    for candidate in [variant] if variant else [None, "fp16"]:
        if files := weights_files(folder, component, candidate):
            for file in files:
                if not file.is_file():
                    raise ModelError(f"{file} is missing; copy or download it again")
                check_safetensors(file)
            return candidate
    # Of a Hub model only safetensors were downloaded, so a missing file may mean a legacy upload.
    if any((folder / component).glob("*.bin")) or not Path(source).exists():
        raise ModelError(
            f"{source} has no safetensors weights for its {component}; legacy .bin files can hide code "
            f"and are not loaded; convert them once with: riff convert {source} -o DIR"
        )
    stem = WEIGHTS[component]
    what = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    raise ModelError(f"{folder / component} has no {what}; the checkpoint is incomplete, so copy or download it again")


def weights_files(folder: Path, component: str, variant: str | None) -> list[Path]:
    """The safetensors files of a component in one variant: a single one, the shards of its index, or none."""
    stem, middle = WEIGHTS[component], f".{variant}" if variant else ""
    single = folder / component / f"{stem}{middle}.safetensors"
    if single.is_file():
        return [single]
    index = folder / component / f"{stem}.safetensors.index{middle}.json"
    if not index.is_file():
        return []
    return [folder / component / name for name in _shards(index)]


def _shards(index_file: Path) -> list[str]:
    """The names of an index, which may be those of safetensors files beside it only."""
    names = read_json(index_file).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index_file} has no weight_map; restore it or download it again")
    shards = sorted({str(name) for name in names.values()})
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{index_file} names {name!r}; a part must be a .safetensors file beside it")
    return shards
