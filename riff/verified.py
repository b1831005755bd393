"""A key that is obeyed: measured, drawn again, and at the last transposed."""

import dataclasses
from collections.abc import Callable

from riff.clip import Clip, play
from riff.errors import RiffError
from riff.evaluate.key import KEYS, key_scores, pitch_classes
from riff.inversion import Quality
from riff.music import TONICS
from riff.transpose import transpose_image


def in_key(draw: Callable[[int], Clip], keyscale: str, *, tries: int, quality: Quality) -> Clip:
    """The first of ``tries`` clips whose measured key is the asked one, else the nearest, transposed.

    A model knows keys only as well as it learned them, and two bars often leave a key open. The clip says in its
    settings what was measured, how often it was drawn, and by how many semitones it was moved.

    Args:
        draw: draws candidate number 0, 1, ...
        keyscale: one of :data:`riff.music.KEYSCALES`.
        tries: candidates at most, at least 1.
        quality: of the sound of a transposed picture.
    """
    wanted = KEYS.index(keyscale)
    best: tuple[float, Clip] | None = None
    for number in range(tries):
        clip = draw(number)
        scores = _scores(clip)
        heard = max(range(len(KEYS)), key=scores.__getitem__)
        if heard == wanted:
            return _told(clip, KEYS[heard], tries=number + 1, semitones=0)
        if best is None or scores[wanted] > best[0]:
            best = scores[wanted], clip
    assert best is not None
    return _transposed(best[1], keyscale, tries=tries, quality=quality)


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
