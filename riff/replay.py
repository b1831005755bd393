"""Making a file again from its own recipe, and saying where that cannot give the same."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from riff import __version__
from riff.audio import load_audio
from riff.clip import Clip
from riff.diffusion import StepCallback, count_steps
from riff.errors import ModelError, RiffError
from riff.fields import show
from riff.fingerprint import lora_hash, model_hash, sound_hash
from riff.hub import locate
from riff.image import read_png
from riff.job import read_recording
from riff.journey import draw_timeline
from riff.laying import Recording
from riff.lora import check_lora
from riff.model import Sampling, device_kind
from riff.pipeline import RiffPipeline
from riff.recipe import EDITS, PICTURES, Recipe
from riff.request import find_device

BUNDLED_NAME = "riff-mini"


def check_version(recipe: Recipe) -> None:
    """Raise RiffError if another version of riff made the file; another one may draw something else."""
    if recipe.software != f"riff {__version__}":
        raise RiffError(
            f"{recipe.path} was made by {show(recipe.software)} and this is 'riff {__version__}', which may draw "
            "something else; install that version, or give --anyway"
        )


def choose_model(recipe: Recipe, given: str | None, *, trust: bool = False) -> str:
    """What to load. A model that only the file names is never loaded unasked.

    Args:
        recipe: of the file.
        given: by the user; it is taken whatever the file says.
        trust: load what the file names.

    Raises:
        ModelError: the file names another model than riff-mini, and the user neither gives nor trusts one.
    """
    if given is not None:
        return given
    if recipe.model != BUNDLED_NAME and not trust:
        raise ModelError(
            f"{recipe.path} names the model {show(recipe.model)}, which is not loaded unasked; give it with --model, "
            "or --trust-model to load what the file names"
        )
    return recipe.model


def check_model(recipe: Recipe, source: str) -> None:
    """Raise ModelError if the weights of ``source`` are not those that the file was made with; they are not loaded."""
    if recipe.model_hash is None:
        raise ModelError(
            f"{recipe.path} does not say which weights of {show(recipe.model)} it was made with; give --anyway to try"
        )
    found = model_hash(locate(source))
    if found != recipe.model_hash:
        raise ModelError(
            f"{recipe.path} was made with a model of hash {recipe.model_hash[:16]}..., called "
            f"{show(recipe.model)}, and {source} has {found[:16]}...; give the right one with --model, or --anyway"
        )


def choose_loras(recipe: Recipe, given: Sequence[str | Path], *, anyway: bool = False) -> list[tuple[Path, float]]:
    """The files of the recipe's LoRAs among those given, with the recipe's weights, in its order.

    Args:
        recipe: of the file.
        given: files or folders.
        anyway: leave out those that are missing.

    Raises:
        ModelError: one is missing, or is no LoRA.
        RiffError: one is given that the recipe does not use.
    """
    for path in given:
        check_lora(Path(path))
    digests = {lora_hash(Path(path)): Path(path) for path in given}
    wanted = {adapter.digest: adapter for adapter in recipe.loras}
    for adapter in [] if anyway else recipe.loras:
        if adapter.digest not in digests:
            raise ModelError(
                f"{recipe.path} was made with the LoRA {show(adapter.name)} of hash {adapter.digest[:16]}..., which "
                "was not given; give its file with --lora"
            )
    for digest, path in digests.items():
        if digest not in wanted:
            raise RiffError(f"{recipe.path} was not made with the LoRA {path} (hash {digest[:16]}...); leave it out")
    return [(digests[each.digest], each.weight) for each in recipe.loras if each.digest in digests]


def open_source(recipe: Recipe, given: str | Path | None, *, anyway: bool = False) -> Recording | None:
    """The recording that the file was made from; None where there was none.

    Raises:
        RiffError: it was not given, is another one, or there was none.
    """
    if recipe.task not in EDITS:
        if given is not None:
            raise RiffError(f"{recipe.path} was not made from a recording; leave --source out")
        return None
    if given is None:
        raise RiffError(
            f"{recipe.path} was made from a recording (hash of its samples {str(recipe.source)[:16]}...), which it "
            "does not hold; give it with --source"
        )
    recording, _ = read_recording(given)
    found = sound_hash(recording.waveform, recording.sample_rate)
    if found != recipe.source and not anyway:
        raise RiffError(
            f"{recipe.path} was made from a recording whose samples have the hash {str(recipe.source)[:16]}..., and "
            f"{given} has {found[:16]}...; give the right one with --source, or --anyway"
        )
    return recording


def open_pipeline(
    recipe: Recipe, source: str, loras: Sequence[tuple[Path, float]], *, device: str | None = None
) -> RiffPipeline:
    """The model as it was: its scheduler, on the same device its number format, and its LoRAs.

    Where the weights are the same it bears the names that the file tells, so that the new file tells them too.

    Raises:
        ModelError: it cannot be used.
        SystemProblem: there is no such device, or peft is not installed.
    """
    place = find_device(device)
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    same_device = device_kind(place) == recipe.device
    pipe = RiffPipeline.from_pretrained(
        source,
        device=device,
        dtype=dtypes.get(recipe.dtype or "") if same_device else None,
        scheduler=recipe.scheduler,
        guidance_interval=recipe.guidance_interval,
    )
    for path, weight in loras:
        pipe.load_lora(path, weight=weight)
    if recipe.compiled:
        pipe.compile()
    if pipe.origin.model_hash == recipe.model_hash is not None:
        pipe.name = recipe.model
    names = {adapter.digest: adapter.name for adapter in recipe.loras}
    pipe.origin.adapters = tuple(
        dataclasses.replace(adapter, name=names[adapter.digest]) for adapter in pipe.origin.adapters
    )
    return pipe


def differences(recipe: Recipe, pipe: RiffPipeline) -> list[str]:
    """What is not as it was, of all that decides a file's bytes; each as ``"torch 2.13.0, now 2.14.0"``."""
    model = pipe.model
    then: list[tuple[str, object, object]] = [
        ("software", recipe.software, f"riff {__version__}"),
        ("model hash", recipe.model_hash, pipe.origin.model_hash),
        ("config", recipe.config, pipe.config),
        ("LoRAs", recipe.loras, pipe.origin.adapters),
        ("device", recipe.device, device_kind(model.device)),
        ("number format", recipe.dtype, str(pipe.pipeline.unet.dtype).removeprefix("torch.")),
        ("torch", recipe.torch, torch.__version__),
    ]
    return [
        f"another {name}" if isinstance(old, tuple) or name == "config" else f"{name} {show(old)}, now {show(new)}"
        for name, old, new in then
        if old != new
    ]


