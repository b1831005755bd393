"""What the denoiser is conditioned on for each clip: its captions, cleaned as prompts are, with trigger word and tempo."""

import dataclasses
import functools
import hashlib
import random
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from riff.music.theory import parse_bpm
from riff.prompt.encoder import prompt_length
from riff.prompt.vocabulary import split_known
from riff.train.data.dataset import ClipSet


@dataclasses.dataclass(frozen=True)
class Texts:
    """All texts that condition the model in a run, each once.

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


@dataclasses.dataclass(frozen=True)
class Wording:
    """How captions become the texts that condition the model.

    Attributes:
        closed: whether the model has a closed vocabulary; texts then have no unknown words, and always a tempo, as
            prompts do.
        trigger: word that every text begins with where it is not in it.
        shuffles: further texts of each caption, its tags in another order.
    """

    closed: bool
    trigger: str | None
    shuffles: int

    def texts(self, clip: dict[str, Any], tokenizer: Any) -> list[str]:
        """The texts of one clip, without repeats; always the same ones."""
        texts: dict[str, None] = {}
        for caption in clip["captions"]:
            text = self._conditioned(caption, clip.get("bpm"), tokenizer)
            texts[text] = None
            tags = text.split(", ")
            order = random.Random(hashlib.sha256(text.encode()).digest())
            for _ in range(self.shuffles if len(tags) > 2 else 0):
                texts[", ".join(order.sample(tags, len(tags)))] = None
        return list(texts)

    def _conditioned(self, caption: str, bpm: float | None, tokenizer: Any) -> str:
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


def collect_texts(wanted: list[str], tokenizer: Any, text_encoder: Any) -> Texts:
    """The empty text and all of ``wanted``, tokenized as prompts are."""
    texts = list(dict.fromkeys(["", *wanted]))
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=prompt_length(tokenizer, text_encoder))
    return Texts(texts, torch.tensor(encoded["input_ids"], dtype=torch.int32))
