"""The genres: thirty that riff-mini 1 learnt, those that riff-mini 2 adds in a table, and one kept out of both."""

from training.composer.genres import (
    calm,
    caribbean,
    classical,
    electronic,
    folk,
    hiphop,
    jazz,
    rock,
    soul,
    synth,
    tabled,
    world,
)
from training.composer.genres.model import Genre, Layer
from training.composer.genres.reserved import RESERVED

_FAMILIES = (jazz, rock, electronic, synth, hiphop, classical, folk, world, soul, caribbean, calm, tabled)
GENRES: dict[str, Genre] = {genre.id: genre for module in _FAMILIES for genre in module.GENRES}
FIRST_GENRES = tuple(name for name, genre in GENRES.items() if genre.first)

__all__ = ["FIRST_GENRES", "GENRES", "RESERVED", "Genre", "Layer"]
