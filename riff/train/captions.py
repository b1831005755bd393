"""What the denoiser is told of each clip: its captions, cleaned as prompts are, with the trigger word and the tempo."""

import dataclasses
import functools
import hashlib
import random
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from riff.dataset import ClipSet
from riff.music import parse_bpm
from riff.prompt import prompt_length, split_known

# Share of the clips that must name an unknown word before it is taken for the trigger word.
MOSTLY = 0.8


@dataclasses.dataclass(frozen=True)
class Wording:
    """How captions become what the model is told.

    Attributes:
        closed: whether the model has a closed vocabulary; it is then told no unknown words, and always a tempo, as
            when it is asked.
        trigger: word that every text begins with where it is not in it.
        shuffles: further texts of each caption, its tags in another order.
    """

    closed: bool
    trigger: str | None
    shuffles: int

    def texts(self, clip: dict[str, Any], tokenizer: Any) -> list[str]:
        """The texts of one clip, without repeats; the same ones whenever it is asked."""
        texts: dict[str, None] = {}
        for caption in clip["captions"]:
            text = self._told(caption, clip.get("bpm"), tokenizer)
            texts[text] = None
            tags = text.split(", ")
            draw = random.Random(hashlib.sha256(text.encode()).digest())
            for _ in range(self.shuffles if len(tags) > 2 else 0):
                texts[", ".join(draw.sample(tags, len(tags)))] = None
        return list(texts)

    def _told(self, caption: str, bpm: float | None, tokenizer: Any) -> str:
        text = caption.strip()
        if self.trigger is not None and self.trigger not in words_of(text):
            text = f"{self.trigger}, {text}" if text else self.trigger
        if self.closed:
            text, _ = split_known(text, tokenizer)
            if bpm and parse_bpm(text) is None:
                text = f"{text}, {round(bpm)} bpm" if text else f"{round(bpm)} bpm"
        return text


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, without the signs around them."""
    return {word.strip(".,;:!?()[]\"'").lower() for word in text.split()}


def unknown_words(sets: list[ClipSet], tokenizer: Any) -> list[tuple[str, float]]:
    """Words that a closed vocabulary lacks, with the share of the clips that have them, the commonest first."""
    counts: Counter[str] = Counter()
    clips = [clip for each in sets for clip in each.clips]
    for clip in clips:
        found = {word.lower() for caption in clip["captions"] for word in split_known(caption, tokenizer)[1]}
        counts.update(found)
    return [(word, count / len(clips)) for word, count in counts.most_common()]


@dataclasses.dataclass(frozen=True)
class Texts:
    """All texts that a run tells the model, each once.

    Attributes:
        texts: the texts; the first is the empty one.
        input_ids: (n, tokens) int32.
    """

    texts: list[str]
    input_ids: Tensor

    def numbers(self, wanted: list[str]) -> Tensor:
        """Where each of ``wanted`` is, (len(wanted),) int64."""
        return torch.tensor([self._places[text] for text in wanted])

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}


def collect_texts(wanted: list[str], tokenizer: Any, text_encoder: Any) -> Texts:
    """The empty text and all of ``wanted``, tokenized as prompts are."""
    texts = list(dict.fromkeys(["", *wanted]))
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=prompt_length(tokenizer, text_encoder))
    return Texts(texts, torch.tensor(encoded["input_ids"], dtype=torch.int32))
