"""A checkpoint: the folder of a plain StableDiffusionPipeline, plus what its pictures mean."""

import gc
import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riff.diffusion.hub import LEGACY_WEIGHTS, WEIGHTS, check_index, component_class, find_weights, locate
from riff.diffusion.latents import downsampling
from riff.diffusion.sampling import scheduler_class
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import check_safetensors, first_line, read_json

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, StableDiffusionPipeline
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

    A safety checker and a feature extractor are left where they are: spectrograms are no photographs.

    Args:
        source: None or "riff-mini" for the bundled model, a folder, a single ``.safetensors`` file of Stable
            Diffusion, or a Hub id such as "riffusion/riffusion-model-v1".
        device: where the model goes.
        dtype: of its weights.
        revision: of a Hub id.
        local_files_only: no network, the Hub's cache only.
        variant: weights file to prefer, e.g. "fp16".

    Returns:
        The pipeline in evaluation mode, the config of its pictures (Riffusion v1's if the checkpoint has
        none), and its music prior, if it has one.

    Raises:
        ModelError: the checkpoint is missing, incomplete, corrupt, unsafe or inconsistent.
    """
    path = locate(source, revision=revision, local_files_only=local_files_only, variant=variant)
    with quiet_libraries():
        if path.is_file():
            pipeline = load_single_file(path, dtype)
            folder = path.parent
        else:
            name = str(source or "riff-mini")
            pipeline = load_folder(path, dtype, variant, name)
            folder = path
    config, prior = _load_config(folder), MusicPrior.load(folder)
    check_finite(pipeline, folder)
    check_fit(pipeline, config, prior, folder)
    return pipeline.to(device), config, prior


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
        config: of its pictures.
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
    origin = locate(source, legacy=True)
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
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:
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


# WAS riff/components.py: Loading the parts of a Stable Diffusion model one by one, and making sure that they
# belong together.


def load_folder(folder: Path, dtype: torch.dtype, variant: str | None, source: str) -> "StableDiffusionPipeline":
    index = check_index(folder)
    models = {}
    for name in ("unet", "vae", "text_encoder"):
        read_json(folder / name / "config.json")
        found = find_weights(folder, name, variant=variant, source=source)
        models[name] = _load_model(folder / name, component_class(index, name), dtype, found)
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    return StableDiffusionPipeline(
        **models,
        tokenizer=_load_tokenizer(folder),
        scheduler=_load_scheduler(folder, index),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _load_model(place: Path, kind: str | None, dtype: torch.dtype, variant: str | None) -> Any:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel

    options: dict[str, Any] = {
        "dtype": dtype,
        "use_safetensors": True,
        "local_files_only": True,
        "variant": variant,
    }
    known: tuple[Any, ...] = (AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, CLIPTextModel)
    model_class = next(each for each in known if each.__name__ == kind)
    try:
        model, report = model_class.from_pretrained(place, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{place} cannot be loaded ({first_line(error)}); restore it or download it again") from error
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report[problem] or ())
        if keys:
            what = problem.removesuffix("_keys")
            raise ModelError(f"{place}: {len(keys)} weight(s) {what}, e.g. {keys[0]}; not those of its config")
    return model.eval()


def _load_tokenizer(folder: Path) -> "CLIPTokenizer":
    from transformers import CLIPTokenizer

    place = folder / "tokenizer"
    files = {path.name for path in place.glob("*")}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise ModelError(
            f"{place} has neither tokenizer.json nor vocab.json and merges.txt; the checkpoint is incomplete"
        )
    try:
        return CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise ModelError(f"{place} cannot be loaded ({first_line(error)}); restore it or download it again") from error


def _load_scheduler(folder: Path, index: dict[str, Any]) -> "SchedulerMixin":
    fields = read_json(folder / "scheduler" / "scheduler_config.json")
    name = component_class(index, "scheduler") or ""
    try:
        # Stable Diffusion's own corrections, made here so that diffusers does not warn about them.
        return scheduler_class(name).from_config({**fields, "clip_sample": False, "steps_offset": 1})
    except (RiffError, ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"{folder / 'scheduler'} cannot be used ({first_line(error)}); restore it") from error


def load_single_file(path: Path, dtype: torch.dtype) -> "StableDiffusionPipeline":
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file; riff opens no other weights, so save it in that format")
    check_safetensors(path)
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            path, dtype=dtype, local_files_only=True, safety_checker=None, feature_extractor=None
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be loaded ({first_line(error)}); a single file needs the Stable Diffusion "
            "configuration in the Hub's cache, a folder needs nothing else"
        ) from error
    return pipeline


def check_finite(pipeline: "StableDiffusionPipeline", folder: Path) -> None:
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for name, tensor in part.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"{folder}: {name} holds NaN or infinite numbers; restore it or download it again")


def check_fit(
    pipeline: "StableDiffusionPipeline", config: SpectrogramConfig, prior: MusicPrior | None, folder: Path
) -> None:
    """The parts must speak to each other: the same latents, the same embedding, pictures the VAE can hold."""
    unet, vae, text = pipeline.unet.config, pipeline.vae.config, pipeline.text_encoder.config
    width, factor = text.hidden_size, downsampling(pipeline.vae)
    planes = {1: (1, 3), 2: (2, 3)}[config.channels]
    disagreements = {
        f"the unet has {unet.in_channels} channels, the vae {vae.latent_channels}": unet.in_channels
        != vae.latent_channels,
        f"the unet reads {unet.cross_attention_dim} numbers a token, the text encoder gives {width}": (
            unet.cross_attention_dim != width
        ),
        f"the tokenizer has {len(pipeline.tokenizer)} tokens, the text encoder {text.vocab_size}": (
            len(pipeline.tokenizer) > text.vocab_size
        ),
        f"the vae draws {vae.in_channels} channels, the picture has {config.channels}": vae.in_channels not in planes,
        f"pictures of {config.n_mels} rows are no multiple of {factor}": config.n_mels % factor != 0,
        "the music prior reads another embedding": prior is not None and prior.weight.shape[1] != width,
    }
    for what, wrong in disagreements.items():
        if wrong:
            raise ModelError(f"{folder}: {what}; these parts do not belong together")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep diffusers and transformers from talking while they load; what matters is raised as ModelError."""
    with _without_torchaudio(), _without_collector():
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion  # noqa: F401

            yield
        finally:
            diffusers_logging.set_verbosity(levels[0])
            transformers_logging.set_verbosity(levels[1])
            if bars:
                transformers_logging.enable_progress_bar()


@contextmanager
def _without_collector() -> Iterator[None]:
    """Rest the garbage collector: it would look again and again through the million objects that imports make."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _without_torchaudio() -> Iterator[None]:
    """Hide torchaudio while transformers is imported: unneeded, and one built for another torch crashes."""
    hidden = "torchaudio" not in sys.modules
    if hidden:
        sys.modules["torchaudio"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            from transformers.utils.import_utils import is_torchaudio_available

            del sys.modules["torchaudio"]
            is_torchaudio_available.cache_clear()
