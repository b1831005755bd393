"""The composer's tables: voices, drum machines, mixes, instruments and genres as TOML, read once."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=16)
def table(name: str) -> dict[str, Any]:
    """Read one table of this folder by its name without the ending."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text("utf-8"))
