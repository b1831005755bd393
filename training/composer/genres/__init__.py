"""The thirty genres, one module per family or two."""

from . import calm, caribbean, classical, electronic, folk, hiphop, jazz, rock, soul, synth, world
from .model import Genre, Layer

_FAMILIES = (jazz, rock, electronic, synth, hiphop, classical, folk, world, soul, caribbean, calm)
GENRES: dict[str, Genre] = {genre.id: genre for module in _FAMILIES for genre in module.GENRES}

__all__ = ["GENRES", "Genre", "Layer"]
