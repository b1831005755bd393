"""Music becomes a data set: whole bars on the grid, captions, splits, restarts, shards, a report."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from riff.apps.cli import build_parser, main
from riff.apps.cli.prepare import _settings
from riff.music.alignment import LEVEL
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.train.data.dataset import load_dataset
from riff.train.data.prepare import prepare
from riff.train.data.settings import PrepareSettings
from riff.train.data.writing import split_of
from riff.utils.errors import RiffError

RATE = 22050
SMALL = {
    "sample_rate": RATE,
    "n_fft": 2048,
    "win_length": 1024,
    "hop_length": 256,
    "n_mels": 64,
    "f_max": 8000.0,
    "frames_per_beat": 16,
    "width": 128,
}
CONFIG = SpectrogramConfig(**SMALL)
SETTINGS = PrepareSettings(CONFIG, validation=0.0)


def song(bpm: float = 120.0, seconds: float = 20.0, *, seed: int = 0, rate: int = RATE, times=None) -> np.ndarray:
    """A bass drum on each first beat of four, clicks on the others, a chord that changes with each bar."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    times = np.arange(0.0, seconds, 60.0 / bpm) if times is None else times
    sound, t = np.zeros(total), np.arange(round(0.12 * rate)) / rate
    noise = rng.normal(size=len(t))
    for number, time_of in enumerate(times):
        deep = np.sin(2 * np.pi * 60 * t) * np.exp(-t / 0.05) if number % 4 == 0 else 0.0
        start = round(float(time_of) * rate)
        part = (0.3 * noise * np.exp(-t / 0.01) + 0.8 * deep)[: max(0, total - start)]
        sound[start : start + len(part)] += part
    bars = [*times[::4], seconds]
    for first, last in itertools.pairwise(bars):
        span = np.arange(round(first * rate), min(round(last * rate), total))
        for _ in range(3):
            pitch = 220.0 * 2 ** (rng.integers(0, 18) / 12)
            sound[span] += 0.08 * np.sin(2 * np.pi * pitch * span / rate)
    return (0.5 * sound).astype(np.float32)


def write(path: Path, sound: np.ndarray, rate: int = RATE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **options)
    return path


def rows_of(dataset: Path, split: str = "train") -> list[dict]:
    path = dataset / split / "metadata.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line] if path.exists() else []


def run(music: Path, dataset: Path, **changes):
    settings = {"config": CONFIG, "validation": 0.0, **changes}
    return prepare(music, dataset, PrepareSettings(**settings), workers=0)


@pytest.fixture
def music(tmp_path):
    write(tmp_path / "music/a.wav", song(120.0))
    write(tmp_path / "music/album/b.flac", song(90.0, seed=1))
    (tmp_path / "music/a.txt").write_text("first song\n")
    return tmp_path / "music"


def test_clips_are_whole_bars_that_begin_on_downbeats(music, tmp_path):
    report = run(music, tmp_path / "out")
    rows = {row["file_name"]: row for row in rows_of(tmp_path / "out")}
    assert report.clips == len(rows) == 5 + 3  # 20 s: five times 4 s and three times 5.33 s
    for row in rows.values():
        beat = 60.0 / (120.0 if row["source"] == "a.wav" else 90.0)
        image, config, made = read_png(tmp_path / "out/train" / row["file_name"])
        assert image.shape == (1, 64, 8 * 16)
        assert config == CONFIG
        assert row["bpm"] == pytest.approx(60.0 / beat, rel=2e-3)
        assert made["bpm"] == pytest.approx(row["bpm"], abs=0.01)
        assert row["start_s"] / beat % 4.0 == pytest.approx(0.0, abs=0.06) or row["start_s"] / beat % 4.0 > 3.94
        assert row["duration_s"] == pytest.approx(8 * beat, rel=2e-3)
        assert row["beats_per_bar"] == 4
    assert rows["a-0000.png"]["captions"] == ["first song"]
    assert rows["b-0000.png"]["source"] == "album/b.flac"
    assert set(rows["a-0000.png"]) == {
        *("file_name", "text", "captions", "bpm", "keyscale", "beats_per_bar", "source", "start_s", "duration_s"),
        "max_value",
    }


