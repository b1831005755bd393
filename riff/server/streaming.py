"""Endless audio."""

from typing import Any


def add_stream_routes(app: Any, queue: Any, settings: Any, metrics: Any) -> None:
    return None
