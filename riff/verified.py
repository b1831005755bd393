"""A key and a tempo that are obeyed: measured, drawn again, and at the last transposed."""

import dataclasses
import math
from collections.abc import Callable

from riff.clip import Clip, play
from riff.errors import RiffError
from riff.evaluate.key import KEYS, key_scores, pitch_classes
from riff.evaluate.tempo import measure_tempo, tempo_error
from riff.inversion import Quality
from riff.music import TONICS
from riff.transpose import transpose_image

TEMPO_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A drawing and what was measured of it.

    Attributes:
        clip: itself.
        score: how well the asked key fits.
        in_key: whether it is the one that fits best.
        off: relative distance of its pulse from the clip's tempo, infinite where none is heard; 0 where it counts as
            the same, and where no tempo was asked for.
    """

    clip: Clip
    score: float
    in_key: bool
    off: float


def in_key(
    draw: Callable[[int], Clip], keyscale: str, *, tries: int, quality: Quality, has_tempo: bool = False
) -> Clip:
    """The first of ``tries`` clips whose measured key is the asked one, else the nearest, transposed.

    A model knows keys only as well as it learned them, and two bars often leave a key open. The grid gives every clip
    its tempo, but of music that floats another one may be heard: where a tempo was asked for, a clip in the key whose
    pulse is another is drawn again too, and of all that are in the key the one nearest to the tempo is taken. The clip
    says in its settings what was measured, how often it was drawn, and by how many semitones it was moved.

    Args:
        draw: draws candidate number 0, 1, ...
        keyscale: one of :data:`riff.music.KEYSCALES`.
        tries: candidates at most, at least 1.
        quality: of the sound of a transposed picture.
        has_tempo: whether a tempo was asked for, which is the clips' own.
    """
    wanted = KEYS.index(keyscale)
    found: list[_Candidate] = []
    for number in range(tries):
        clip = draw(number)
        scores = _scores(clip)
        heard = max(range(len(KEYS)), key=scores.__getitem__)
        off = _off(clip) if has_tempo and heard == wanted else 0.0
        found.append(_Candidate(clip, scores[wanted], heard == wanted, off))
        if heard == wanted and off == 0.0:
            break
    best = min(found, key=lambda one: (not one.in_key, one.off if one.in_key else -one.score))
    if best.in_key:
        return _told(best.clip, keyscale, tries=len(found), semitones=0)
    return _transposed(best.clip, keyscale, tries=tries, quality=quality)


def _off(clip: Clip) -> float:
    """How far the pulse that is heard is from the clip's tempo, at any metrical level; 0 within a hundredth."""
    try:
        error = tempo_error(measure_tempo(clip.waveform, clip.sample_rate), clip.bpm)
    except RiffError:
        return math.inf
    return error if error > TEMPO_TOLERANCE else 0.0


def _transposed(clip: Clip, keyscale: str, *, tries: int, quality: Quality) -> Clip:
    """The clip moved so that its best key of the asked mode is the asked one, if that is what is then heard."""
    tonic, mode = keyscale.split()
    scores = _scores(clip)
    same_mode = [index for index, key in enumerate(KEYS) if key.endswith(mode)]
    heard = max(same_mode, key=scores.__getitem__)
    semitones = (TONICS.index(tonic) - TONICS.index(KEYS[heard].split()[0]) + 6) % 12 - 6
    image = transpose_image(clip.image, clip.config, semitones)
    loop = bool(clip.settings.get("loop"))
    waveform = play(image, clip.config, bpm=clip.bpm, seed=clip.seed, quality=quality, loop=loop)
    moved = dataclasses.replace(clip, image=image, waveform=waveform[..., : clip.waveform.shape[-1]])
    scores = _scores(moved)
    return _told(moved, KEYS[max(range(len(KEYS)), key=scores.__getitem__)], tries=tries, semitones=semitones)


def _scores(clip: Clip) -> list[float]:
    """How well each of the 24 keys fits; silence fits none."""
    try:
        return [float(score) for score in key_scores(pitch_classes(clip.waveform, clip.sample_rate))]
    except RiffError:
        return [0.0] * len(KEYS)


def _told(clip: Clip, heard: str, *, tries: int, semitones: int) -> Clip:
    told = {"key_measured": heard, "key_drawn": tries, "key_moved": semitones}
    return dataclasses.replace(clip, settings={**clip.settings, **told})