def test_the_trainer_reads_it_and_the_config_lies_beside(music, tmp_path):
    run(music, tmp_path / "out", validation=0.0)
    train, held_out, config = load_dataset(tmp_path / "out")
    assert (len(train), held_out, config) == (1, [], CONFIG)
    assert train[0].width == 128


def test_a_drifting_beat_lands_on_the_same_columns(tmp_path):
    """A player who slows from 110 to 90 beats per minute: every onset is at the start of a beat's 16 columns."""
    times = np.cumsum(60.0 / np.linspace(110.0, 90.0, 40)) - 60.0 / 110.0
    write(tmp_path / "music/a.wav", song(seconds=24.0, times=times))
    run(tmp_path / "music", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) >= 3
    assert rows[0]["bpm"] > rows[-1]["bpm"] + 5.0
    for row in rows:
        image, _, made = read_png(tmp_path / "out/train" / row["file_name"])
        rise = image[0, :16].diff(dim=-1).clamp(min=0).sum(0)  # high rows: clicks
        onsets = rise.reshape(-1)[torch.arange(1, 8) * 16 - 2].numpy(), rise.numpy()
        near = [rise[beat * 16 - 3 : beat * 16 + 3].max() for beat in range(1, 8)]
        away = [rise[beat * 16 + 6 : beat * 16 + 12].max() for beat in range(1, 7)]
        assert min(near) > 3.0 * max(max(away), 1e-3), onsets
        assert "tempo" in made or "bpm" in made


def test_clips_have_the_level_the_model_knows_unless_it_is_kept(tmp_path):
    write(tmp_path / "music/loud.wav", song(seed=3))
    write(tmp_path / "music/soft.wav", 0.1 * song(seed=3))
    run(tmp_path / "music", tmp_path / "level", duplicates=True)
    run(tmp_path / "music", tmp_path / "kept", duplicates=True, level=False)
    for folder, difference in (("level", 0.0), ("kept", 20.0 / CONFIG.db_range)):
        loud, soft = (read_png(tmp_path / folder / f"train/{name}-0001.png")[0] for name in ("loud", "soft"))
        inside = (soft > 0.05) & (loud < 0.95)
        assert float((loud - soft)[inside].mean()) == pytest.approx(difference, abs=0.01)


def test_seconds_are_cut_as_riffusion_does(tmp_path):
    write(tmp_path / "music/a.wav", song(seconds=16.0, rate=44100), 44100)
    settings = PrepareSettings(SpectrogramConfig.riffusion(), validation=0.0, duplicates=True)
    prepare(tmp_path / "music", tmp_path / "out", settings, workers=0)
    rows = rows_of(tmp_path / "out")
    assert [row["start_s"] for row in rows] == [0.0, 5.12, 10.24]
    assert all(row["bpm"] is None and row["max_value"] > 0 for row in rows)
    image, config, made = read_png(tmp_path / "out/train/a-0001.png")
    assert image.shape == (1, 512, 512)
    assert config == SpectrogramConfig.riffusion()
    assert made["max_value"] == pytest.approx(rows[1]["max_value"])


def test_overlap_repeats_a_bar(tmp_path):
    write(tmp_path / "music/a.wav", song())
    run(tmp_path / "music", tmp_path / "out", overlap=0.5)
    starts = [row["start_s"] for row in rows_of(tmp_path / "out")]
    assert np.diff(starts) == pytest.approx(2.0, abs=0.02)


def test_stereo_keeps_two_channels_and_doubles_mono(tmp_path):
    left = song(seed=5)
    write(tmp_path / "music/two.wav", np.stack([left, 0.2 * left], axis=1))
    write(tmp_path / "music/one.wav", song(seed=6))
    stereo = SpectrogramConfig(**SMALL, channels=2)
    run(tmp_path / "music", tmp_path / "out", config=stereo)
    two, one = (read_png(tmp_path / f"out/train/{name}-0000.png")[0] for name in ("two", "one"))
    assert two.shape == (2, 64, 128)
    assert two[1].max() > 0.3  # the side
    assert one[1].max() == 0.0


