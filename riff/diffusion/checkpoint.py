"""A checkpoint: the folder of a plain StableDiffusionPipeline, plus what its images mean."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from riff.diffusion import hub
from riff.diffusion.components import (
    check_finite,
    check_fit,
    check_runs,
    load_folder,
    load_single_file,
    quiet_libraries,
)
from riff.diffusion.hub import LEGACY_WEIGHTS, WEIGHTS, check_index
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import check_safetensors, first_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer


def load_checkpoint(
    source: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    local_files_only: bool = False,
    variant: str | None = None,
) -> tuple["StableDiffusionPipeline", SpectrogramConfig, MusicPrior | None]:
    """Load and check a checkpoint. Nothing but safetensors and JSON is read; no code of the checkpoint runs.

    A safety checker and a feature extractor are not read: spectrograms are no photographs.

    Args:
        source: None or "riff-mini" for the bundled model, a folder, a single ``.safetensors`` file of Stable
            Diffusion, or a Hub id such as "riffusion/riffusion-model-v1".
        device: where the model goes.
        dtype: of its weights.
        revision: of a Hub id.
        local_files_only: no network, the Hub's cache only.
        variant: weights file to prefer, e.g. "fp16".

    Returns:
        The pipeline in evaluation mode, the config of its images (Riffusion v1's if the checkpoint has none), and its
        music prior, if it has one.

    Raises:
        ModelError: the checkpoint is missing, incomplete, corrupt, unsafe or inconsistent.
    """
    path = hub.locate(source, revision=revision, local_files_only=local_files_only, variant=variant)
    with quiet_libraries():
        if path.is_file():
            pipeline, folder = load_single_file(path, dtype), path.parent
        else:
            pipeline, folder = load_folder(path, dtype, variant, str(source or "riff-mini")), path
        config, prior = _load_config(folder), MusicPrior.load(folder)
        check_finite(pipeline, folder)
        check_fit(pipeline, config, prior, folder)
        pipeline.to(device)
        if path != hub.BUNDLED:
            check_runs(pipeline, config, folder)
    return pipeline, config, prior


def save_checkpoint(
    pipeline: "StableDiffusionPipeline",
    config: SpectrogramConfig,
    folder: str | Path,
    *,
    prior: MusicPrior | None = None,
    force: bool = False,
) -> Path:
    """Write a checkpoint that riff, diffusers and every Stable Diffusion tool can load; complete or not at
    all.

    Args:
        pipeline: the model; weights are written in the dtype they have.
        config: of its images.
        folder: to write; its parent must exist.
        prior: the music prior of riff's own models.
        force: replace a checkpoint that is there already.

    Returns:
        The folder.

    Raises:
        RiffError: the folder is taken, or its parent is missing.
        SystemProblem: the disk is full or not writable.
    """
    with atomic_folder(folder, force=force) as temporary, quiet_libraries():
        pipeline.save_pretrained(temporary, safe_serialization=True)
        save_vocabulary(pipeline.tokenizer, temporary / "tokenizer")
        config.save(temporary)
        if prior is not None:
            prior.save(temporary)
    return Path(folder)


def save_vocabulary(tokenizer: "CLIPTokenizer", folder: Path) -> None:
    """Write vocab.json and merges.txt, which other tools read and transformers 5 no longer writes."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


@contextmanager
def atomic_folder(folder: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` when the block ends without an exception."""
    target = Path(folder)
    is_checkpoint = (target / "model_index.json").is_file()
    if target.exists() and not (force and is_checkpoint) and not (target.is_dir() and not any(target.iterdir())):
        remedy = "use --force to replace it" if is_checkpoint else "it is not a checkpoint, so choose another name"
        raise RiffError(f"{target} exists; {remedy}")
    if not target.parent.is_dir():
        raise RiffError(f"the folder {target.parent} does not exist; create it first")
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        (temporary / "new").mkdir()
        yield temporary / "new"
        if target.exists():
            target.rename(temporary / "old")
        (temporary / "new").rename(target)
    except OSError as error:
        raise SystemProblem(
            f"{target} cannot be written ({error.strerror or error}); free space or choose another"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _load_config(folder: Path) -> SpectrogramConfig:
    try:
        return SpectrogramConfig.load(folder)
    except (RiffError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / 'spectrogram_config.json'} cannot be used: {first_line(error)}") from error


def convert_checkpoint(source: str | Path, destination: str | Path, *, force: bool = False) -> Path:
    """Turn a checkpoint with legacy ``.bin`` weights into one that riff loads.

    The pickles are read by torch's ``weights_only`` reader, which builds tensors and nothing else; what it
    refuses is refused. The result is loaded and checked before it appears.

    Args:
        source: a folder, or a Hub id.
        destination: the folder to write; its parent must exist.
        force: replace a checkpoint that is there already.

    Returns:
        ``destination``, with safetensors and ``spectrogram_config.json``, without a safety checker.

    Raises:
        ModelError: the source is incomplete, damaged, or holds more than tensors.
        RiffError, SystemProblem: the destination cannot be written.
    """
    origin = hub.locate(source, legacy=True)
    if not origin.is_dir():
        raise ModelError(f"{origin} is not a folder; riff convert reads a checkpoint in diffusers' folder layout")
    index = check_index(origin)
    with atomic_folder(destination, force=force) as temporary, quiet_libraries():
        for name in ("safety_checker", "feature_extractor", "image_encoder"):
            index[name] = [None, None]
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        (temporary / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            (temporary / name).mkdir()
            for file in sorted([*(origin / name).glob("*.json"), *(origin / name).glob("*.txt")]):
                if ".index." not in file.name:
                    shutil.copyfile(file, temporary / name / file.name)
        for component in WEIGHTS:
            _convert_weights(origin / component, temporary / component, component)
        config, prior = _load_config(origin), MusicPrior.load(origin)
        config.save(temporary)
        if prior is not None:
            prior.save(temporary)
        pipeline = load_folder(temporary, torch.float32, None, str(source))
        check_finite(pipeline, origin)
        check_fit(pipeline, config, prior, origin)
        check_runs(pipeline, config, origin)
    return Path(destination)


def _convert_weights(origin: Path, destination: Path, component: str) -> None:
    from safetensors.torch import save_file

    target = destination / f"{WEIGHTS[component]}.safetensors"
    if (origin / target.name).is_file():
        check_safetensors(origin / target.name)
        shutil.copyfile(origin / target.name, target)
        return
    path = origin / LEGACY_WEIGHTS[component]
    if not path.is_file():
        raise ModelError(f"{path} is missing; the checkpoint is incomplete, so copy or download it again")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything
        raise ModelError(
            f"{path} is damaged or holds more than tensors, so it is refused ({first_line(error)})"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ModelError(f"{path} does not hold a plain table of tensors, so it is refused")
    # Cloned, because safetensors has no notion of two tensors in one storage.
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        target,
        metadata={"format": "pt"},
    )