@torch.no_grad()
def replay(
    recipe: Recipe,
    pipe: RiffPipeline,
    recording: Recording | None = None,
    *,
    callback_on_step_end: StepCallback | None = None,
) -> Clip:
    """The clip of a recipe, drawn again.

    Args:
        recipe: of the file.
        pipe: the model, as :func:`open_pipeline` gives it.
        recording: that it was made from, as :func:`open_source` gives it.
        callback_on_step_end: called as ``(step, steps, latents)``.

    Raises:
        RiffError: the model cannot do what the recipe asks for.
    """
    told = recipe.arguments
    if recipe.timeline is not None:
        guidance = told["guidance_scale"]
        with count_steps(False, callback_on_step_end) as count_step:
            return draw_timeline(
                pipe.model,
                recipe.timeline,
                seed=told["seed"],
                guidance_scale=pipe.model.default_guidance if guidance is None else guidance,
                sampling=Sampling(told["num_inference_steps"], count_step),
                quality=told["quality"],
                ends_pinned=recipe.ends_pinned,
            )
    if recipe.task == "render":
        return pipe(**told, callback_on_step_end=callback_on_step_end).clips[0]
    assert recording is not None
    work: Any = {"remix": pipe.remix, "extend": pipe.extend, "inpaint": pipe.inpaint}[recipe.task]
    options = {"sampling_rate": recording.sample_rate, "callback_on_step_end": callback_on_step_end}
    return work(recording.waveform, **told, **options)


def compare(old: str | Path, new: str | Path) -> str:
    """How alike two files are: ``"bytes"``, ``"content"`` (every sample or pixel, in another file), or ``"different"``.

    Files of different kinds are compared by what they hold, so that a WAV and a FLAC of one sound are ``"content"``.
    """
    if Path(old).read_bytes() == Path(new).read_bytes():
        return "bytes"
    pictures = [Path(path).suffix.lower() in PICTURES for path in (old, new)]
    if pictures[0] != pictures[1]:
        return "different"
    first, of_first = read_png(old)[:2] if pictures[0] else load_audio(old)
    second, of_second = read_png(new)[:2] if pictures[0] else load_audio(new)
    return "content" if of_first == of_second and torch.equal(first, second) else "different"