def test_three_beats_to_a_bar_by_the_words(tmp_path):
    write(tmp_path / "music/a.wav", song(100.0, 24.0))
    (tmp_path / "music/a.txt").write_text("a slow waltz")
    run(tmp_path / "music", tmp_path / "out")
    row = rows_of(tmp_path / "out")[0]
    assert row["beats_per_bar"] == 3
    assert read_png(tmp_path / "out/train" / row["file_name"])[0].shape[-1] == 6 * 16


@pytest.mark.parametrize("stated", [70, 140])
def test_a_tempo_in_the_words_settles_which_beats_count(tmp_path, stated):
    write(tmp_path / "music/a.wav", song(140.0, 24.0))
    (tmp_path / "music/a.txt").write_text(f"techno, {stated} bpm")
    run(tmp_path / "music", tmp_path / "out")
    assert all(row["bpm"] == pytest.approx(stated, rel=0.002) for row in rows_of(tmp_path / "out"))


@pytest.mark.parametrize(("unsteady", "clips"), [("skip", 0), ("keep", 4), ("seconds", 4)])
def test_music_without_a_beat_is_treated_as_asked(tmp_path, unsteady, clips):
    noise = np.random.default_rng(0).normal(size=RATE * 17) * 0.1
    write(tmp_path / "music/a.wav", noise)
    write(tmp_path / "music/b.wav", song())
    report = run(tmp_path / "music", tmp_path / "out", unsteady=unsteady, duplicates=True)
    rows = [row for row in rows_of(tmp_path / "out") if row["source"] == "a.wav"]
    assert len(rows) == clips
    assert all(row["bpm"] is None and row["duration_s"] == 4.0 for row in rows)
    if unsteady == "skip":
        assert report.skipped["unsteady"] == 4
        assert "no steady beat" in report.unused["a.wav"]


def test_what_is_silent_is_left_out(tmp_path):
    sound = song(seconds=40.0)
    sound[RATE * 16 : RATE * 32] = 0.0
    write(tmp_path / "music/a.wav", sound)
    report = run(tmp_path / "music", tmp_path / "out", unsteady="keep")
    assert report.skipped["silent"] >= 2
    assert all(not 16.5 < row["start_s"] < 27.0 for row in rows_of(tmp_path / "out"))


def test_copies_in_other_formats_and_repeated_loops_are_left_out(tmp_path):
    sound = song(seconds=16.0, seed=8)
    write(tmp_path / "music/a.wav", sound)
    write(tmp_path / "music/b.mp3", 0.5 * sound)
    write(tmp_path / "music/c.ogg", sound)
    write(tmp_path / "music/d.wav", song(seconds=16.0, seed=9))
    loop = song(seconds=4.0, seed=10)
    write(tmp_path / "music/e.wav", np.tile(loop, 4))
    report = run(tmp_path / "music", tmp_path / "out")
    kept = [row["source"] for row in rows_of(tmp_path / "out")]
    assert {"a.wav", "d.wav"} <= set(kept)
    assert not {"b.mp3", "c.ogg"} & set(kept)
    assert kept.count("e.wav") == 1
    assert report.unused["b.mp3"] == "all its clips are nearly copies of others"
    assert report.skipped["duplicate"] >= 9


def test_whole_sources_are_held_out_and_stay_so(tmp_path):
    for number in range(8):
        write(tmp_path / f"music/{number}.wav", song(seconds=9.0, seed=number))
    run(tmp_path / "music", tmp_path / "out", validation=0.4)
    before = {row["source"] for row in rows_of(tmp_path / "out", "validation")}
    assert before == {f"{n}.wav" for n in range(8) if split_of(f"{n}.wav", 0.4) == "validation"} != set()
    assert not before & {row["source"] for row in rows_of(tmp_path / "out")}
    for number in range(8, 11):
        write(tmp_path / f"music/{number}.wav", song(seconds=9.0, seed=number))
    run(tmp_path / "music", tmp_path / "out", validation=0.4)
    after = {row["source"] for row in rows_of(tmp_path / "out", "validation")}
    assert {name for name in after if int(name[:-4]) < 8} == before


def test_a_hash_holds_out_about_the_share_asked_for():
    held = sum(split_of(f"{number}.wav", 0.1) == "validation" for number in range(5000))
    assert 0.08 < held / 5000 < 0.12


