"""The parts of ``riff prepare``, each by itself: streaming, cutting, copies, workers that die."""

import base64
import os
import time

import numpy as np
import pytest
import soundfile
import torch

from riff.audio.io import load_audio
from riff.train.data.cutting import EVEN_BPM, Cut, SoundStream, blocks, plan_cuts, stretch, unevenness
from riff.train.data.settings import PrepareSettings, differing_settings
from riff.train.data.sources import stem_of
from riff.train.data.tables import clean_captions
from riff.train.data.writing import directions, fingerprint, repeated
from riff.utils.parallel import WorkerDied, run_all
from tests.train.test_prepare import CONFIG, RATE, song

NOISE = (np.random.default_rng(0).normal(size=(70000, 2)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
@pytest.mark.parametrize("rate", [22050, 48000])
def test_a_stream_is_the_file_as_it_is_loaded_whole(tmp_path, suffix, rate):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, NOISE, rate)
    whole, _ = load_audio(path, sample_rate=RATE, channels=1)
    stream = SoundStream(path, RATE, 1)
    parts = list(blocks(stream, seconds=0.7))
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 1
    streamed = torch.cat([part for part, _ in parts], dim=-1)
    assert abs(streamed.shape[-1] - whole.shape[-1]) <= 1
    shorter = min(streamed.shape[-1], whole.shape[-1])
    assert float((streamed[:, :shorter] - whole[:, :shorter]).abs().max()) < 2e-3
    assert stream.faults == []


def test_blocks_are_about_equally_long(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE * 25), RATE)
    lengths = [part.shape[-1] / RATE for part, _ in blocks(SoundStream(tmp_path / "a.wav", RATE, 1), seconds=10.0)]
    assert sum(lengths) == pytest.approx(25.0)
    assert max(lengths) - min(lengths) < 0.01


def test_a_long_song_cut_in_blocks_has_no_gap_and_no_overlap(tmp_path, monkeypatch):
    from riff.train.data import worker as module
    from riff.train.data.sources import MusicSource

    monkeypatch.setattr(module, "BLOCK", 15.0)
    soundfile.write(tmp_path / "a.wav", song(120.0, 60.0), RATE)
    for name in ("clips", "records"):
        (tmp_path / name).mkdir()
    record = module.cut_source(
        MusicSource("a.wav", str(tmp_path / "a.wav"), "", "a"), PrepareSettings(CONFIG), str(tmp_path)
    )
    starts = [row["start_s"] for row in record["clips"]]
    assert len(starts) >= 14
    assert np.diff(starts) == pytest.approx(4.0, abs=0.03)


def test_beats_are_judged_by_an_evenly_changing_tempo():
    drifting = tuple(np.cumsum(60.0 / np.linspace(100.0, 120.0, 9)))
    wrong = (0.0, 0.5, 1.0, 1.5, 1.75, 2.5, 3.0, 3.5, 4.0)
    assert unevenness(drifting) < 0.01
    assert unevenness(wrong) > 0.04


def test_a_loop_of_exactly_two_bars_is_one_clip():
    cuts = plan_cuts(torch.from_numpy(song(96.0, 5.0))[None], PrepareSettings(CONFIG), 4).cuts
    assert len(cuts) == 1
    assert cuts[0].bpm == pytest.approx(96.0, rel=2e-3)


def test_silence_is_an_even_grid_that_is_not_believed():
    plan = plan_cuts(torch.zeros(1, RATE * 9), PrepareSettings(CONFIG), 4)
    assert [(cut.start, cut.steady, cut.bpm) for cut in plan.cuts] == [(0.0, False, None), (4.0, False, None)]
    assert plan.cuts[0].end == 8 * 60.0 / EVEN_BPM
    assert plan.used == 8.0


def test_a_stretch_beyond_the_ends_is_silence():
    sound = torch.ones(1, 100)
    assert stretch(sound, -0.1, 1.2, 100)[0].tolist() == [0.0] * 10 + [1.0] * 100 + [0.0] * 20


def test_beats_within_a_clip_begin_with_it():
    beats = Cut(2.0, 4.0, 64, (2.0, 2.5, 3.0, 3.5, 4.0)).beats_within()
    assert beats is not None
    assert beats.times == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert beats.bpm == 120.0
    assert beats.steadiness == pytest.approx(1.0)


def _prints(mels: torch.Tensor) -> np.ndarray:
    return directions(base64.b64encode(fingerprint(mel).tobytes()).decode() for mel in mels)


def test_copies_are_found_whatever_their_level_and_the_first_is_kept():
    generator = torch.Generator().manual_seed(0)
    mels = torch.rand(40, 1, 64, 128, generator=generator) ** 8
    same = torch.cat([mels, 0.1 * mels[:5], mels[7:8] * 1.02])
    assert repeated(_prints(same)) == {40: 0, 41: 1, 42: 2, 43: 3, 44: 4, 45: 7}


def test_many_clips_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr("riff.train.data.writing._PART", 7)
    mels = torch.rand(30, 1, 64, 128, generator=torch.Generator().manual_seed(1)) ** 8
    assert repeated(_prints(torch.cat([mels, mels]))) == {30 + index: index for index in range(30)}


def test_silent_clips_do_not_trouble_the_comparison():
    assert np.isfinite(_prints(torch.zeros(3, 1, 64, 128))).all()


def _square(number: int) -> int:
    if number == 3:
        os._exit(7)
    if number == 4:
        raise ValueError("four")
    time.sleep(0.01)
    return number * number


def _make() -> object:
    return _square


def test_a_worker_that_dies_is_one_piece_of_work_lost():
    results = dict(run_all(_make, [(number,) for number in range(7)], workers=2))
    assert isinstance(results[3], WorkerDied)
    assert "code 7" in str(results[3])
    assert isinstance(results[4], ValueError)
    assert {n: r for n, r in results.items() if n not in (3, 4)} == {n: n * n for n in (0, 1, 2, 5, 6)}


def test_work_in_this_process_gives_the_same():
    results = dict(run_all(_make, [(2,), (4,)], workers=0))
    assert results[0] == 4
    assert isinstance(results[1], ValueError)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/Song 1.wav", "Song_1"),
        ("-rf.wav", "rf"),
        ("new\nline.mp3", "new_line"),
        ("ünï ♪.wav", "ünï"),
        ("♪.wav", "clip"),
        ("é" * 100 + ".wav", "é" * 40),
    ],
)
def test_stems_are_what_every_system_takes(name, stem):
    assert stem_of(name) == stem


def test_captions_are_one_line_each():
    assert clean_captions(["a\nb", "", None, " a  b ", "c\0"]) == ("a b", "c")


def test_settings_that_differ_are_named_with_both_values():
    one, two = PrepareSettings(CONFIG), PrepareSettings(CONFIG, overlap=0.5)
    assert differing_settings(one.to_dict(), two.to_dict()) == "overlap 0.0 (now 0.5)"
    assert differing_settings(one.to_dict(), one.to_dict()) == ""
