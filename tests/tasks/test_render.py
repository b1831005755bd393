"""Scores become sound: exact length, the stated tempo, the same samples every time."""

import json
from pathlib import Path

import numpy as np
import pytest

from riff.music.key import measure_key, mirex_key_score
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.spectrogram.config import SpectrogramConfig
from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import find_soundfont, render

pytest.importorskip("fluidsynth", exc_type=ImportError)
if find_soundfont() is None:
    pytest.skip("no General MIDI soundfont: apt-get install fluidr3mono-gm-soundfont", allow_module_level=True)


@pytest.mark.parametrize("genre", ["techno", "sacred"])
def test_sound_is_stereo_lasts_exactly_its_beats_and_never_clips(genre):
    score = compose(11, genre=genre)
    sound = render(score)
    assert sound.shape == (2, round(score.beats * 60 / score.bpm * SAMPLE_RATE))
    assert 0.01 < float(np.abs(sound).max()) < 1.0
    assert float(np.abs(sound[0] - sound[1]).max()) > 1e-3


def test_the_same_score_is_the_same_sound_whatever_was_played_before():
    score = compose(3, genre="funk", windows=1)
    first = render(score)
    render(compose(4, genre="ambient", windows=1))
    np.testing.assert_array_equal(render(score), first)


def test_detectors_agree_with_the_truth_of_what_was_composed():
    tempi, keys = [], []
    for offset in range(8):
        score = compose(HELD_OUT_SEEDS.start + offset, genre=["house", "rock", "disco", "salsa"][offset % 4])
        sound = render(score).mean(0)
        tempi.append(tempo_error(measure_tempo(sound, SAMPLE_RATE), score.bpm) < 0.01)
        score = compose(
            HELD_OUT_SEEDS.start + offset, genre=["classical_piano", "folk", "baroque", "lullaby"][offset % 4]
        )
        keys.append(mirex_key_score(measure_key(render(score).mean(0), SAMPLE_RATE), score.windows[0].keyscale))
    assert sum(tempi) >= 7
    assert np.mean(keys) >= 0.6


def test_the_dataset_maker_writes_pictures_with_captions_and_truth_and_skips_what_is_done(tmp_path: Path):
    from training.recipes.dataset import make_shard

    config = SpectrogramConfig()
    assert make_shard(0, 2, tmp_path, config) == 8
    shards = sorted(path.name for path in tmp_path.iterdir())
    assert shards == [
        f"{kind}-{beats}-000000.{end}" for kind, end in (("clips", "jsonl"), ("pictures", "npy")) for beats in (3, 4)
    ]
    for beats, width in ((3, 192), (4, 256)):
        pictures = np.load(tmp_path / f"pictures-{beats}-000000.npy")
        clips = [json.loads(line) for line in (tmp_path / f"clips-{beats}-000000.jsonl").read_text().splitlines()]
        assert len(pictures) == len(clips)
        if clips:
            assert pictures.shape[1:] == (256, width)
            assert pictures.dtype == np.uint8
            assert all(clip["beats_per_bar"] == beats and len(clip["captions"]) == 8 for clip in clips)
