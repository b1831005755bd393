"""What a request may hold, as typed JSON: the page at /docs and every 422 come from here."""

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from riff.apps.server.settings import ApiError, Settings
from riff.utils.validation import MAX_SEED, show

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
        raise ApiError(422, f"the body is {_kind(fields)}; send one JSON object")
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        raise ApiError(422, _first_mistake(schema, error)) from None


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
        raise ApiError(422, f"num_inference_steps is {steps}; this server allows 1 to {settings.max_steps}")
    if bars is not None and bars > settings.max_bars:
        raise ApiError(422, f"bars is {bars}; this server allows 1 to {settings.max_bars}")
    whole = (getattr(request, "bars_per_step", None) or 0) * len(getattr(request, "prompts", ()))
    if whole > settings.max_bars:
        raise ApiError(422, f"the walk is {whole} bars long; this server allows 1 to {settings.max_bars}")
    duration = getattr(request, "duration", None)
    if duration is not None and duration > settings.max_seconds:
        raise ApiError(422, f"duration is {duration:g}; this server allows up to {settings.max_seconds:g} s")
    for name, text in prompt_texts(request):
        if len(text) > settings.max_prompt:
            raise ApiError(422, f"{name} has {len(text)} characters; this server allows {settings.max_prompt}")
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ApiError(422, f"{name} holds half a surrogate pair; remove it")


def prompt_texts(request: Any) -> list[tuple[str, str]]:
    """Every prompt of a request, by the name of its field."""
    request = getattr(request, "asked", request)  # of an upload's
    if hasattr(request, "start"):
        return prompt_texts(request.start) + prompt_texts(request.end)
    found = [(name, getattr(request, name, None)) for name in ("prompt", "negative_prompt")]
    found += [("prompts", text) for text in getattr(request, "prompts", [])]
    timeline = getattr(request, "timeline", None) or {}
    frames = timeline.get("keyframes")
    for frame in frames if isinstance(frames, list) else []:
        if isinstance(frame, dict):
            found += [(name, frame.get(name)) for name in ("prompt", "negative_prompt")]
    return [(name, text) for name, text in found if isinstance(text, str)]


# WAS riff/server/body.py: Reading a request's body: strict JSON, or a form with one file.

_MOST_FIELDS = 40


def parse_json(content: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no NaN, no field twice, no endless depth.

    Raises:
        Refusal: 400, it is none.
    """
    if not content.strip():
        raise ApiError(400, "the body is empty; send one JSON object")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ApiError(400, "the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ApiError(400, "the body is no UTF-8 text; send one JSON object") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the body is no valid JSON{where}; send one object") from None


def _no_constant(name: str) -> None:
    raise ApiError(400, f"the JSON holds {name}, which is no number there; leave the field out or send null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ApiError(400, "the JSON holds a field twice; send each once")
    return fields


async def read_request(request: Request, schema: type[BaseModel], file_field: str | None = None) -> tuple[Any, bytes]:
    """A validated request and the bytes of its file, which are empty where there is none to be had.

    Args:
        request: with a body of ``application/json``, or ``multipart/form-data`` where there is a file.
        schema: of its fields.
        file_field: name of the file; in JSON it holds base64.

    Raises:
        Refusal: 400, 413, 415 or 422.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = validate(schema, parse_json(await request.body()))
        if file_field is None:
            return asked, b""
        text = getattr(asked, file_field)
        if text is None:
            raise ApiError(422, f"{file_field!r} is missing; send it in base64, or as a file in multipart/form-data")
        setattr(asked, file_field, None)
        return asked, _from_base64(text, file_field)
    if kind == "multipart/form-data" and file_field is not None:
        return await _read_form(request, schema, file_field)
    allowed = "application/json" + ("" if file_field is None else " or multipart/form-data")
    raise ApiError(415, f"the content type is not one that this takes; use {allowed}")


async def _read_form(request: Request, schema: type[BaseModel], file_field: str) -> tuple[Any, bytes]:
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        fields: dict[str, Any] = {}
        content: bytes | None = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != file_field:
                    raise ApiError(422, f"a file came in another field than {file_field!r}; send it there")
                content = await value.read()  # its name is never looked at
            elif name in fields:
                raise ApiError(400, "the form holds a field twice; send each once")
            else:
                fields[name] = _form_value(schema, name, value)
    if content is None:
        raise ApiError(422, f"the file {file_field!r} is missing")
    fields.pop(file_field, None)
    return validate(schema, fields), content


def _form_value(schema: type[BaseModel], name: str, text: str) -> Any:
    """A form's text as the field's kind: what is text there stays text, numbers and lists are read as JSON."""
    field = schema.model_fields.get(name)
    if field is not None and "str" in str(field.annotation) and "list" not in str(field.annotation):
        return text
    try:
        return parse_json(text.encode("utf-8", "replace"))
    except ApiError:
        return text


def _from_base64(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(422, f"{name} is no valid base64") from None
