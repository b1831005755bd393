"""Reading a prompt: what the model is told of it, and how fast it is played."""

import bisect
import dataclasses
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.music.theory import parse_bpm, parse_key, parse_time_signature
from riff.prompt.encoder import CHUNKS, dropped_words, embed_prompt, prompt_length, split_known_pieces
from riff.prompt.prior import MusicPrior
from riff.prompt.syntax import WeightedText, append_text, clause_weights, parse_prompt, strip_weights
from riff.utils.validation import BPM_RANGE, check_number

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

DEFAULT_BPM = 120.0
# Different weights below 1 in a prompt; every one of them costs a prediction more.
MOST_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class ParsedPrompt:
    """What a prompt comes to.

    Attributes:
        prompt: as the user wrote it.
        phrases: what the model is told, with the weights of the words: without unknown words, with tempo and key. One
            for each of the prompts that AND joins; riff's own models are told it once more without words below 1.
        shares: how much each of them counts; those above 0 are 1 in sum, those below steer away.
        ignored_words: words the model was not taught.
        dropped_words: words past the length that the model reads.
        bpm: tempo in beats per minute.
        beats_per_bar: 3 or 4.
    """

    prompt: str
    phrases: tuple[WeightedText, ...]
    shares: tuple[float, ...]
    ignored_words: tuple[str, ...]
    dropped_words: tuple[str, ...]
    bpm: float
    beats_per_bar: int

    @property
    def text(self) -> str:
        """What the model is told, without weights."""
        return " AND ".join(strip_weights(phrase) for phrase in self.phrases)


def interpret_prompt(
    prompt: str,
    *,
    bpm: float | None,
    keyscale: str | None,
    parts: "StableDiffusionPipeline",
    prior: MusicPrior | None,
    timesignature: str | None = None,
) -> ParsedPrompt:
    """What the model is told of a prompt, and how fast it is played.

    Prompts that AND joins are one piece of music: it has one tempo, metre and key, which all of them are told.

    Args:
        prompt: as the user wrote it.
        bpm: tempo asked for; None takes the prompt's, else the prior's, else 120.
        keyscale: key asked for, canonical, or None.
        parts: the model.
        prior: the music prior of riff's own models, whose vocabulary is closed; else None.
        timesignature: metre asked for, "3/4" or "4/4", or None.

    Raises:
        RiffError: the prompt states a tempo out of range, or its brackets are wrong.
    """
    clauses = parse_prompt(prompt)
    metre = "" if timesignature is None or timesignature in prompt else f", in {timesignature}"
    whole = [append_text(clause.pieces, metre) for clause in clauses]
    stated = [strip_weights(phrase) for phrase, clause in zip(whole, clauses, strict=True) if clause.weight > 0]
    phrases, counts = (
        _without_light_words(whole, clause_weights(clauses)) if prior is not None else (whole, clause_weights(clauses))
    )
    known = [known_phrase(phrase, parts, prior)[0] for phrase in phrases]
    implied, beats_per_bar = None, parse_time_signature(", ".join(stated))
    if prior is not None:
        embeds = _mean_embedding(known, counts, parts)
        implied = prior.bpm(embeds)
        if not any("4/4" in text for text in stated):
            beats_per_bar = min(beats_per_bar, prior.beats_per_bar(embeds))
    tempo = choose_tempo(bpm, _written_bpm(stated), implied)
    if len(clauses) > 1 and keyscale is None:
        keyscale = parse_key(", ".join(stated))
    told, dropped = _complete(phrases, known, tempo, keyscale, parts, prior)
    if len(phrases) > len(clauses):  # copies of one phrase lose the same words
        dropped = list(dict.fromkeys(dropped))
    united = _unite(told, counts)
    return ParsedPrompt(
        prompt,
        tuple(phrase for phrase, _ in united),
        tuple(count for _, count in united),
        _ignored(whole, parts, prior),
        tuple(dropped),
        tempo,
        beats_per_bar,
    )


def _complete(
    phrases: list[WeightedText],
    known: list[WeightedText],
    tempo: float,
    keyscale: str | None,
    parts: "StableDiffusionPipeline",
    prior: MusicPrior | None,
) -> tuple[list[WeightedText], list[str]]:
    """What the model is told of each phrase, with tempo and key, and the words that have no room."""
    if prior is None:
        length = prompt_length(parts.tokenizer, parts.text_encoder)
        lost = [dropped_words(strip_weights(phrase), parts.tokenizer, length=length, chunks=CHUNKS) for phrase in known]
        return known, [word for words in lost for word in words]
    told: list[WeightedText] = []
    dropped: list[str] = []
    for phrase, left in zip(phrases, known, strict=True):
        fitted, words = _fit(left, _tell(strip_weights(phrase), tempo, keyscale), parts)
        told.append(fitted)
        dropped += words
    return told, dropped


def _unite(phrases: list[WeightedText], counts: Sequence[float]) -> list[tuple[WeightedText, float]]:
    """Phrases that are alike told once, with the weights of all; those steered away from stay apart."""
    united: dict[tuple[WeightedText, bool], float] = {}
    for phrase, count in zip(phrases, counts, strict=True):
        united[phrase, count > 0] = united.get((phrase, count > 0), 0.0) + count
    return [(phrase, count) for (phrase, _), count in united.items()]


