"""The request of each task: one frozen dataclass per task, on the fields that all of them share.

This is the only place where a range, a default or a line of help stands. The pipeline's methods, the command line,
lists
of prompts, the server's schema, the metadata in files and the page's controls are derived from it by
:mod:`riff.utils.schema`. To add an option, add a field here (and to the options of its method below), and use it.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict

from annotated_types import Interval, Len

from riff.music.theory import canonical_key, parse_bpm
from riff.prompt.syntax import parse_prompt, parse_weights, plain_prompt
from riff.spectrogram.config import Quality
from riff.utils.errors import RiffError
from riff.utils.schema import FieldError, Option, Parse, check_value, from_dict, rename, validate
from riff.utils.validation import BPM_RANGE, MAX_PROMPT, MAX_SEED

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from riff.diffusion.sampling import StepCallback
    from riff.tasks.stems import Separator

Easing = Literal["linear", "smooth", "step"]
TimeSignature = Literal["3/4", "4/4"]
MAX_BARS = 512
MAX_SECONDS = 600
OLD_NAMES = {"keyscale": "key", "timesignature": "time_signature", "sampling_rate": "sample_rate"}


def check_prompt(text: str) -> str:
    """A prompt that says something and whose brackets are in order."""
    if not any(clause.text.strip() for clause in parse_prompt(text)):
        raise RiffError('the prompt is empty; say what to play, e.g. "mellow jazz, 90 bpm"')
    return text


def _check_negative(text: str) -> str:
    parse_weights(text, "negative_prompt")
    return text


Prompt = Annotated[str, Len(1, MAX_PROMPT), Parse(check_prompt), Option("what to play")]
NegativePrompt = Annotated[
    str, Len(0, MAX_PROMPT), Parse(_check_negative), Option("what to stay away from", "negative")
]
Bpm = Annotated[
    float, Interval(ge=BPM_RANGE[0], le=BPM_RANGE[1]), Option("tempo in beats per minute", slider=(40, 200, 1))
]
Key = Annotated[str, Len(1, 40), Parse(canonical_key), Option("key, such as 'F# minor'", metavar="KEY")]
Bars = Annotated[int, Interval(ge=1, le=MAX_BARS), Option("length in bars", slider=(1, 64, 1))]
BarsPerStep = Annotated[int, Interval(ge=1, le=256), Option("bars from a prompt to the next; default 8", "step")]
Duration = Annotated[float, Interval(ge=0.1, le=MAX_SECONDS), Option("length in seconds", metavar="SECONDS")]
Seed = Annotated[int, Interval(ge=0, le=MAX_SEED), Option("same seed, same music; default random")]
Steps = Annotated[int, Interval(ge=1, le=150), Option("denoising steps", "steps", slider=(1, 100, 1))]
Guidance = Annotated[
    float,
    Interval(ge=0, le=50),
    Option("weight of the prompt; default the model's own", "guidance", slider=(0, 15, 0.1)),
]
Share = Annotated[float, Interval(ge=0, le=1)]
LoraWeight = Annotated[float, Interval(ge=0, le=2), Option("how much of the LoRA")]
Tries = Annotated[int, Interval(ge=0, le=16)]
BestOf = Annotated[int, Interval(ge=1, le=16)]
Count = Annotated[int, Interval(ge=1, le=16), Option("clips of each prompt")]
KeyframeBar = Annotated[float, Interval(ge=0, le=MAX_BARS)]
KeyframeSecond = Annotated[float, Interval(ge=0, le=MAX_SECONDS)]
Second = Annotated[float, Interval(ge=0, le=86_400)]
Bar = Annotated[float, Interval(ge=0, le=100_000)]
Hertz = Annotated[float, Interval(ge=0, le=400_000)]
SampleRate = Annotated[int, Interval(ge=1, le=768_000), Option("samples per second")]
StreamSteps = Annotated[
    Steps | None, Option("denoising steps of each bar; default 6 to 10, as time allows", "steps", slider=(6, 20, 1))
]
NegativePrompts = NegativePrompt | list[NegativePrompt | None] | None
Guidances = Guidance | list[Guidance | None] | None
QualityOption = Annotated[Quality, Option("of the step from image to sound")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """What every task shares."""

    # For pydantic, which reads stdlib dataclasses: "20" is no number, and an unknown field is a mistake.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True, "extra": "forbid"}
    # Pairs of fields of which at most one is given.
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()

    negative_prompt: NegativePrompt | None = None
    seed: Seed | None = None
    num_inference_steps: Steps = 20
    guidance_scale: Guidance | None = None
    quality: QualityOption = "default"

    def __post_init__(self) -> None:
        validate(self)
        for first, second in self.exclusive:
            check_exclusive(self, first, second)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderRequest(Sampling):
    """A prompt becomes a clip."""

    exclusive = (("bars", "duration"),)

    prompt: Prompt
    bpm: Annotated[Bpm | None, Option("tempo; default the prompt's, or what suits it", slider=(40, 200, 1))] = None
    bars: Annotated[Bars | None, Option("length in bars; default 2", slider=(1, 64, 1))] = None
    duration: Duration | None = None
    key: Key | None = None
    key_tries: Annotated[
        Tries,
        Option("measure the key and generate up to N times until it is the given one; the nearest is transposed"
               " at the last", metavar="N"),
    ] = 0  # fmt: skip
    best_of: Annotated[
        BestOf | None,
        Option(
            "generate N candidates and keep the one that best fits prompt, key and tempo, by riff's own detectors",
            metavar="N",
            slider=(1, 8, 1),
        ),
    ] = None
    time_signature: Annotated[
        TimeSignature | None, Option("metre; default the prompt's, or what suits it", old="time")
    ] = None
    loop: Annotated[bool, Option("let the end lead back into the start, to the sample")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bpm is None:
            check_stated_tempo(self.prompt)
        if self.key_tries and self.key is None:
            raise RiffError(f"key_tries is {self.key_tries} without a key; say which key to look for")
        if self.key_tries and self.best_of:
            raise RiffError(f"key_tries is {self.key_tries} and best_of {self.best_of}; give one of them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimelineRequest(Sampling):
    """Music that changes as a timeline says."""

    timeline: Annotated[dict[str, Any], Option("a timeline as riff.Timeline.to_dict gives it", flag="")]
    ends_pinned: Annotated[
        bool, Option("generate the first and the last window as plain clips of their prompts", flag="")
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class WalkRequest(Sampling):
    """From prompt to prompt on one canvas. A list holds one value for each prompt."""

    exclusive = (("bars", "bars_per_step"),)

    prompts: Annotated[list[Prompt], Len(2, 256), Option("two prompts or more")]
    seeds: Annotated[list[Seed] | Seed | None, Option("seed of each prompt, in place of seed", flag="")] = None
    negative_prompt: NegativePrompts = None  # type: ignore[assignment]
    guidance_scale: Guidances = None  # type: ignore[assignment]
    bars_per_step: BarsPerStep | None = None
    bars: Annotated[Bars | None, Option("length of the whole in bars")] = None
    bpm: Annotated[
        Bpm | list[Bpm | None] | None, Option("one tempo; default each prompt's own, with a glide between them")
    ] = None
    key: Annotated[Key | list[Key | None] | None, Option("key, such as 'F# minor'", metavar="KEY")] = None
    easing: Annotated[Literal["linear", "smooth"], Option("shape of the way between two prompts")] = "linear"
    variation: Annotated[
        Share, Option("0 goes on with the same two bars as they change, 1 plays new ones", slider=(0, 1, 0.05))
    ] = 0.0
    loop: Annotated[bool, Option("lead from the last prompt back to the first")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "negative_prompt", "guidance_scale", "bpm", "key"):
            check_count(getattr(self, name), self.prompts, name)
        for prompt in self.prompts if self.bpm is None else ():
            check_stated_tempo(prompt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRequest(Sampling):
    """What all tasks share that work on a recording."""

    prompt: Prompt
    bpm: Annotated[Bpm | None, Option("the recording's tempo; default found, or as riff wrote it")] = None
    downbeat: Annotated[
        Annotated[float, Interval(ge=0, le=3600)] | None,
        Option("a first beat of a bar, in seconds; default found", metavar="SECONDS"),
    ] = None
    key: Key | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bpm is None:
            check_stated_tempo(self.prompt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemixRequest(EditRequest):
    """A recording is played anew, on its own beats and as long as it is."""

    strength: Annotated[Share, Option("0 leaves it as it is, 1 keeps only its beats", slider=(0, 1, 0.05))] = 0.6
    stems: Annotated[
        list[str] | None,
        Option("replace only these, with commas between them: drums, bass, other, vocals", metavar="NAMES"),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtendRequest(EditRequest):
    """A recording goes on."""

    bars: Annotated[Bars, Option("how many bars are new", slider=(1, 32, 1))] = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class InpaintRequest(EditRequest):
    """Parts of a recording are replaced; they are given in seconds or in bars."""

    mask_start_seconds: Annotated[Second | list[Second] | None, Option("where each part begins", flag="")] = None
    mask_end_seconds: Annotated[Second | list[Second] | None, Option("where each part ends", flag="")] = None
    mask_start_bar: Annotated[Bar | list[Bar] | None, Option("the same in bars; 0 is the first", flag="")] = None
    mask_end_bar: Annotated[Bar | list[Bar] | None, Option("the same in bars", flag="")] = None
    low_hz: Annotated[Hertz | None, Option("replace only what lies above", "low", metavar="HZ")] = None
    high_hz: Annotated[
        Annotated[float, Interval(ge=1, le=400_000)] | None,
        Option("replace only what lies below", "high", metavar="HZ"),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterpolateRequest(Sampling):
    """A clip between two prompts, generated from an image. A list holds one value for each prompt."""

    prompts: Annotated[list[Prompt], Len(2, 2), Option("two prompts")]
    alpha: Annotated[Share, Option("0 is the first prompt, 1 the second", slider=(0, 1, 0.05))]
    seeds: Annotated[list[Seed] | Seed | None, Option("seed of each prompt, in place of seed", flag="")] = None
    strength: Annotated[Share | list[Share], Option("how much of the image is new")] = 0.75
    guidance_scale: Guidances = None  # type: ignore[assignment]
    bpm: Annotated[Bpm | None, Option("tempo; default between the prompts'")] = None
    loop: Annotated[bool, Option("let the end lead back into the start")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "strength", "guidance_scale"):
            check_count(getattr(self, name), self.prompts, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamRequest(Sampling):
    """Music without an end."""

    prompt: Prompt
    bpm: Annotated[Bpm | None, Option("tempo; default the prompt's, or what suits it", slider=(40, 200, 1))] = None
    key: Key | None = None
    num_inference_steps: StreamSteps = None  # type: ignore[assignment]
    quality: QualityOption = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bpm is None:
            check_stated_tempo(self.prompt)


def request_from(cls: type[Any], fields: dict[str, Any]) -> Any:
    """A request from its fields; names of earlier releases are accepted with a FutureWarning.

    Raises:
        RiffError: a name that does not exist, a value that is missing, or one out of its range.
    """
    return from_dict(cls, fields, old=OLD_NAMES)


def check_exclusive(request: Any, first: str, second: str) -> None:
    """Raise RiffError if both of two fields are given."""
    one, two = getattr(request, first), getattr(request, second)
    if one is not None and two is not None:
        raise RiffError(f"{first} is {one!r} and {second} {two!r}; give one of them")


def check_count(value: Any, prompts: list[str], name: str) -> None:
    """Raise RiffError if a list has another length than the prompts."""
    if isinstance(value, list) and len(value) != len(prompts):
        raise RiffError(f"{name} has {len(value)} values for {len(prompts)} prompts; give one, or one for each")


def each_of(value: Any, count: int) -> list[Any]:
    """One value for each of ``count`` prompts: the list's, or the same one for all."""
    return list(value) if isinstance(value, list) else [value] * count


