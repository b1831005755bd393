"""Loading the components of a Stable Diffusion model one by one, and making sure that they belong together and run."""

import gc
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riff.diffusion.hub import check_index, component_class, find_weights, weights_files
from riff.diffusion.latents import downsampling, image_to_latents, latents_to_image
from riff.diffusion.sampling import scheduler_class, set_timesteps, step_options
from riff.prompt.encoder import embed_prompt, prompt_length
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import check_safetensors, first_line, read_json

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTokenizer

# Where a config asks for more than its weights hold, this much more is a matter of taste (buffers, tied weights).
_ROOM = 4
_MOST_TIMESTEPS = 100_000
_TRIAL_STEPS = 20


def load_folder(folder: Path, dtype: torch.dtype, variant: str | None, source: str) -> "StableDiffusionPipeline":
    """The components of a checked folder, on the CPU.

    Raises:
        ModelError: a file is missing, damaged, or is not what its config says.
    """
    index = check_index(folder)
    models = {}
    for name in ("unet", "vae", "text_encoder"):
        fields = read_json(folder / name / "config.json")
        found = find_weights(folder, name, variant=variant, source=source)
        kind = component_class(index, name)
        with reading(folder / name):
            _check_size(kind, fields, weights_files(folder, name, found))
            models[name] = _load_model(folder / name, kind, fields, dtype, found)
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    with reading(folder / "tokenizer"):
        tokenizer = _load_tokenizer(folder / "tokenizer")
    with reading(folder / "scheduler"):
        scheduler = _load_scheduler(folder, index)
    with reading(folder):
        return StableDiffusionPipeline(
            **models,
            tokenizer=tokenizer,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def load_single_file(path: Path, dtype: torch.dtype) -> "StableDiffusionPipeline":
    """Stable Diffusion from one ``.safetensors`` file, with the configuration that is in the Hub's cache.

    Raises:
        ModelError: it is of another kind, damaged, or the configuration is not there.
    """
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file; riff opens no other weights, so save it in that format")
    check_safetensors(path)
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    remedy = "a single file needs the Stable Diffusion configuration in the Hub's cache, a folder needs nothing else"
    with reading(path, remedy):
        return StableDiffusionPipeline.from_single_file(
            path, dtype=dtype, local_files_only=True, safety_checker=None, feature_extractor=None
        )


@contextmanager
def reading(place: Path, remedy: str = "restore it or download it again") -> Iterator[None]:
    """Turn what the libraries raise about a file's content, which may be anything, into one ModelError."""
    try:
        yield
    except (ModelError, SystemProblem):
        raise
    except Exception as error:
        raise ModelError(f"{place} cannot be loaded ({first_line(error)}); {remedy}") from error


def _check_size(kind: str | None, fields: dict[str, Any], files: list[Path]) -> None:
    """Refuse a config that asks for much more than its weights hold, before memory is taken for it.

    Counts of layers are compared with the number of tensors, since each layer has one. Then the model is built without
    memory, on torch's meta device, and its size is compared with that of the tensors.
    """
    from safetensors import safe_open

    tensors, size = 0, 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors += len(names)
            size += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in names)
    for name, value in fields.items():
        counts = value if isinstance(value, list) else [value]
        repeats = "layers" in name or "blocks" in name
        largest = max((each for each in counts if isinstance(each, int) and repeats), default=0)
        if largest > tensors or len(counts) > tensors:
            raise ModelError(f"{files[0].parent}: {name} is {str(value)[:60]}, but the weights hold {tensors} tensors")
    with torch.device("meta"):
        if kind == "CLIPTextModel":
            model = _model_class(kind)(_text_config(fields))
        else:
            model = _model_class(kind).from_config(fields)
    needed = sum(tensor.numel() for tensor in model.state_dict().values())
    if needed > _ROOM * size + (1 << 20):
        raise ModelError(f"{files[0].parent}: its config asks for {needed:,} numbers, its weights hold {size:,}")


def _model_class(kind: str | None) -> Any:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel

    known: tuple[Any, ...] = (AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, CLIPTextModel)
    return next(each for each in known if each.__name__ == kind)


def _text_config(fields: dict[str, Any]) -> "CLIPTextConfig":
    """The text encoder's config without anything that makes transformers load code or kernels."""
    from transformers import CLIPTextConfig

    if isinstance(fields.get("text_config"), dict):
        fields = fields["text_config"]
    known = inspect.signature(CLIPTextConfig).parameters
    return CLIPTextConfig(**{name: value for name, value in fields.items() if name in known and name != "dtype"})


def _load_model(place: Path, kind: str | None, fields: dict[str, Any], dtype: torch.dtype, variant: str | None) -> Any:
    if "quantization_config" in fields:
        raise ModelError(f"{place} is quantized, which riff does not read; use the model in float16 or float32")
    options: dict[str, Any] = {"config": _text_config(fields)} if kind == "CLIPTextModel" else {}
    model, report = _model_class(kind).from_pretrained(
        place,
        output_loading_info=True,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        variant=variant,
        **options,
    )
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in report[problem] or ())
        if keys:
            what = problem.removesuffix("_keys")
            raise ModelError(f"{place}: {len(keys)} weight(s) {what}, e.g. {keys[0]}; not those of its config")
    return model.eval()


