"""A request's body or query becomes one of riff.tasks.requests: JSON, a form with a file, or a query string."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import BaseModel, Field, TypeAdapter
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riff.apps.server.settings import ApiError, Settings, human
from riff.tasks.requests import Bpm, Prompt, QualityOption, RenderRequest, Seed, WalkRequest, request_from
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


# How OpenAPI describes the routes: every field with its help and range, every response code with its meaning.

_ERRORS = {
    400: "The body or the query is damaged.",
    401: "The token is missing or wrong.",
    403: "Another site's page made the request.",
    404: "There is no such job or stream.",
    408: "The body came too slowly.",
    409: "The job is not done, or the id of the stream is taken.",
    413: "The body is too large.",
    415: "The content type is not supported.",
    422: "A field is wrong; the message names it and what is allowed.",
    429: "Too many requests are waiting; Retry-After says when to come back.",
    500: "The model or the server failed.",
    503: "The model is loading, the server is going down, or the machine is short of memory or disk.",
    504: "The request took longer than the server allows.",
}
_EVERYWHERE = (401, 403, 500, 503)
_BODY = (400, 408, 413, 415, 422, 429, 504)
_EXAMPLES: dict[type, dict[str, Any]] = {
    RenderRequest: {"prompt": "lo-fi hip hop, 84 bpm", "bars": 4, "format": "mp3"},
    WalkRequest: {"prompts": ["slow jazz", "deep house"], "bars_per_step": 8, "format": "mp3"},
}
_UPLOAD = "the file in base64; in multipart/form-data, a file of this name"


class ErrorReply(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="one line: what is wrong and what is allowed")
    id: str = Field(description="of the request, as in x-request-id and in the log")


class JobReply(BaseModel):
    """State and progress of a job."""

    id: str = Field(description="of the job")
    kind: str = Field(description="render, timeline, walk, remix, extend, inpaint, encode, decode or inference")
    state: str = Field(description="queued, running, cancelling, done, failed or cancelled")
    progress: float = Field(description="from 0 to 1")
    steps_done: int = Field(description="denoising steps so far")
    steps_total: int | None = Field(None, description="denoising steps in all, once known")
    place_in_queue: int | None = Field(None, description="how many jobs come before it")
    eta_s: float | None = Field(None, description="seconds that are left, about")
    result: str | None = Field(None, description="where the file is fetched, once done")
    facts: dict[str, Any] | None = Field(None, description="seed, tempo and length of the result")
    error: str | None = Field(None, description="why it has no result")


def documented(
    summary: str, *, media: Sequence[str] = ("application/json",), errors: Sequence[int] = (), reply: Any = None
) -> dict[str, Any]:
    """Arguments of a route: its summary and its responses.

    Args:
        summary: one line.
        media: types of the content of a success.
        errors: status codes beside those that every route has.
        reply: model of a success in JSON.
    """
    content = {kind: {} if kind == "application/json" else {"schema": {"format": "binary"}} for kind in media}
    success = {"description": "Success"} | ({"content": content} if reply is None else {"model": reply})
    refusals: dict[int | str, Any] = {code: _ERRORS[code] for code in sorted({*_EVERYWHERE, *errors})}
    refusals["default"] = "Any other error"
    return {
        "summary": summary,
        "response_model": None,
        "response_class": JSONResponse if "application/json" in media else Response,
        "responses": {200: success}
        | {code: {"model": ErrorReply, "description": text} for code, text in refusals.items()},
    }


def documented_call(
    summary: str, kinds: Sequence[type], reply: type, media: Sequence[str] = (), *, file_field: str | None = None
) -> dict[str, Any]:
    """Arguments of a route that takes a body, and answers with a file or, with ``?wait=false``, with a job.

    Args:
        summary: one line.
        kinds: dataclasses of the request, of which the body is one.
        reply: dataclass of the fields that are about the answer.
        media: types of the file; empty where the answer is JSON, at once.
        file_field: name of the uploaded file.
    """
    route = documented(summary, media=media or ["application/json"], errors=_BODY if media else (404, *_BODY))
    schemas = [json_schema(kind, reply, file_field=file_field) for kind in kinds]
    content = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}
    if kinds[0] in _EXAMPLES:
        content["application/json"]["example"] = _EXAMPLES[kinds[0]]
    if file_field is not None:
        content["multipart/form-data"] = {"schema": json_schema(kinds[0], reply, file_field=file_field, form=True)}
    route["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    if media:
        route["responses"][202] = {"model": JobReply, "description": "With wait=false: the job, at once"}
        wait = {"name": "wait", "in": "query", "schema": {"type": "boolean", "default": True},
                "description": "false answers at once with a job, whose result is fetched later"}  # fmt: skip
        route["openapi_extra"]["parameters"] = [wait]
    return route


def documented_query(summary: str, kind: type, reply: type, media: Sequence[str]) -> dict[str, Any]:
    """Arguments of a route whose fields come in its query."""
    route = documented(summary, media=media, errors=(400, 409, 422, 429, 504))
    schema = json_schema(kind, reply)
    parameters = [
        {"name": name, "in": "query", "required": name in schema["required"],
         "description": field.pop("description"), "schema": field}
        for name, field in schema["properties"].items()
    ]  # fmt: skip
    route["openapi_extra"] = {"parameters": parameters}
    return route


def json_schema(kind: type, reply: type, *, file_field: str | None = None, form: bool = False) -> dict[str, Any]:
    """The schema of a body, with the help of every field as its description."""
    schema = TypeAdapter(kind).json_schema()
    for each in (kind, reply):
        properties = TypeAdapter(each).json_schema().get("properties", {})
        for field in describe_fields(each):
            schema["properties"][field.name] = {**properties[field.name], "description": field.option.help}
    schema["properties"].pop("stems", None)
    if file_field is not None:
        encoding = {"format": "binary"} if form else {"contentEncoding": "base64"}
        schema["properties"][file_field] = {"type": "string", "description": _UPLOAD, **encoding}
        schema["required"] = [*schema.get("required", []), file_field]
    return schema