def check_stated_tempo(prompt: str) -> None:
    """Raise RiffError if the prompt states a tempo out of range."""
    stated = parse_bpm(plain_prompt(prompt))
    if stated is None:
        return
    try:
        check_value(stated, Bpm, "the prompt's tempo")
    except FieldError as error:
        raise FieldError(error.field, f"is {stated:g} bpm", error.allowed) from error


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A method's keywords as the fields of its request, what the task takes beside it, and how it reports its steps."""
    fields = rename(options, OLD_NAMES)
    names: tuple[str, ...] = ("sample_rate", "separator", "mask")
    beside = {name: fields.pop(name) for name in names if name in fields}
    shown = {"progress": fields.pop("progress", False), "callback": fields.pop("callback_on_step_end", None)}
    return fields, beside, shown


class OldNames(TypedDict, total=False):
    """Earlier spellings of ``key`` and ``time_signature``."""

    keyscale: str | None
    timesignature: str | None


class CallOptions(TypedDict, total=False):
    """What a call takes beside its request."""

    callback_on_step_end: "StepCallback | None"
    progress: bool


class SamplingOptions(CallOptions, total=False):
    """Keywords of every method; :class:`Sampling` says what they mean."""

    negative_prompt: str | None
    seed: int | None
    num_inference_steps: int
    guidance_scale: float | None
    quality: Quality


