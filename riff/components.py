"""Loading the parts of a Stable Diffusion model one by one, and making sure that they belong together."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riff.config import SpectrogramConfig
from riff.diffusion import scheduler_class
from riff.errors import ModelError, RiffError
from riff.latents import downsampling
from riff.prior import MusicPrior
from riff.weights import check_index, check_safetensors, component_class, find_weights, first_line, read_json

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, StableDiffusionPipeline
    from transformers import CLIPTokenizer


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
