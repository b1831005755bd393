"""riff's composer: multi-track scores with known truth, deterministic by seed."""

from .arrange import HELD_OUT_SEEDS, compose
from .genres import GENRES, RESERVED, Genre
from .score import Note, Part, Score, Truth

__all__ = ["GENRES", "HELD_OUT_SEEDS", "RESERVED", "Genre", "Note", "Part", "Score", "Truth", "compose"]
