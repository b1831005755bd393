"""riff's composer: multi-track scores with known truth, deterministic by seed."""

from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.genres import FIRST_GENRES, GENRES
from training.composer.genres.model import Genre
from training.composer.genres.reserved import RESERVED
from training.composer.score import Note, Part, Score, Truth

__all__ = ["FIRST_GENRES", "GENRES", "HELD_OUT_SEEDS", "RESERVED", "Genre", "Note", "Part", "Score", "Truth", "compose"]
