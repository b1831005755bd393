"""The page at /docs: OpenAPI as plain HTML, which needs no other file and no script."""

import html
import json
from typing import Any

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
h2{margin-top:2.5rem;font-size:1.1rem}code,pre{font-family:ui-monospace,monospace;font-size:.9rem}
pre{background:#f3f3f3;padding:.8rem;overflow:auto}table{border-collapse:collapse;width:100%}
td{border-top:1px solid #ddd;padding:.3rem .5rem;vertical-align:top}b{color:#05a}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#222}td{border-color:#333}b{color:#7bf}}"""
_EXAMPLES = """curl -X POST localhost:3013/v1/render -H 'content-type: application/json' \\
     -d '{"prompt": "lo-fi hip hop, 84 bpm", "bars": 4, "format": "mp3"}' -o lofi.mp3
curl -X POST localhost:3013/v1/remix -F audio=@song.wav -F 'prompt=church organ' -o remix.wav
ffplay 'http://localhost:3013/v1/stream?prompt=slow+jazz'"""


def page(openapi: dict[str, Any]) -> str:
    """The OpenAPI description ``openapi`` as one HTML document."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>riff serve</title><style>{_STYLE}</style><h1>riff {html.escape(openapi['info']['version'])}</h1>"
        f"<p>For machines: <a href=/openapi.json>openapi.json</a>.</p><pre>{html.escape(_EXAMPLES)}</pre>"
    ]
    for path, methods in openapi["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(told.get('summary', ''))}</p>{_fields(told)}")
    return "".join(parts)


def _fields(told: dict[str, Any]) -> str:
    content = told.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return ""
    schema = content["application/json"]["schema"]
    needed = schema.get("required", [])
    rows = [
        f"<tr><td><code>{html.escape(name)}</code>{' *' if name in needed else ''}<td>{html.escape(_kind(field))}"
        f"<td>{html.escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    ]
    takes = html.escape(", ".join(content))
    return f"<table>{''.join(rows)}</table><p>Takes {takes}; * is needed.</p>"


def _kind(field: dict[str, Any]) -> str:
    """One field's type, range and default in a few words."""
    kinds = [field, *field.get("anyOf", [])]
    names = [str(kind["type"]) for kind in kinds if kind.get("type") not in (None, "null")]
    names += [" | ".join(map(str, kind["enum"])) for kind in kinds if "enum" in kind]
    ranges = [f"{kind['minimum']:g} to {kind['maximum']:g}" for kind in kinds if "minimum" in kind]
    default = field.get("default")
    tail = [] if default is None else [f"default {json.dumps(default)}"]
    return ", ".join(dict.fromkeys([*names, *ranges, *tail]))
