"""Making a file again from its own recipe, and saying where that cannot give the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from riff.audio.io import load_audio
from riff.diffusion.fingerprint import lora_hash, model_hash, sound_hash
from riff.diffusion.hub import locate
from riff.diffusion.lora import check_lora
from riff.diffusion.model import DenoiseOptions, device_kind
from riff.diffusion.sampling import StepCallback, count_steps
from riff.music.alignment import Recording
from riff.pipeline import RiffPipeline
from riff.spectrogram.png import read_png
from riff.tasks.clip import Clip
from riff.tasks.provenance import EDITS, PICTURES, Recipe
from riff.tasks.recording import read_recording
from riff.tasks.walk import draw_timeline
from riff.utils.errors import ModelError, RiffError
from riff.utils.validation import show
from riff.version import __version__


def check_version(recipe: Recipe) -> None:
    """Raise RiffError if another version of riff made the file; another one may draw something else."""
    if recipe.software != f"riff {__version__}":
        raise RiffError(
            f"{recipe.path} was made by {show(recipe.software)} and this is 'riff {__version__}', which may draw "
            "something else; install that version, or give --anyway"
        )


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


def differences(recipe: Recipe, pipe: RiffPipeline) -> list[str]:
    """What is not as it was, of all that decides a file's bytes; each as ``"torch 2.13.0, now 2.14.0"``."""
    model = pipe.model
    then: list[tuple[str, object, object]] = [
        ("software", recipe.software, f"riff {__version__}"),
        ("model hash", recipe.model_hash, pipe.origin.model_hash),
        ("config", recipe.config, pipe.config),
        ("LoRAs", recipe.loras, pipe.origin.adapters),
        ("device", recipe.device, device_kind(model.device)),
        ("number format", recipe.dtype, str(pipe.components.unet.dtype).removeprefix("torch.")),
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
                sampling=DenoiseOptions(told["num_inference_steps"], count_step),
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
