"""What a request may hold, as typed JSON: the page at /docs and every 422 come from here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from riff.checks import MAX_SEED
from riff.fields import show
from riff.server.faults import Refusal
from riff.server.settings import Settings

Prompt = Annotated[str, Field(min_length=1, max_length=10_000)]
Bpm = Annotated[float, Field(ge=20, le=400, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1, le=150)]
Bars = Annotated[int, Field(ge=1, le=512)]
Guidance = Annotated[float, Field(ge=0, le=50, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
Hertz = Annotated[float, Field(ge=0, le=400_000, allow_inf_nan=False)]
Sound = Literal["wav", "flac", "ogg", "mp3"]
Quality = Literal["fast", "default", "high", "best", "griffin-lim"]
Marks = float | list[float] | None


class Strict(BaseModel):
    """Nothing is guessed: "20" is no number, and an unknown field is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Drawing(Strict):
    """What every request that draws may hold."""

    negative_prompt: str | None = Field(None, max_length=10_000, description="what to stay away from")
    seed: Seed | None = Field(None, description="same seed, same music; null is random")
    num_inference_steps: Steps = 20
    guidance_scale: Guidance | None = Field(None, description="weight of the prompt; null is the model's usual")
    quality: Quality = "default"
    format: Literal["wav", "flac", "ogg", "mp3", "png"] = Field("wav", description="of the result; png is its picture")


class RenderRequest(_Drawing):
    """A sentence, or a timeline, becomes music."""

    prompt: Prompt | None = Field(None, description="what to play; tempo, key and metre in it are understood")
    timeline: dict[str, Any] | None = Field(None, description="a timeline as riff.Timeline.to_dict gives it")
    bpm: Bpm | None = None
    bars: Bars | None = None
    duration: Annotated[float, Field(ge=0.1, le=600, allow_inf_nan=False)] | None = Field(None, description="seconds")
    keyscale: str | None = Field(None, max_length=40)
    key_tries: Annotated[int, Field(ge=0, le=16)] = 0
    timesignature: Literal["3/4", "4/4"] | None = None
    loop: bool = False


class WalkRequest(_Drawing):
    """From prompt to prompt on one canvas."""

    prompts: list[Prompt] = Field(min_length=2, max_length=32)
    seeds: list[Seed] | None = Field(None, max_length=32, description="one for each prompt, in place of seed")
    bars_per_step: Annotated[int, Field(ge=1, le=256)] | None = None
    bars: Bars | None = None
    bpm: Bpm | list[Bpm] | None = None
    keyscale: str | None = Field(None, max_length=40)
    easing: Literal["linear", "smooth"] = "linear"
    variation: Share = 0.0
    loop: bool = False


class _Edit(_Drawing):
    audio: str | None = Field(None, description="the recording in base64; in multipart, a file of this name")
    prompt: Prompt
    bpm: Bpm | None = Field(None, description="the recording's tempo; null finds its beats")
    downbeat: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None
    keyscale: str | None = Field(None, max_length=40)


class RemixRequest(_Edit):
    """A recording played anew as a prompt says."""

    strength: Share = 0.6


class ExtendRequest(_Edit):
    """A recording goes on."""

    bars: Bars = 8


class InpaintRequest(_Edit):
    """Parts of a recording are replaced."""

    mask_start_seconds: Seconds | list[Seconds] | None = None
    mask_end_seconds: Seconds | list[Seconds] | None = None
    mask_start_bar: Seconds | list[Seconds] | None = None
    mask_end_bar: Seconds | list[Seconds] | None = None
    low_hz: Hertz | None = None
    high_hz: Hertz | None = None


class EncodeRequest(Strict):
    """A recording becomes a spectrogram picture."""

    audio: str | None = Field(None, description="the recording in base64; in multipart, a file of this name")
    preset: Literal["riff", "riffusion"] = "riff"
    bpm: Bpm | None = Field(None, description="cut columns on the beat at this tempo (preset riff)")
    stereo: bool = False


class DecodeRequest(Strict):
    """A spectrogram picture becomes sound."""

    picture: str | None = Field(None, description="PNG, JPEG or WebP in base64; in multipart, a file of this name")
    preset: Literal["riff", "riffusion"] | None = Field(None, description="what it is, whatever it says itself")
    bpm: Bpm | None = None
    quality: Quality = "default"
    loop: bool = False
    seed: Seed = 0
    format: Sound = "wav"


class StreamChange(Strict):
    """Where an endless stream should walk."""

    prompt: Prompt | None = None
    bpm: Bpm | None = None


def validate(schema: type[BaseModel], fields: Any) -> Any:
    """``fields`` as ``schema``.

    Raises:
        Refusal: 422, naming the first field that is wrong and what is allowed.
    """
    if not isinstance(fields, dict):
        raise Refusal(422, f"the body is {_kind(fields)}; send one JSON object")
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise Refusal(422, _first_mistake(schema, error)) from None


def _first_mistake(schema: type[BaseModel], error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in mistake["loc"])
    name = show(str(mistake["loc"][0])) if mistake["loc"] else "the body"
    if mistake["type"] == "extra_forbidden":
        return f"unknown field {name}; known are {', '.join(schema.model_fields)}"
    if mistake["type"] == "missing":
        return f"{name} is missing"
    # Values stay out of the message; they may be anybody's words.
    return f"{place}: {mistake['msg'].lower().removeprefix('input ')}"


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def check_limits(request: Any, settings: Settings) -> None:
    """Refuse what this server does not allow, though riff would.

    Raises:
        Refusal: 422, naming the field and the limit.
    """
    steps, bars = getattr(request, "num_inference_steps", None) or 1, getattr(request, "bars", None)
    if steps > settings.max_steps:
        raise Refusal(422, f"num_inference_steps is {steps}; this server allows 1 to {settings.max_steps}")
    if bars is not None and bars > settings.max_bars:
        raise Refusal(422, f"bars is {bars}; this server allows 1 to {settings.max_bars}")
    whole = (getattr(request, "bars_per_step", None) or 0) * len(getattr(request, "prompts", ()))
    if whole > settings.max_bars:
        raise Refusal(422, f"the walk is {whole} bars long; this server allows 1 to {settings.max_bars}")
    duration = getattr(request, "duration", None)
    if duration is not None and duration > settings.max_seconds:
        raise Refusal(422, f"duration is {duration:g}; this server allows up to {settings.max_seconds:g} s")
    for name, text in said(request):
        if len(text) > settings.max_prompt:
            raise Refusal(422, f"{name} has {len(text)} characters; this server allows {settings.max_prompt}")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise Refusal(422, f"{name} holds half a surrogate pair; remove it")


def said(request: Any) -> list[tuple[str, str]]:
    """Every prompt of a request, by the name of its field."""
    request = getattr(request, "asked", request)  # of an upload's
    if hasattr(request, "start"):
        return said(request.start) + said(request.end)
    found = [(name, getattr(request, name, None)) for name in ("prompt", "negative_prompt")]
    found += [("prompts", text) for text in getattr(request, "prompts", [])]
    timeline = getattr(request, "timeline", None) or {}
    frames = timeline.get("keyframes")
    for frame in frames if isinstance(frames, list) else []:
        if isinstance(frame, dict):
            found += [(name, frame.get(name)) for name in ("prompt", "negative_prompt")]
    return [(name, text) for name, text in found if isinstance(text, str)]