def _without_light_words(
    phrases: list[WeightedText], counts: tuple[float, ...]
) -> tuple[list[WeightedText], tuple[float, ...]]:
    """Each phrase in several copies that together weigh its light words: one with them, one without.

    In a small model all that is told of a word before it reaches the denoiser stays told when its own embedding
    shrinks: measured on riff-mini, a weight of 0 takes 5 % of what a word does away. So words below 1 are left out
    of a copy that has the rest of the weight, and the predictions are mixed.
    """
    copies: list[WeightedText] = []
    parts: list[float] = []
    for phrase, count in zip(phrases, counts, strict=True):
        light = {weight for _, weight in phrase if weight < 1.0}
        if len(light) > MOST_LEVELS:
            phrase = tuple((text, weight if weight >= 1 else round(weight * 4) / 4) for text, weight in phrase)
            light = {weight for _, weight in phrase if weight < 1.0}
        below = 0.0
        for level in sorted({*light, 1.0}):
            if level > 0.0:
                copies.append(_merge([(text, max(weight, 1.0)) for text, weight in phrase if weight >= level]))
                parts.append(count * (level - below) if light else count)
            below = level
    return copies, tuple(parts)


def _ignored(
    phrases: list[WeightedText], parts: "StableDiffusionPipeline", prior: MusicPrior | None
) -> tuple[str, ...]:
    """The words that the model was not taught; it is said where nothing is left of a phrase."""
    ignored: list[str] = []
    for phrase in phrases:
        left, unknown = known_phrase(phrase, parts, prior)
        ignored += unknown
        if not strip_weights(left):
            warnings.warn(
                f"the model knows no word of {strip_weights(phrase)[:80]!r}; it plays what it likes", stacklevel=2
            )
    return tuple(ignored)


def known_phrase(
    phrase: WeightedText, parts: "StableDiffusionPipeline", prior: MusicPrior | None
) -> tuple[WeightedText, list[str]]:
    """What the model was taught of a phrase, and the rest; only riff's own models have a closed vocabulary."""
    return (phrase, []) if prior is None else split_known_pieces(phrase, parts.tokenizer)


def _mean_embedding(phrases: list[WeightedText], counts: tuple[float, ...], parts: "StableDiffusionPipeline") -> Tensor:
    """(1, L, D) of the prompts that are played, without the weights of their words, which say nothing of the tempo."""
    embeds = [
        count * embed_prompt([strip_weights(phrase)], parts.tokenizer, parts.text_encoder)
        for phrase, count in zip(phrases, counts, strict=True)
        if count > 0
    ]
    return torch.cat(embeds).sum(0, keepdim=True) if len(embeds) > 1 else embeds[0]


def _written_bpm(stated: list[str]) -> float | None:
    """The tempo that the first of the prompts says."""
    found = [bpm for bpm in (parse_bpm(text) for text in stated) if bpm is not None]
    if len(set(found)) > 1:
        told = " and ".join(f"{bpm:g}" for bpm in found)
        warnings.warn(f"the prompts that AND joins say {told} bpm; {found[0]:g} is used", stacklevel=2)
    return found[0] if found else None


def _fit(phrase: WeightedText, told: str, parts: "StableDiffusionPipeline") -> tuple[WeightedText, list[str]]:
    """``phrase`` followed by what else the model is told, and the words at its end that give way to that."""
    words = [(word, weight) for piece, weight in phrase for word in re.findall(r"\s*\S+|\s+", piece)]
    length = prompt_length(parts.tokenizer, parts.text_encoder)

    def first(count: int) -> WeightedText:
        kept = words[:count]
        while kept and kept[-1][0].isspace():
            kept.pop()
        return append_text(_merge(kept), f", {told}" if kept and told else told)

    def too_long(count: int) -> bool:
        return bool(dropped_words(strip_weights(first(count)), parts.tokenizer, length=length))

    count = len(words)
    if too_long(count):
        count = bisect.bisect_left(range(1, count + 1), True, key=too_long)
    lost = (word.strip(",.;:!?") for word in strip_weights(tuple(words[count:])).split())
    return first(count), [word for word in lost if word]


def _merge(words: list[tuple[str, float]]) -> WeightedText:
    """Neighbours of one weight joined."""
    merged: list[tuple[str, float]] = []
    for word, weight in words:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + word, weight)
        else:
            merged.append((word, weight))
    return tuple(merged)


def _tell(written: str, tempo: float, keyscale: str | None) -> str:
    """The tempo and the key that a prompt leaves open.

    The tempo is told whoever chose it: what the model draws then suits the grid, and a clip is made again
    from its prompt and its tempo.
    """
    told = []
    if parse_bpm(written) is None:
        told.append(f"{round(tempo)} bpm")
    if keyscale is not None and parse_key(written) is None:
        told.append(f"in {keyscale}")
    return ", ".join(told)


def choose_tempo(bpm: float | None, written: float | None, implied: float | None) -> float:
    """Beats per minute: the argument, else the number in the prompt, else the model's prior, else 120."""
    if bpm is not None and written is not None and abs(bpm - written) > 0.5:
        warnings.warn(f"the prompt says {written:g} bpm and the argument {bpm:g}; {bpm:g} is used", stacklevel=2)
    if bpm is None and written is not None:
        check_number(written, "the prompt's bpm", *BPM_RANGE)
    return next((float(tempo) for tempo in (bpm, written, implied) if tempo is not None), DEFAULT_BPM)