def _load_tokenizer(place: Path) -> "CLIPTokenizer":
    from transformers import CLIPTokenizer

    files = {name: place / name for name in ("tokenizer.json", "vocab.json", "merges.txt") if (place / name).is_file()}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files.keys():
        raise ModelError(
            f"{place} has neither tokenizer.json nor vocab.json and merges.txt; the checkpoint is incomplete"
        )
    fields = read_json(place / "tokenizer_config.json") if (place / "tokenizer_config.json").exists() else {}
    length = fields.get("model_max_length", 77)
    if isinstance(length, bool) or not isinstance(length, int | float) or not 3 <= length == length // 1:
        raise ModelError(f"{place}: model_max_length is {length!r}; use a number of tokens such as 77")
    if foreign := {"vocab", "merges", "fast_tokenizer_files"} & fields.keys():
        raise ModelError(f"{place}: tokenizer_config.json has {sorted(foreign)[0]!r}, which riff does not read")
    # Named here, so that a config cannot name files elsewhere.
    return CLIPTokenizer.from_pretrained(
        place,
        local_files_only=True,
        tokenizer_file=str(files["tokenizer.json"]) if "tokenizer.json" in files else None,
        vocab_file=str(files["vocab.json"]) if "vocab.json" in files else None,
        merges_file=str(files["merges.txt"]) if "merges.txt" in files else None,
    )


def _load_scheduler(folder: Path, index: dict[str, Any]) -> "SchedulerMixin":
    fields = read_json(folder / "scheduler" / "scheduler_config.json")
    steps = fields.get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MOST_TIMESTEPS:
        raise ModelError(
            f"{folder / 'scheduler'}: num_train_timesteps is {steps!r}; use a whole number from 1 to {_MOST_TIMESTEPS}"
        )
    try:
        kind = scheduler_class(component_class(index, "scheduler") or "")
    except RiffError as error:
        raise ModelError(f"{folder / 'scheduler'} cannot be used ({error}); restore it") from error
    # Stable Diffusion's own corrections, made here so that diffusers does not warn about them.
    return kind.from_config({**fields, "clip_sample": False, "steps_offset": 1})


def check_finite(pipeline: "StableDiffusionPipeline", folder: Path) -> None:
    """Refuse weights that hold NaN or infinite numbers."""
    for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"{folder}: {name} holds NaN or infinite numbers; restore it or download it again")


def check_fit(
    pipeline: "StableDiffusionPipeline", config: SpectrogramConfig, prior: MusicPrior | None, folder: Path
) -> None:
    """The components must agree: the same latents, the same embedding, images that the VAE can hold."""
    with reading(folder):
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
            f"the vae has {vae.in_channels} channels, the image {config.channels}": vae.in_channels not in planes,
            f"images of {config.n_mels} rows are no multiple of {factor}": config.n_mels % factor != 0,
            "the music prior reads another embedding": prior is not None and prior.weight.shape[1] != width,
        }
    for what, wrong in disagreements.items():
        if wrong:
            raise ModelError(f"{folder}: {what}; these parts do not belong together")


@torch.no_grad()
def check_runs(pipeline: "StableDiffusionPipeline", config: SpectrogramConfig, folder: Path) -> None:
    """Run each component once on the smallest input: a config can be well formed and still describe no model.

    It takes 0.1 s for a model like riff-mini; no global random numbers are used.

    Raises:
        ModelError: a component fails, or gives another shape than the next one reads.
    """
    unet, vae = pipeline.unet, pipeline.vae
    side, factor = 2 ** (len(unet.config.block_out_channels) - 1), downsampling(vae)
    shape = (1, unet.config.in_channels, side, side)
    with reading(folder, "a config is damaged or the components do not belong together"):
        embeds = embed_prompt(["music"], pipeline.tokenizer, pipeline.text_encoder)
        length = prompt_length(pipeline.tokenizer, pipeline.text_encoder)
        _expect(embeds, (1, length, unet.config.cross_attention_dim), "text_encoder")
        scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        set_timesteps(scheduler, _TRIAL_STEPS, unet.device)
        latents = torch.zeros(shape, device=unet.device, dtype=unet.dtype)
        scaled = scheduler.scale_model_input(latents, scheduler.timesteps[0]).to(unet.dtype)
        prediction = unet(scaled, scheduler.timesteps[0], encoder_hidden_states=embeds.to(unet.dtype)).sample
        _expect(prediction, shape, "unet")
        options = step_options(scheduler, None)
        scheduler.step(prediction.float(), scheduler.timesteps[0], latents.float(), **options)
        image = latents_to_image(latents, vae, channels=config.channels)
        _expect(image, (1, config.channels, side * factor, side * factor), "vae")
        _expect(image_to_latents(image, vae), shape, "vae")


def _expect(found: torch.Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(found.shape) != shape:
        raise ValueError(f"the {name} gives {tuple(found.shape)} where {shape} is expected")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep diffusers and transformers from printing while they load; what matters is raised as ModelError.

    Raises:
        SystemProblem: they cannot be imported, as beside a torchaudio that was built for another torch.
    """
    with _without_collector():
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            _import_libraries()
            yield
        finally:
            diffusers_logging.set_verbosity(levels[0])
            transformers_logging.set_verbosity(levels[1])
            if bars:
                transformers_logging.enable_progress_bar()


def _import_libraries() -> None:
    try:
        import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise SystemProblem(
            f"diffusers and transformers cannot be imported ({first_line(error)}); if it is about torchaudio, "
            f"install the one for torch {torch.__version__}: python -m pip install 'torchaudio>=2.11,<2.12'"
        ) from error


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