class WalkOptions(CallOptions, total=False):
    """Keywords of ``walk``; see :class:`WalkRequest`."""

    negative_prompt: str | list[str | None] | None
    num_inference_steps: int
    guidance_scale: float | list[float | None] | None
    quality: Quality
    bars_per_step: int | None
    bars: int | None
    bpm: float | list[float | None] | None
    key: str | list[str | None] | None
    easing: Literal["linear", "smooth"]
    variation: float
    loop: bool


class EditOptions(SamplingOptions, total=False):
    """Keywords of ``remix``, ``extend`` and ``inpaint``; see :class:`EditRequest`."""

    bpm: float | None
    downbeat: float | None
    key: str | None
    sample_rate: int | None


class ExtendOptions(EditOptions, total=False):
    """Keywords of ``extend``; see :class:`ExtendRequest`."""

    bars: int


class RemixOptions(EditOptions, total=False):
    """Keywords of ``remix``; see :class:`RemixRequest`."""

    strength: float
    stems: list[str] | None
    separator: "Separator | None"


class InpaintOptions(EditOptions, total=False):
    """Keywords of ``inpaint``; see :class:`InpaintRequest`."""

    mask_start_seconds: float | list[float] | None
    mask_end_seconds: float | list[float] | None
    mask_start_bar: float | list[float] | None
    mask_end_bar: float | list[float] | None
    low_hz: float | None
    high_hz: float | None


class InterpolateOptions(CallOptions, total=False):
    """Keywords of ``interpolate``; see :class:`InterpolateRequest`."""

    mask: "str | Path | Tensor | None"
    negative_prompt: str | None
    seeds: list[int] | int | None
    strength: float | list[float]
    guidance_scale: float | list[float | None] | None
    bpm: float | None
    loop: bool
    num_inference_steps: int
    quality: Quality
