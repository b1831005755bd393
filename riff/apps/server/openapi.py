"""How OpenAPI describes the routes: every field with its help and range, every response code with its meaning."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter
from starlette.responses import JSONResponse, Response

from riff.tasks.requests import RenderRequest, WalkRequest
from riff.utils.schema import describe_fields

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
