"""Tags for a clip from CLAP, which knows sounds and words in one space, where its weights are at hand."""

import functools
from pathlib import Path

import numpy as np
from torch import Tensor

from riff.evaluate.embeddings import Clap
from riff.evaluate.sounds import Sound

# What may be said: of each row the likeliest word, if it is likely enough.
KINDS = {
    "genre": (
        "ambient", "blues", "bossa nova", "classical", "country", "disco", "drum and bass", "electronic", "flamenco",
        "folk", "funk", "gospel", "hip hop", "house", "jazz", "latin", "metal", "pop", "punk", "ragtime", "reggae",
        "rock", "soul", "swing", "synthwave", "techno", "trance", "waltz",
    ),
    "instrument": (
        "acoustic guitar", "accordion", "banjo", "bells", "brass", "cello", "choir", "drums", "electric guitar",
        "electric piano", "flute", "harp", "harpsichord", "marimba", "organ", "piano", "saxophone", "singing",
        "strings", "synthesizer", "trumpet", "vibraphone", "violin",
    ),
    "mood": ("aggressive", "calm", "dark", "dreamy", "energetic", "epic", "happy", "mysterious", "romantic", "sad"),
}  # fmt: skip
SENTENCES = {"genre": "{} music", "instrument": "the sound of a {}", "mood": "{} music"}
SCALE = 100.0  # what CLAP multiplies cosines by before its softmax
LEAST = 0.5  # share of the softmax below which nothing is said


@functools.lru_cache(maxsize=1)
def _loaded(source: str) -> tuple[Clap, dict[str, np.ndarray]]:
    clap = Clap.load(source)
    return clap, {kind: clap.read([SENTENCES[kind].format(word) for word in words]) for kind, words in KINDS.items()}


def check_clap(source: str) -> None:
    """Load CLAP once, before anything is cut.

    Raises:
        ModelError: it is not there.
    """
    _loaded(source)


def clap_tags(waveform: Tensor, sample_rate: int, source: str) -> str:
    """Comma tags of a clip, empty where nothing is likely.

    Args:
        waveform: (C, T).
        sample_rate: samples per second, in Hz.
        source: a folder with a CLAP, or its name in the local cache.
    """
    clap, texts = _loaded(source)
    embedding = clap.hear(Sound(Path("clip"), waveform, sample_rate))
    said = []
    for kind, words in KINDS.items():
        likeness = SCALE * (texts[kind] @ embedding)
        weights = np.exp(likeness - likeness.max())
        if weights.max() / weights.sum() >= LEAST:
            said.append(words[int(weights.argmax())])
    return ", ".join(said)