def test_a_second_run_does_only_what_is_missing(music, tmp_path):
    out = tmp_path / "out"
    run(music, out)
    times = {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}
    again = run(music, out)
    kept = {path: path.stat().st_mtime_ns for path in times}
    assert {p.name for p in times if kept[p] != times[p]} <= {"report.json", "settings.json", "lock", CONFIG_FILE}
    assert again.clips == 8
    write(music / "c.wav", song(100.0, seed=4))
    (music / "a.txt").write_text("renamed")
    (out / "train/b-0001.png").unlink()
    assert run(music, out).clips == 8 + 4
    rows = {row["file_name"]: row for row in rows_of(out)}
    assert rows["a-0000.png"]["text"] == "renamed"
    assert (out / "train/b-0001.png").exists()
    assert (out / "train/b-0000.png").exists()
    assert set(rows) == {path.name for path in (out / "train").glob("*.png")}


CONFIG_FILE = "spectrogram_config.json"


def test_other_settings_are_refused_by_name_and_force_makes_it_anew(music, tmp_path):
    run(music, tmp_path / "out")
    with pytest.raises(RiffError, match=r"bars None \(now 1\)"):
        run(music, tmp_path / "out", bars=1)
    assert len(rows_of(tmp_path / "out")) == 8
    settings = PrepareSettings(CONFIG, validation=0.0, bars=1)
    assert prepare(music, tmp_path / "out", settings, workers=0, force=True).clips > 12
    assert {row["file_name"] for row in rows_of(tmp_path / "out")} == {
        path.name for path in (tmp_path / "out/train").glob("*.png")
    }


