"""What a prompt means to a model: the phrases that condition it, and the tempo, metre and key of the music."""

import bisect
import dataclasses
import re
import warnings
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.music.theory import parse_bpm, parse_key, parse_time_signature, without_numbers
from riff.prompt.encoder import CHUNKS, dropped_words, embed_prompt, prompt_length
from riff.prompt.prior import MusicPrior
from riff.prompt.syntax import WeightedText, append_text, clause_weights, parse_prompt, parse_weights, strip_weights
from riff.prompt.vocabulary import Vocabulary, read_nearest_words
from riff.utils.validation import BPM_RANGE, check_number

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

DEFAULT_BPM = 120.0
# Different weights below 1 in a prompt; every one of them costs a prediction more.
MOST_LEVELS = 3
# Words that alone say nothing of the music.
_FUNCTION_WORDS = frozenset(
    ["a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "some", "the", "to", "with"]
)


@dataclasses.dataclass(frozen=True)
class ParsedPrompt:
    """What a prompt comes to.

    Attributes:
        prompt: as the user wrote it.
        phrases: what conditions the model, with the weights of the words: without unknown words, with tempo and key.
            One for each of the prompts that AND joins; riff's own models get it once more without words below 1.
        shares: how much each of them counts; those above 0 are 1 in sum, those below steer away.
        ignored_words: words that the model does not know.
        dropped_words: words past the length that the model reads.
        bpm: tempo in beats per minute.
        beats_per_bar: 3 or 4.
        noise_key: changes the noise of a prompt of which the model knows no word; 0 for any other.
    """

    prompt: str
    phrases: tuple[WeightedText, ...]
    shares: tuple[float, ...]
    ignored_words: tuple[str, ...]
    dropped_words: tuple[str, ...]
    bpm: float
    beats_per_bar: int
    noise_key: int = 0

    @property
    def text(self) -> str:
        """What conditions the model, without weights."""
        return " AND ".join(strip_weights(phrase) for phrase in self.phrases)

    def noise_seed(self, seed: int) -> int:
        """The seed of the first noise: ``seed``, except that unknown prompts must not all give the same clip."""
        return seed ^ self.noise_key


class PromptInterpreter:
    """Reads prompts for one model.

    Attributes:
        components: the pipeline that holds its tokenizer and its text encoder.
        prior: the music prior of riff's own models, whose vocabulary is closed; else None.
        vocabulary: what it knows of words; None of a model that knows any.
    """

    def __init__(
        self,
        components: "StableDiffusionPipeline",
        prior: MusicPrior | None,
        nearest_words: dict[str, str] | None = None,
    ) -> None:
        self.components = components
        self.prior = prior
        self.vocabulary: Vocabulary | None = None
        if prior is not None:
            nearest = read_nearest_words() if nearest_words is None else nearest_words
            self.vocabulary = Vocabulary(components.tokenizer, nearest)

    def interpret(
        self,
        prompt: str,
        *,
        bpm: float | None = None,
        key: str | None = None,
        time_signature: str | None = None,
        seed: int | None = None,
    ) -> ParsedPrompt:
        """What conditions the model, and how fast the music is.

        Prompts that AND joins are one piece of music: it has one tempo, metre and key, which all of them get.

        Args:
            prompt: as the user wrote it.
            bpm: tempo; None takes the prompt's, else the prior's, else 120.
            key: canonical key; None leaves it open, or to the prior.
            time_signature: "3/4" or "4/4"; None takes the prompt's, else the prior's.
            seed: chooses tempo and key among what suits the prompt, if the prior knows how far they spread; None takes
                the most likely.

        Raises:
            RiffError: the prompt states a tempo out of range, or its brackets are wrong.
        """
        clauses = parse_prompt(prompt)
        metre = "" if time_signature is None or time_signature in prompt else f", in {time_signature}"
        whole = [append_text(clause.pieces, metre) for clause in clauses]
        stated = [strip_weights(phrase) for phrase, clause in zip(whole, clauses, strict=True) if clause.weight > 0]
        phrases, shares = whole, clause_weights(clauses)
        if self.prior is not None:
            phrases, shares = _without_light_words(whole, shares)
        known = [self.known(phrase)[0] for phrase in phrases]
        implied, beats_per_bar = None, parse_time_signature(", ".join(stated))
        if self.prior is not None:
            embeds = self._mean_embedding(known, shares)
            implied = self.prior.bpm(embeds, seed=seed)
            if not any("4/4" in text for text in stated):
                beats_per_bar = min(beats_per_bar, self.prior.beats_per_bar(embeds))
            if key is None and parse_key(", ".join(stated)) is None:
                key = self.prior.key(embeds, seed=seed)
        tempo = choose_tempo(bpm, _stated_bpm(stated), implied)
        if len(clauses) > 1 and key is None:
            key = parse_key(", ".join(stated))
        conditions, dropped = self._complete(phrases, known, tempo, key)
        if len(phrases) > len(clauses):  # copies of one phrase lose the same words
            dropped = list(dict.fromkeys(dropped))
        united = _unite(conditions, shares)
        ignored, silent = self._report_unknown(whole)
        is_unknown = all(each for each, share in zip(silent, clause_weights(clauses), strict=True) if share > 0)
        return ParsedPrompt(
            prompt,
            tuple(phrase for phrase, _ in united),
            tuple(share for _, share in united),
            tuple(ignored),
            tuple(dropped),
            tempo,
            beats_per_bar,
            zlib.crc32(" ".join(prompt.lower().split()).encode()) if is_unknown else 0,
        )

    def known(self, phrase: WeightedText) -> tuple[WeightedText, list[str], dict[str, str]]:
        """What the model knows of a phrase, the words that it does not, and what it takes others for."""
        return (phrase, [], {}) if self.vocabulary is None else self.vocabulary.split_pieces(phrase)

    def negative(self, text: str) -> WeightedText:
        """What the model knows of a negative prompt.

        Raises:
            RiffError: its brackets are wrong.
        """
        return self.known(parse_weights(text, "negative_prompt"))[0]

    def with_absence(self, phrases: Sequence[WeightedText], negative: str) -> list[WeightedText]:
        """Phrases that also say what is absent, for a model whose captions did: "jazz" without drums, "jazz, no drums".

        Each known part of the negative prompt between commas is added if there is room for it. Parts that weigh less
        than 1 are not: they take away a little, and a word takes away all.
        """
        word = "" if self.prior is None else self.prior.absence_word
        if not word:
            return list(phrases)
        heavy = tuple((text, 1.0) for text, weight in self.negative(negative) if weight >= 1.0)
        added = list(phrases)
        for part in re.split(r"[,;]|\band\b|\bor\b", strip_weights(heavy)):
            if part.strip():
                longer = [append_text(phrase, f", {word} {part.strip()}") for phrase in added]
                if not any(self._dropped(strip_weights(phrase)) for phrase in longer):
                    added = longer
        return added

    def _complete(
        self, phrases: list[WeightedText], known: list[WeightedText], tempo: float, key: str | None
    ) -> tuple[list[WeightedText], list[str]]:
        """What conditions the model, with tempo and key, and the words that have no room."""
        if self.prior is None:
            lost = [self._dropped(strip_weights(each), CHUNKS) for each in known]
            return known, [word for words in lost for word in words]
        completed: list[WeightedText] = []
        dropped: list[str] = []
        for phrase, left in zip(phrases, known, strict=True):
            fitted, words = self._fit(left, _open_facts(strip_weights(phrase), tempo, key))
            completed.append(fitted)
            dropped += words
        return completed, dropped

    def _fit(self, phrase: WeightedText, facts: str) -> tuple[WeightedText, list[str]]:
        """``phrase`` followed by ``facts``, and the words at its end that give way to those."""
        words = [(word, weight) for piece, weight in phrase for word in re.findall(r"\s*\S+|\s+", piece)]

        def first(count: int) -> WeightedText:
            kept = words[:count]
            while kept and kept[-1][0].isspace():
                kept.pop()
            return append_text(_merge(kept), f", {facts}" if kept and facts else facts)

        def too_long(count: int) -> bool:
            return bool(self._dropped(strip_weights(first(count))))

        count = len(words)
        if too_long(count):
            count = bisect.bisect_left(range(1, count + 1), True, key=too_long)
        lost = (word.strip(",.;:!?") for word in strip_weights(tuple(words[count:])).split())
        return first(count), [word for word in lost if word]

    def _dropped(self, text: str, chunks: int = 1) -> list[str]:
        tokenizer, text_encoder = self.components.tokenizer, self.components.text_encoder
        return dropped_words(text, tokenizer, length=prompt_length(tokenizer, text_encoder), chunks=chunks)

    def _report_unknown(self, phrases: list[WeightedText]) -> tuple[list[str], list[bool]]:
        """The words that are ignored, and for each phrase whether nothing is known of it; warn of what is replaced."""
        ignored: list[str] = []
        replaced: dict[str, str] = {}
        silent: list[bool] = []
        for phrase in phrases:
            left, unknown, near = self.known(phrase)
            ignored += unknown
            replaced |= near
            silent.append(not left or (bool(unknown) and _says_nothing(strip_weights(left))))
            if silent[-1]:
                warnings.warn(
                    f"the model knows no word of {strip_weights(phrase)[:80]!r}; its letters choose the noise",
                    stacklevel=3,
                )
        if replaced:
            taken = ", ".join(f"{word!r} was taken as {near!r}" for word, near in list(replaced.items())[:20])
            warnings.warn(f"{taken}: the nearest that the model knows", stacklevel=3)
        return ignored, silent

    def _mean_embedding(self, phrases: list[WeightedText], shares: Sequence[float]) -> Tensor:
        """(1, L, D) of what is played, without the weights of the words, which say nothing of the tempo."""
        tokenizer, text_encoder = self.components.tokenizer, self.components.text_encoder
        embeds = [
            share * embed_prompt([strip_weights(phrase)], tokenizer, text_encoder)
            for phrase, share in zip(phrases, shares, strict=True)
            if share > 0
        ]
        return torch.cat(embeds).sum(0, keepdim=True) if len(embeds) > 1 else embeds[0]


def choose_tempo(bpm: float | None, stated: float | None, implied: float | None) -> float:
    """Beats per minute: the argument, else the number in the prompt, else the model's prior, else 120."""
    if bpm is not None and stated is not None and abs(bpm - stated) > 0.5:
        warnings.warn(f"the prompt says {stated:g} bpm and the argument {bpm:g}; {bpm:g} is used", stacklevel=2)
    if bpm is None and stated is not None:
        check_number(stated, "the prompt's bpm", *BPM_RANGE)
    return next((float(tempo) for tempo in (bpm, stated, implied) if tempo is not None), DEFAULT_BPM)


def _stated_bpm(stated: list[str]) -> float | None:
    """The tempo that the first of the prompts says."""
    found = [bpm for bpm in (parse_bpm(text) for text in stated) if bpm is not None]
    if len(set(found)) > 1:
        tempi = " and ".join(f"{bpm:g}" for bpm in found)
        warnings.warn(f"the prompts that AND joins say {tempi} bpm; {found[0]:g} is used", stacklevel=2)
    return found[0] if found else None


def _open_facts(text: str, tempo: float, key: str | None) -> str:
    """The tempo and the key that a prompt leaves open.

    The tempo is always stated, so that the image fits the grid and a clip is made again from its prompt and its tempo.
    """
    facts = []
    if parse_bpm(text) is None:
        facts.append(f"{round(tempo)} bpm")
    if key is not None and parse_key(text) is None:
        facts.append(f"in {key}")
    return ", ".join(facts)


def _says_nothing(text: str) -> bool:
    """Whether no word is left beside tempo, key, metre and function words."""
    return not set(re.findall(r"[^\W\d_]+", without_numbers(text).lower())) - _FUNCTION_WORDS


def _without_light_words(
    phrases: list[WeightedText], shares: tuple[float, ...]
) -> tuple[list[WeightedText], tuple[float, ...]]:
    """Each phrase in several copies that together weigh its light words: one with them, one without.

    In a small model what a word adds to the other words' embeddings stays when its own embedding shrinks: measured on
    riff-mini, a weight of 0 takes 5 % of what a word does away. So words below 1 are left out of a copy that has the
    rest of the weight, and the predictions are mixed: a word of weight w is in copies whose shares sum to w.
    """
    copies: list[WeightedText] = []
    parts: list[float] = []
    for phrase, share in zip(phrases, shares, strict=True):
        light = {weight for _, weight in phrase if weight < 1.0}
        if len(light) > MOST_LEVELS:
            phrase = tuple((text, weight if weight >= 1 else round(weight * 4) / 4) for text, weight in phrase)
            light = {weight for _, weight in phrase if weight < 1.0}
        below = 0.0
        for level in sorted({*light, 1.0}):
            if level > 0.0:
                copies.append(_merge([(text, max(weight, 1.0)) for text, weight in phrase if weight >= level]))
                parts.append(share * (level - below) if light else share)
            below = level
    return copies, tuple(parts)


def _unite(phrases: list[WeightedText], shares: Sequence[float]) -> list[tuple[WeightedText, float]]:
    """Equal phrases once, with the shares of all; those steered away from stay apart."""
    united: dict[tuple[WeightedText, bool], float] = {}
    for phrase, share in zip(phrases, shares, strict=True):
        united[phrase, share > 0] = united.get((phrase, share > 0), 0.0) + share
    return [(phrase, share) for (phrase, _), share in united.items()]


def _merge(words: list[tuple[str, float]]) -> WeightedText:
    """Neighbours of one weight joined."""
    merged: list[tuple[str, float]] = []
    for word, weight in words:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + word, weight)
        else:
            merged.append((word, weight))
    return tuple(merged)
