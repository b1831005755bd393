"""Several candidates of one clip: generated until the key and the tempo are the requested ones, or the best is kept."""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch

from riff.diffusion.latents import seeded_generator
from riff.music.key import key_scores, pitch_classes
from riff.music.tagger import Tagger
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS, TONICS, parse_key
from riff.prompt.syntax import plain_prompt
from riff.spectrogram.config import Quality
from riff.spectrogram.image import transpose_image
from riff.spectrogram.inversion.waveform import Vocoder
from riff.tasks.clip import Clip, image_to_waveform
from riff.utils.errors import RiffError

TEMPO_TOLERANCE = 0.01


def candidate_seed(seed: int, number: int) -> int:
    """The seed of candidate ``number`` >= 1 of a clip with ``seed``."""
    drawn = torch.randint(2**62, (number,), generator=seeded_generator(seed))[-1]
    return int(drawn) % 2**32  # the bits that a generator of torch heeds


def retry_until_in_key(
    generate: Callable[[int], Clip],
    key: str,
    *,
    tries: int,
    quality: Quality,
    has_tempo: bool = False,
    vocoder: Vocoder | None = None,
) -> Clip:
    """The first of ``tries`` clips whose measured key is the requested one, else the nearest, transposed.

    A model knows keys only as well as it learned them, and two bars often leave a key open. The grid gives every clip
    its tempo, but music without a clear pulse may seem to have another one. So where a tempo was requested, a clip that
    is in the key but whose measured tempo differs is generated again too, and of all that are in the key the one
    nearest
    to the tempo is kept. The clip's settings record the measured key, the number of tries and the transposition in
    semitones.

    Args:
        generate: gives candidate number 0, 1, ...
        key: one of :data:`riff.music.theory.KEYSCALES`.
        tries: candidates at most, at least 1.
        quality: of the sound of a transposed image.
        has_tempo: whether a tempo was requested, which is the clips' own.
        vocoder: in place of riff's own inversion.
    """
    wanted = KEYS.index(key)
    found: list[_Candidate] = []
    for number in range(tries):
        clip = generate(number)
        scores = _scores(clip)
        detected = max(range(len(KEYS)), key=scores.__getitem__)
        off = _off(clip) if has_tempo and detected == wanted else 0.0
        found.append(_Candidate(clip, scores[wanted], detected == wanted, off))
        if detected == wanted and off == 0.0:
            break
    best = min(found, key=lambda one: (not one.in_key, one.off if one.in_key else -one.score))
    if best.in_key:
        return _recorded(best.clip, key, tries=len(found), semitones=0)
    return _transposed(best.clip, key, tries=tries, quality=quality, vocoder=vocoder)


def keep_best(generate: Callable[[int], Clip], *, count: int, prompt: str, key: str | None) -> Clip:
    """Of ``count`` candidates the one that fits the request best; of equal ones the first.

    Args:
        generate: gives candidate number 0, 1, ...
        count: candidates, at least 1.
        prompt: as the user wrote it; genres, instruments and a key that it names count.
        key: the requested one, or None.

    Returns:
        The clip; ``best_score`` in its settings is its score, from 0 to 3.
    """
    candidates = [generate(number) for number in range(count)]
    scores = [_fit(clip, prompt, key or parse_key(plain_prompt(prompt))) for clip in candidates]
    best = max(range(count), key=scores.__getitem__)
    settings = {**candidates[best].settings, "best_score": round(scores[best], 4)}
    return dataclasses.replace(candidates[best], settings=settings)


def _fit(clip: Clip, prompt: str, key: str | None) -> float:
    """How well a clip fits a prompt: up to 1 each for its words, its key and its tempo; 0 for what cannot be told."""
    score = _word_fit(clip, prompt)
    if key is not None:
        scores = _scores(clip)
        low, high = min(scores), max(scores)
        score += (scores[KEYS.index(key)] - low) / (high - low) if high > low else 0.0
    off = _off(clip)
    # A pulse that is 10 % off is another tempo.
    return score + max(0.0, 1.0 - 10.0 * off)


def _word_fit(clip: Clip, prompt: str) -> float:
    """The tagger's mean probability of the genres and instruments that a prompt names."""
    tagger = _tagger()
    if not tagger.reads(clip.config):
        return 0.0
    tags, words = tagger.tag_images(clip.image[None])[0], plain_prompt(prompt).lower()
    found = [value for name, value in (tags.genres | tags.instruments).items() if name.replace("_", " ") in words]
    return sum(found) / len(found) if found else 0.0


@functools.cache
def _tagger() -> Tagger:
    return Tagger.load()


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A clip and what was measured of it.

    Attributes:
        clip: the clip.
        score: how well the requested key fits.
        in_key: whether that key fits best.
        off: relative distance of the measured tempo from the clip's own, infinite where none is found; 0 where it
            counts as the same, and where no tempo was requested.
    """

    clip: Clip
    score: float
    in_key: bool
    off: float


def _off(clip: Clip) -> float:
    """Relative distance of the measured tempo from the clip's own, at any metrical level; 0 within a hundredth."""
    try:
        error = tempo_error(measure_tempo(clip.waveform, clip.sample_rate), clip.bpm)
    except RiffError:
        return math.inf
    return error if error > TEMPO_TOLERANCE else 0.0


def _transposed(clip: Clip, key: str, *, tries: int, quality: Quality, vocoder: Vocoder | None) -> Clip:
    """The clip transposed so that its best key of the requested mode becomes the requested one."""
    tonic, mode = key.split()
    scores = _scores(clip)
    same_mode = [index for index, each in enumerate(KEYS) if each.endswith(mode)]
    detected = max(same_mode, key=scores.__getitem__)
    semitones = (TONICS.index(tonic) - TONICS.index(KEYS[detected].split()[0]) + 6) % 12 - 6
    image = transpose_image(clip.image, clip.config, semitones)
    loop = bool(clip.settings.get("loop"))
    waveform = image_to_waveform(
        image, clip.config, bpm=clip.bpm, seed=clip.seed, quality=quality, loop=loop, vocoder=vocoder
    )
    moved = dataclasses.replace(clip, image=image, waveform=waveform[..., : clip.waveform.shape[-1]])
    scores = _scores(moved)
    return _recorded(moved, KEYS[max(range(len(KEYS)), key=scores.__getitem__)], tries=tries, semitones=semitones)


def _scores(clip: Clip) -> list[float]:
    """How well each of the 24 keys fits; silence fits none."""
    try:
        return [float(score) for score in key_scores(pitch_classes(clip.waveform, clip.sample_rate))]
    except RiffError:
        return [0.0] * len(KEYS)


def _recorded(clip: Clip, detected: str, *, tries: int, semitones: int) -> Clip:
    measured = {"key_measured": detected, "key_drawn": tries, "key_moved": semitones}
    return dataclasses.replace(clip, settings={**clip.settings, **measured})
