"""The genres of riff-mini 2 that tables/genres.toml describes in a few lines each."""

from __future__ import annotations

import re
from typing import Any

from training.composer.genres.model import Genre, Layer
from training.composer.tables import table


def _patterns(text: str) -> tuple[str, ...]:
    """Names of pattern pools and patterns themselves, as patterns."""
    pools = table("genres")["patterns"]
    found: list[str] = []
    for name in re.split(r"[;,]", text):
        found += pools.get(name.strip(), [name.strip()])
    return tuple(dict.fromkeys(found))


def _layer(text: str) -> Layer:
    head, patterns, *rest = (part.strip() for part in text.split(" / "))
    role, instruments = head.split(":")
    fields: dict[str, Any] = dict(table("genres")["roles"][role.strip("!")])
    for word in rest[0].split() if rest else ():
        name, value = word.split("=")
        fields[name] = int(value) if name in ("centre", "voices", "velocity") else float(value)
    if role.endswith("!"):
        fields |= {"key": True, "chance": 1.0}
    names = tuple(name.strip() for name in instruments.split(","))
    return Layer(role.strip("!"), names, _patterns(patterns), **fields)


def _grooves(entry: str | list[dict[str, str]]) -> tuple[dict[str, str], ...]:
    if not isinstance(entry, str):
        return tuple(entry)
    pools = table("genres")["grooves"]
    return tuple(groove for name in entry.split(",") if name.strip() for groove in pools[name.strip()])


def _genre(name: str, row: dict[str, Any]) -> Genre:
    chords = table("genres")["chords"][row["chords"]]
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row["settings"].items()
    }
    return Genre(
        id=name,
        family=row["family"],
        bpm=tuple(row["bpm"]),
        layers=tuple(_layer(text) for text in row["layers"]),
        major=tuple(chords["major"]),
        minor=tuple(chords["minor"]),
        moods=tuple(row["moods"].split()),
        grooves=_grooves(row.get("grooves", "")),
        first=False,
        **settings,
    )


GENRES = tuple(_genre(name, row) for name, row in table("genres")["genre"].items())
