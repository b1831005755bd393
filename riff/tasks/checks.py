"""A call's arguments, checked once at the border."""

import dataclasses
import secrets
from typing import Any

import torch
from torch import Tensor

from riff.diffusion.model import DenoiseOptions
from riff.prompt.interpret import ParsedPrompt
from riff.prompt.syntax import parse_prompt, parse_weights
from riff.spectrogram.inversion.solver import QUALITIES, Quality
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.validation import BPM_RANGE, MAX_SEED, check_number, check_text


def check_prompts(prompt: str | list[str]) -> list[str]:
    """The prompts of a call as a list; empty, overlong or unencodable ones are an error."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not prompts:
        raise RiffError(f"prompt is {prompt!r}; use a sentence or a list of sentences")
    for text in prompts:
        check_text(text, "prompt")
        if not any(clause.text.strip() for clause in parse_prompt(text)):
            raise RiffError('the prompt is empty; say what to play, e.g. "mellow jazz, 90 bpm"')
    return list(prompts)


def check_negative(text: object) -> str:
    """A negative prompt if it is text whose brackets are in order; None is the empty one."""
    negative = check_text("" if text is None else text, "negative_prompt")
    parse_weights(negative, "negative_prompt")
    return negative


def check_length(bars: int | None, duration: float | None) -> None:
    """Raise RiffError unless at most one of ``bars`` and ``duration`` is given, and in its range."""
    if bars is not None and duration is not None:
        raise RiffError(f"bars is {bars!r} and duration {duration!r}; give one of them")
    if bars is not None:
        check_number(bars, "bars", 1, 512, whole=True)
    if duration is not None:
        check_number(duration, "duration", 0.1, 600)


def clip_seeds(count: int, seed: int | None, generator: torch.Generator | list[torch.Generator] | None) -> list[int]:
    """One seed per clip: ``seed + i``, or drawn from the generator(s), or from the system's randomness.

    A generator gives seeds rather than noise, so that every clip can say the seed that makes it again.
    """
    if generator is not None:
        if seed is not None:
            raise RiffError(f"seed is {seed!r} and a generator is given; give one of them")
        generators = generator if isinstance(generator, list) else [generator] * count
        if len(generators) != count:
            raise RiffError(f"there are {len(generators)} generators for {count} clips; give one, or one per clip")
        return [int(torch.randint(MAX_SEED, (1,), generator=each)) for each in generators]
    if seed is None:
        seed = secrets.randbelow(2**32)
    check_number(seed, "seed", 0, MAX_SEED, whole=True)
    return [(seed + index) % (MAX_SEED + 1) for index in range(count)]


def each_of(value: Any, prompts: list[str], name: str) -> list[Any]:
    """A value for each prompt: the list's, or the same one for all."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(prompts)
    if len(values) != len(prompts):
        raise RiffError(f"{name} has {len(values)} values for {len(prompts)} prompts; give one, or one for each")
    return values


def check_sampling(bpm: float | None, steps: int, guidance: float | None, count: int, quality: str) -> None:
    """Raise RiffError unless every number is in its range."""
    if bpm is not None:
        check_number(bpm, "bpm", *BPM_RANGE)
    if guidance is not None:
        check_number(guidance, "guidance_scale", 0, 50)
    check_number(steps, "num_inference_steps", 1, 150, whole=True)
    check_number(count, "num_waveforms_per_prompt", 1, 16, whole=True)
    if quality not in QUALITIES:
        raise RiffError(f"quality is {quality!r}; use {', '.join(QUALITIES)}")


def check_metre(timesignature: str | None) -> None:
    """Raise RiffError unless ``timesignature`` is one that riff knows, or None."""
    if timesignature not in (None, "3/4", "4/4"):
        raise RiffError(f"timesignature is {timesignature!r}; use '3/4' or '4/4'")


def check_latents(latents: Tensor, shapes: list[tuple[int, int, int]]) -> None:
    """Raise RiffError unless ``latents`` is finite noise, one sample for each of equal ``shapes``."""
    if len(set(shapes)) > 1:
        raise RiffError("latents were given for clips of different length; render these prompts one by one")
    shape = (len(shapes), *shapes[0])
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise RiffError(f"latents have shape {found}; this call needs {shape}")
    if not bool(torch.isfinite(latents).all()):
        raise RiffError("latents hold NaN or infinite numbers; pass standard normal noise")


def find_device(device: str | None) -> torch.device:
    """The device called ``device``, or the fastest there is.

    Raises:
        SystemProblem: this machine has no such device.
        RiffError: there is no such kind of device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = str(device).partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise RiffError(f"device is {device!r}; use cpu, cuda or mps")
    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
        raise SystemProblem(f"this machine has no {kind} device that torch can use; leave --device out or use cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise RiffError(f"device is {device!r}; use cpu, cuda, cuda:0 or mps") from error


# WAS riff/drawing.py: From plans to clips: the pictures of one call drawn side by side, played, and drawn again
# until the key is right.


@dataclasses.dataclass(frozen=True)
class Wish:
    """What all clips of one call share.

    Attributes:
        negative: what to stay away from, as the model is told.
        guidance_scale: weight of the prompt.
        sampling: how it is drawn.
        quality: of the step from picture to sound.
        keyscale: key to look for, or None.
        key_tries: drawings until it is found; 0 does not look.
        settings: what the clips say of how they were made.
    """

    negative: str
    guidance_scale: float
    sampling: DenoiseOptions
    quality: Quality
    keyscale: str | None
    key_tries: int
    settings: dict[str, Any]


# WAS riff/edits.py: Making something new of a recording: remix it, make it longer, replace a part of it.
#
# The recording has been laid on the model's grid (:mod:`riff.music.alignment`), so that what is new keeps its
# timing and loudness.


@dataclasses.dataclass(frozen=True)
class Request:
    """What to draw into a recording.

    Attributes:
        reading: of the prompt.
        negative_prompt: what to stay away from.
        guidance_scale: weight of the prompt.
        seed: of the noise and the phases.
        sampling: how it is drawn.
        quality: of the step from picture to sound.
    """

    reading: ParsedPrompt
    negative_prompt: str
    guidance_scale: float
    seed: int
    sampling: DenoiseOptions
    quality: Quality = "default"


# WAS riff/morph.py: Between two prompts, on the ground of a picture: the form that Riffusion's interpolation
# has, made symmetric.


@dataclasses.dataclass(frozen=True)
class InterpolationEnd:
    """One end of an interpolation.

    Attributes:
        reading: of its prompt.
        seed: of its noise.
        guidance_scale: weight of the prompt.
        strength: how much of the picture is drawn anew, 0 to 1.
    """

    reading: ParsedPrompt
    seed: int
    guidance_scale: float
    strength: float
