"""Reading a request's body: strict JSON, or a form with one file."""

import base64
import binascii
import json
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.requests import Request

from riff.server.faults import Refusal
from riff.server.schemas import validate

_MOST_FIELDS = 40


def parse_json(content: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no NaN, no field twice, no endless depth.

    Raises:
        Refusal: 400, it is none.
    """
    if not content.strip():
        raise Refusal(400, "the body is empty; send one JSON object")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise Refusal(400, "the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise Refusal(400, "the body is no UTF-8 text; send one JSON object") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(400, f"the body is no valid JSON{where}; send one object") from None


def _no_constant(name: str) -> None:
    raise Refusal(400, f"the JSON holds {name}, which is no number there; leave the field out or send null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Refusal(400, "the JSON holds a field twice; send each once")
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
            raise Refusal(422, f"{file_field!r} is missing; send it in base64, or as a file in multipart/form-data")
        setattr(asked, file_field, None)
        return asked, _from_base64(text, file_field)
    if kind == "multipart/form-data" and file_field is not None:
        return await _read_form(request, schema, file_field)
    allowed = "application/json" + ("" if file_field is None else " or multipart/form-data")
    raise Refusal(415, f"the content type is not one that this takes; use {allowed}")


async def _read_form(request: Request, schema: type[BaseModel], file_field: str) -> tuple[Any, bytes]:
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        fields: dict[str, Any] = {}
        content: bytes | None = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != file_field:
                    raise Refusal(422, f"a file came in another field than {file_field!r}; send it there")
                content = await value.read()  # its name is never looked at
            elif name in fields:
                raise Refusal(400, "the form holds a field twice; send each once")
            else:
                fields[name] = _form_value(schema, name, value)
    if content is None:
        raise Refusal(422, f"the file {file_field!r} is missing")
    fields.pop(file_field, None)
    return validate(schema, fields), content


def _form_value(schema: type[BaseModel], name: str, text: str) -> Any:
    """A form's text as the field's kind: what is text there stays text, numbers and lists are read as JSON."""
    field = schema.model_fields.get(name)
    if field is not None and "str" in str(field.annotation) and "list" not in str(field.annotation):
        return text
    try:
        return parse_json(text.encode("utf-8", "replace"))
    except Refusal:
        return text


def _from_base64(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, f"{name} is no valid base64") from None
