"""A request's body or query becomes one of riff.tasks.requests: JSON, a form with a file, or a query string."""

import base64
import binascii
import dataclasses
import json
from typing import Annotated, Any, Literal

from annotated_types import Len
from starlette.datastructures import UploadFile
from starlette.requests import Request

from riff.apps.server.settings import ApiError, Settings, human
from riff.tasks.requests import Bpm, Prompt, QualityOption, Seed, request_from
from riff.utils.errors import RiffError
from riff.utils.schema import FieldError, Option, describe_fields, from_dict, parse_text, validate

Sound = Literal["wav", "flac", "ogg", "mp3"]
_PROMPTS = ("prompt", "negative_prompt", "prompts")
_MOST_FIELDS = 40
_OLD_FILES = {"picture": "image"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """Fields that are checked against their annotations; alone, a reply without choices."""

    def __post_init__(self) -> None:
        validate(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply(Checked):
    """What is sent back."""

    format: Annotated[Literal["wav", "flac", "ogg", "mp3", "png"], Option("of the result; png is its image")] = "wav"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundReply(Checked):
    """What is sent back, where it is a sound."""

    format: Annotated[Sound, Option("of the sound")] = "wav"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamReply(Checked):
    """How a stream is sent."""

    format: Annotated[Literal["mp3", "ogg"], Option("of the stream")] = "mp3"
    id: Annotated[str | None, Len(0, 64), Option("a name of 8 to 64 letters, digits, - or _ to steer it by")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeRequest(Checked):
    """A recording becomes a spectrogram image."""

    preset: Annotated[Literal["riff", "riffusion"], Option("kind of image")] = "riff"
    bpm: Annotated[Bpm | None, Option("cut columns on the beat at this tempo; of preset riff only")] = None
    stereo: Annotated[bool, Option("keep two channels")] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeRequest(Checked):
    """A spectrogram image becomes sound."""

    preset: Annotated[Literal["riff", "riffusion"] | None, Option("kind of image; default what it says itself")] = None
    bpm: Annotated[Bpm | None, Option("tempo; default what the image says")] = None
    quality: QualityOption = "default"
    loop: Annotated[bool, Option("let the end lead back into the start")] = False
    seed: Seed = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamChange(Checked):
    """Where an endless stream goes from now on."""

    prompt: Prompt | None = None
    bpm: Bpm | None = None


@dataclasses.dataclass(frozen=True)
class Call:
    """What a client sent: what to make, how to send it back, and the content of its file with its bytes in memory."""

    request: Any
    reply: Any = None
    upload: Any = None
    size: int = 0


async def read_call(request: Request, kind: type, reply: type = Reply, file_field: str | None = None) -> Call:
    """The body, JSON or a form with a file, as a checked request; raises 400, 413, 415 or 422.

    ``kind`` is the dataclass of the request, ``reply`` that of the fields about the answer.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        return make_call(await read_json(request), kind, reply, file_field)
    if content_type == "multipart/form-data" and file_field is not None:
        return await _read_form(request, kind, reply, file_field)
    allowed = "application/json" + ("" if file_field is None else " or multipart/form-data")
    raise ApiError(415, f"the content type is not supported; use {allowed}")


def make_call(fields: dict[str, Any], kind: type, reply: type = Reply, file_field: str | None = None) -> Call:
    """Fields as a checked request; raises 422, naming the first field that is wrong and what is allowed."""
    content = None
    if file_field is not None:
        fields = {_OLD_FILES.get(name, name): value for name, value in fields.items()}
        content = _from_base64(fields.pop(file_field, None), file_field)
    about_reply = {field.name for field in describe_fields(reply)}
    own = {name: value for name, value in fields.items() if name in about_reply}
    try:
        made = request_from(kind, {name: value for name, value in fields.items() if name not in own})
        return Call(made, from_dict(reply, own), content)
    except FieldError as error:  # without the value, which may be anyone's words
        raise ApiError(422, f"{error.field}: {error.allowed}") from None
    except RiffError as error:
        raise ApiError(422, human(str(error), [text for _, text in prompt_texts(fields)])) from None


def read_query(request: Request, kind: type, reply: type) -> Call:
    """The query's fields, each given once, as a checked request; raises 400 or 422."""
    return make_call(_parse_fields(request.query_params.multi_items(), kind, reply), kind, reply)


def _parse_fields(pairs: list[tuple[str, str]], kind: type, reply: type) -> dict[str, Any]:
    """Texts of a form or a query as the values that they stand for."""
    known = {field.name: field for field in (*describe_fields(kind), *describe_fields(reply))}
    fields: dict[str, Any] = {}
    for name, text in pairs:
        if name in fields:
            raise ApiError(400, "a field is sent twice; send each once")
        try:
            fields[name] = parse_text(text, known[name]) if name in known else text
        except FieldError as error:
            raise ApiError(422, f"{error.field}: {error.allowed}") from None
        except RiffError as error:
            raise ApiError(422, human(str(error), [text])) from None
    return fields


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object as the standard defines it: UTF-8, no NaN, no field twice, no endless depth."""
    content = await request.body()
    if not content.strip():
        raise ApiError(400, "the body is empty; send one JSON object")
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ApiError(400, "the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8 text; send one JSON object") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"the body is not valid JSON{where}; send one object") from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
        raise ApiError(422, f"the body is {kind}; send one JSON object")
    return value


def _no_constant(name: str) -> None:
    raise ApiError(400, f"the JSON contains {name}, which is not a JSON number; leave the field out or send null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ApiError(400, "the JSON contains a field twice; send each once")
    return fields


async def _read_form(request: Request, kind: type, reply: type, file_field: str) -> Call:
    pairs: list[tuple[str, str]] = []
    content: bytes | None = None
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if _OLD_FILES.get(name, name) != file_field:
                    raise ApiError(422, f"a file came in another field than {file_field!r}; send it there")
                content = await value.read()  # its name is never looked at
            elif name != file_field:
                pairs.append((name, value))
    if content is None:
        raise ApiError(422, f"the file {file_field!r} is missing")
    call = make_call(_parse_fields(pairs, kind, reply), kind, reply)
    return dataclasses.replace(call, upload=content)


def _from_base64(text: Any, name: str) -> bytes:
    if text is None:
        raise ApiError(422, f"{name!r} is missing; send it in base64, or as a file in multipart/form-data")
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise ApiError(422, f"{name} is not valid base64") from None


def check_limits(request: Any, settings: Settings) -> None:
    """Refuse what this server does not allow, although riff would: 422, naming the field and the limit."""
    if getattr(request, "stems", None) is not None:
        raise ApiError(422, "stems cannot be chosen on a server; use riff remix --stems")
    numbers = {"num_inference_steps": settings.max_steps, "bars": settings.max_bars, "duration": settings.max_seconds}
    for name, most in numbers.items():
        value = getattr(request, name, None)
        if value is not None and value > most:
            raise ApiError(422, f"{name} is {value:g}; this server allows up to {most:g}")
    whole = (getattr(request, "bars_per_step", None) or 0) * len(getattr(request, "prompts", ()))
    if whole > settings.max_bars:
        raise ApiError(422, f"the walk is {whole} bars long; this server allows up to {settings.max_bars}")
    for name, text in prompt_texts(request):
        if len(text) > settings.max_prompt:
            raise ApiError(422, f"{name} has {len(text)} characters; this server allows {settings.max_prompt}")


def prompt_texts(value: Any, name: str = "", depth: int = 6) -> list[tuple[str, str]]:
    """Every prompt of a request or of its fields, with the name of its field."""
    if isinstance(value, str):
        return [(name, value)] if name in _PROMPTS else []
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if depth and isinstance(value, dict):
        return [found for key, each in value.items() for found in prompt_texts(each, str(key), depth - 1)]
    if depth and isinstance(value, (list, tuple)):
        return [found for each in value for found in prompt_texts(each, name, depth - 1)]
    return []
