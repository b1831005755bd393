"""Where a checkpoint is: in the package, in a folder, in one file, or on the Hugging Face Hub."""

import re
from pathlib import Path

from riff.utils.errors import ModelError

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
