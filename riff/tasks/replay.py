"""Making a file again from its own recipe, and saying where that cannot give the same."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from riff.audio.io import load_audio
from riff.diffusion.fingerprint import lora_hash, model_hash, sound_hash
from riff.diffusion.hub import locate
from riff.diffusion.lora import check_lora
from riff.diffusion.model import DiffusionModel, device_kind
from riff.diffusion.sampling import StepCallback
from riff.music.alignment import Recording
from riff.spectrogram.png import read_png
from riff.tasks.clip import Clip
from riff.tasks.provenance import EDITS, PICTURES, Recipe
from riff.tasks.recording import read_recording
from riff.tasks.run import run
from riff.utils.errors import ModelError, RiffError
from riff.utils.parallel import threads
from riff.utils.validation import show
from riff.version import __version__

BUNDLED_NAME = "riff-mini"


def check_version(recipe: Recipe) -> None:
    """Raise RiffError if another version of riff made the file; its result may be another."""
    if recipe.software != f"riff {__version__}":
        raise RiffError(
            f"{recipe.path} was made by {show(recipe.software)} and this is 'riff {__version__}', whose "
            "result may be another; install that version, or give --anyway"
        )


def choose_model(recipe: Recipe, given: str | None, *, trust: bool = False) -> str:
    """What to load. A model that only the file names is not loaded unless the user trusts it.

    Args:
        recipe: of the file.
        given: by the user; it is loaded whatever the file says.
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


def differences(recipe: Recipe, model: DiffusionModel) -> list[str]:
    """What has changed of all that decides a file's bytes; each as ``"torch 2.13.0, now 2.14.0"``."""
    then: list[tuple[str, object, object]] = [
        ("software", recipe.software, f"riff {__version__}"),
        ("model hash", recipe.model_hash, model.origin.model_hash),
        ("config", recipe.config, model.config),
        ("LoRAs", recipe.loras, model.origin.adapters),
        ("device", recipe.device, device_kind(model.device)),
        ("number format", recipe.dtype, str(model.components.unet.dtype).removeprefix("torch.")),
        ("torch", recipe.torch, torch.__version__),
    ]
    if recipe.threads is None and recipe.device == "cpu":
        then.append(("number of threads", "unknown", torch.get_num_threads()))
    return [
        f"another {name}" if isinstance(old, tuple) or name == "config" else f"{name} {show(old)}, now {show(new)}"
        for name, old, new in then
        if old != new
    ]


def replay(
    recipe: Recipe,
    model: DiffusionModel,
    recording: Recording | None = None,
    *,
    callback: StepCallback | None = None,
) -> Clip:
    """The clip of a recipe, generated again on as many threads of a CPU as the first time.

    Args:
        recipe: of the file.
        model: as it was when the file was made.
        recording: the file's source, as :func:`open_source` gives it.
        callback: called as ``(step, steps, latents)``.

    Raises:
        RiffError: the model cannot do what the recipe asks for.
    """
    audio, rate = (None, None) if recording is None else (recording.waveform, recording.sample_rate)
    with threads(recipe.threads if device_kind(model.device) == "cpu" else None):
        return run(model, recipe.request, audio, sample_rate=rate, callback=callback)


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


def describe_distance(old: str | Path, new: str | Path) -> str:
    """How far apart two files of one kind are, such as ``"3 of 65,536 pixels differ, by at most 1 step of 255"``."""
    if Path(old).suffix.lower() in PICTURES:
        (first, config, _), (second, other, _) = read_png(old), read_png(new)
        if first.shape != second.shape or config != other:
            return f"images of {tuple(first.shape)} and {tuple(second.shape)} (channels, rows, columns)"
        steps = ((first - second) * 255.0).round().abs()
        return _count(steps, "pixels", int(steps.max()), "255")
    (first, rate), (second, other_rate) = load_audio(old), load_audio(new)
    if first.shape != second.shape or rate != other_rate:
        return f"{_length(first, rate)} and {_length(second, other_rate)}"
    steps = ((first - second) * 32768.0).abs()
    return _count(steps, "samples", max(1, math.ceil(float(steps.max()))), "32,768")


def _count(steps: Tensor, what: str, most: int, full: str) -> str:
    number = int((steps > 0).sum())
    return f"{number:,} of {steps.numel():,} {what} differ, by at most {most:,} step{'s' * (most != 1)} of {full}"


def _length(sound: Tensor, rate: int) -> str:
    return f"{len(sound)} channel{'s' * (len(sound) != 1)} of {sound.shape[-1]:,} samples at {rate} Hz"