def test_a_folder_of_somebody_elses_is_refused(music, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("mine")
    with pytest.raises(RiffError, match="not empty"):
        run(music, tmp_path / "out")


def test_music_that_went_keeps_its_clips_and_is_named(music, tmp_path):
    run(music, tmp_path / "out")
    (music / "a.wav").unlink()
    report = run(music, tmp_path / "out")
    assert report.kept == ["a.wav"]
    assert report.clips == 8


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_at_every_file_operation_it_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    """Every rename of the run fails once; each time the next run completes the same data set."""
    write(tmp_path / "music/a.wav", song(seconds=9.0))
    write(tmp_path / "music/b.wav", song(seconds=9.0, seed=2))
    monkeypatch.setattr("riff.train.data.report.SAMPLES", 0)
    run(tmp_path / "music", tmp_path / "whole")
    wanted = {p.name: p.read_bytes() for p in (tmp_path / "whole/train").iterdir()}
    replace, counts = os.replace, [0, 10**9]

    def dying(source, target, **options):
        counts[0] += 1
        if counts[0] >= counts[1]:
            raise Killed
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", dying)
    monkeypatch.setattr(Path, "replace", lambda self, target: dying(self, target))
    moment = 1
    while True:
        out = tmp_path / f"out{moment}"
        counts[:] = [0, moment]
        try:
            run(tmp_path / "music", out)
        except Killed:
            pass
        else:
            break
        counts[:] = [0, 10**9]
        run(tmp_path / "music", out)
        assert {p.name: p.read_bytes() for p in (out / "train").iterdir()} == wanted, moment
        moment += 1
    assert moment > 10


def test_the_report_counts_and_the_page_needs_nothing_else(music, tmp_path):
    (music / "broken.mp3").write_bytes(b"no sound at all")
    (music / "notes.m4a").write_bytes(b"x")
    (music / "cover.jpg").write_bytes(b"x")
    run(music, tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["clips"] == report["train"] == 8
    assert (report["sources"], report["used"]) == (4, 2)
    assert sum(report["tempi"].values()) == 8
    assert set(report["unused"]) == {"broken.mp3", "notes.m4a"}
    assert report["ignored"] == {".jpg": 1}
    assert report["hours"] == pytest.approx((5 * 4.0 + 3 * 16 / 3) / 3600, rel=0.01)
    assert report["without_words"] == 3
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<article>") == 8
    assert page.count('src="data:audio/mpeg') == 8
    assert "broken.mp3" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_command_prints_the_folder_or_the_report(music, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["prepare", str(music), str(out), "--workers", "0", "--grid", "seconds", "--caption", "zigzag"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clips"] == len(rows_of(out)) + len(rows_of(out, "validation")) > 4
    assert {row["text"] for row in rows_of(out) + rows_of(out, "validation")} <= {"zigzag, first song", "zigzag"}
    assert main(words) == 0
    done = capsys.readouterr()
    assert done.out == f"{out}\n"
    assert "clips" in done.err
    assert main([*words, "--bars", "2"]) == 2
    assert "seconds grid" in capsys.readouterr().err


class Told:
    """Stands for a riff.train.data.auto_caption.Description."""

    bpm, keyscale = 99.0, "D minor"

    def captions(self, words: str, rng: random.Random, count: int) -> list[str]:
        return [", ".join(part for part in (words, f"heard {number}") if part) for number in range(count)]


def test_auto_captions_begin_with_the_users_words(music, tmp_path, monkeypatch):
    calls = []

    def describe(waveform, sample_rate, *, beats, image, config):
        calls.append((waveform, sample_rate, beats, image, config))
        return Told()

    monkeypatch.setattr("riff.train.data.auto_caption.describe", describe)
    run(music, tmp_path / "out", auto=True)
    rows = {row["file_name"]: row for row in rows_of(tmp_path / "out")}
    assert rows["a-0000.png"]["captions"] == [f"first song, heard {number}" for number in range(4)]
    assert rows["b-0000.png"]["text"] == "heard 0"
    assert rows["a-0000.png"]["keyscale"] == "D minor"
    assert rows["a-0000.png"]["bpm"] == pytest.approx(120.0, rel=2e-3)  # the tracked one
    for waveform, sample_rate, beats, image, config in calls:
        assert (sample_rate, config) == (RATE, CONFIG)
        assert image.shape == (1, 64, 128)
        assert beats.times[0] == 0.0
        assert beats.times[-1] == pytest.approx(waveform.shape[-1] / RATE, abs=1e-4)
        assert 20 * np.log10(float(waveform.square().mean().sqrt())) == pytest.approx(LEVEL, abs=0.1)


def test_the_checkpoint_says_how_pictures_are_drawn(mini_checkpoint, tmp_path):
    def settings(*words):
        return _settings(build_parser().parse_args(["prepare", "music", "out", *map(str, words)]))

    own = SpectrogramConfig.load(mini_checkpoint)
    assert settings("--model", mini_checkpoint).config == own
    assert settings().config == SpectrogramConfig() == settings("--model", "riff-mini").config
    assert settings().bars_per_clip == 2
    assert settings("--preset", "riffusion", "--stereo").config == SpectrogramConfig.riffusion(stereo=True)
    assert settings("--grid", "seconds").config.grid == "seconds"
    assert settings("--caption", "auto", "--caption", "x").auto
    for words in (
        ("--preset", "riffusion", "--grid", "beats"),
        ("--preset", "riffusion", "--model", mini_checkpoint),
        ("--stereo", "--model", "riff-mini"),
        ("--caption", "a", "--caption", "b"),
    ):
        with pytest.raises(RiffError):
            settings(*words)


@pytest.mark.slow
def test_workers_give_what_one_process_gives_and_a_kill_loses_nothing(tmp_path):
    """Two processes, the whole run killed with signal 9 after the first record, then run again."""
    for number in range(4):
        write(tmp_path / f"music/{number}.wav", song(seconds=9.0, seed=number, rate=44100), 44100)
    command = [sys.executable, "-m", "riff", "prepare", str(tmp_path / "music")]
    options = ["--validation", "0", "--quiet", "--workers"]
    first = subprocess.Popen([*command, str(tmp_path / "two"), *options, "2"], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120.0
    while not any((tmp_path / "two/.riff-prepare/records").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(0.5)
    subprocess.run([*command, str(tmp_path / "two"), *options, "2"], check=True, stdout=subprocess.DEVNULL)
    settings = PrepareSettings(SpectrogramConfig(), validation=0.0)
    prepare(tmp_path / "music", tmp_path / "one", settings, workers=0)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name / "train").iterdir()} for name in ("one", "two"))
    assert one == two
