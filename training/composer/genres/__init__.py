"""The thirty genres, one module per family or two, and the world kept out of riff-mini's training."""

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
    world,
)
from training.composer.genres.model import Genre, Layer
from training.composer.genres.reserved import RESERVED

_FAMILIES = (jazz, rock, electronic, synth, hiphop, classical, folk, world, soul, caribbean, calm)
GENRES: dict[str, Genre] = {genre.id: genre for module in _FAMILIES for genre in module.GENRES}

__all__ = ["GENRES", "RESERVED", "Genre", "Layer"]
