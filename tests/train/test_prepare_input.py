"""Whatever lies in a folder of music, the good files become clips and every other one is named with its reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from riff.apps.cli import main
from riff.audio.tags import id3_tag
from riff.spectrogram.config import SpectrogramConfig
from riff.train.data.prepare import prepare
from riff.train.data.rows import is_data_set
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import list_folder
from riff.utils.errors import RiffError, SystemProblem
from tests.train.test_prepare import CONFIG, RATE, rows_of, write

SECONDS = SpectrogramConfig(**{**CONFIG.to_dict(), "grid": "seconds"})  # no beats to track: quick
SETTINGS = PrepareSettings(SECONDS, validation=0.0, duplicates=True)
LENGTH = 128 * 256 / RATE  # seconds of a clip
TONE = (0.3 * np.sin(np.arange(round(3.2 * LENGTH * RATE)) * 0.05)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_samples(monkeypatch):
    """Leave the players of the page to test_prepare.py."""
    monkeypatch.setattr("riff.train.data.report.SAMPLES", 0)


def run(music, out, **changes):
    return prepare(music, out, PrepareSettings(**{**vars(SETTINGS), **changes}), workers=0)


def nan_inside(path):
    sound = TONE.copy()
    sound[len(sound) // 2 : len(sound) // 2 + 5] = np.nan
    write(path, sound, subtype="FLOAT")


def truncated(path, end, source=".wav"):
    whole = write(path.with_name(f".whole{source}"), TONE)
    path.write_bytes(whole.read_bytes()[: int(end * whole.stat().st_size)])


def garbled_mp3(path):
    content = bytearray(write(path.with_name(".whole.mp3"), TONE).read_bytes())
    for place in range(1000, len(content), 700):
        content[place] ^= 0xFF
    path.write_bytes(content)


UNUSED = {
    "unreadable.wav": (lambda path: path.write_bytes(b"<html>no sound</html>"), "not a readable sound file"),
    "zero.wav": (lambda path: path.write_bytes(b""), "empty"),
    "header.wav": (lambda path: write(path, np.zeros(0)), "no sound"),
    "one.wav": (lambda path: write(path, np.array([0.5])), "shorter than a clip"),
    "short.flac": (lambda path: write(path, TONE[:3000]), "shorter than a clip"),
    "silent.flac": (lambda path: write(path, np.zeros(len(TONE))), "silent"),
    "nan.wav": (lambda path: write(path, np.full(len(TONE), np.nan), subtype="FLOAT"), "NaN"),
    "huge.wav": (lambda path: write(path, np.full(len(TONE), 1e30), subtype="FLOAT"), "absurd"),
    "odd.wav": (lambda path: write(path, TONE, subtype="G721_32"), "codec 0x40"),
    "nine.wav": (lambda path: write(path, np.tile(TONE[:, None], (1, 9))), "9 channels"),
    "link.wav": (lambda path: path.symlink_to("nowhere.wav"), "cannot be read"),
    "pipe.wav": (os.mkfifo, "pipe"),
    "song.m4a": (lambda path: path.write_bytes(b"x"), "not a readable sound file"),
    "song.mid": (lambda path: path.write_bytes(b"x"), "not read"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_an_unusable_file_is_named_and_the_others_are_used(tmp_path, name):
    make, why = UNUSED[name]
    write(tmp_path / "music/good.wav", TONE)
    make(tmp_path / "music" / name)
    report = run(tmp_path / "music", tmp_path / "out")
    assert report.clips == 3
    assert set(report.unused) == {name}
    assert why in report.unused[name]
    assert "\n" not in report.unused[name]


USED = {
    "eight.wav": lambda path: write(path, np.tile(TONE[:, None], (1, 8))),
    "fast.wav": lambda path: write(path, np.repeat(TONE, 9), 192000),
    "slow.wav": lambda path: write(path, TONE[::2], RATE // 2),
    "bytes.wav": lambda path: write(path, TONE, subtype="PCM_U8"),
    "double.wav": lambda path: write(path, 3.0 * TONE, subtype="DOUBLE"),
    "law.wav": lambda path: write(path, TONE, subtype="ULAW"),
    "apple.aiff": lambda path: write(path, TONE),
    "vorbis.ogg": lambda path: write(path, TONE),
    "mpeg.mp3": lambda path: write(path, TONE),
    "MPEG.MP3": lambda path: path.write_bytes(write(path.with_name(".x.mp3"), TONE).read_bytes()),
    "ünï ♪ 🎹.wav": lambda path: write(path, TONE),
    "new\nline.wav": lambda path: write(path, TONE),
    "-dash.wav": lambda path: write(path, TONE),
    "....wav": lambda path: write(path.with_name("…wav.wav"), TONE),
    f"{'x' * 200}.wav": lambda path: write(path, TONE),
}


@pytest.mark.parametrize("name", USED)
def test_odd_rates_channels_formats_and_names_are_used(tmp_path, name):
    (tmp_path / "music").mkdir()
    USED[name](tmp_path / "music" / name)
    report = run(tmp_path / "music", tmp_path / "out")
    assert (report.clips, report.unused) == (3, {})
    assert all((tmp_path / "out/train" / row["file_name"]).is_file() for row in rows_of(tmp_path / "out"))
    assert all(row["file_name"].isprintable() and row["file_name"][0] not in ".-" for row in rows_of(tmp_path / "out"))


DAMAGED = {
    "half.wav": lambda path: truncated(path, 0.6),
    "half.flac": lambda path: truncated(path, 0.6, ".flac"),
    "nan.wav": nan_inside,
    "endless.wav": lambda path: path.write_bytes(
        (content := write(path.with_name(".w.wav"), TONE).read_bytes())[:40] + b"\xff\xff\xff\xff" + content[44:]
    ),
    "flipped.mp3": garbled_mp3,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_good_of_a_damaged_file_is_used(tmp_path, name):
    (tmp_path / "music").mkdir()
    DAMAGED[name](tmp_path / "music" / name)
    report = run(tmp_path / "music", tmp_path / "out")
    assert 1 <= report.clips <= 3
    assert report.faults or name in ("endless.wav", "flipped.mp3")


def test_equal_stems_get_names_of_their_own(tmp_path):
    for name in ("a/song.wav", "b/song.flac", "b/SONG.wav"):
        write(tmp_path / "music" / name, TONE)
    run(tmp_path / "music", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len({row["file_name"].casefold() for row in rows}) == len(rows) == 9
    write(tmp_path / "music/song.wav", TONE)
    assert run(tmp_path / "music", tmp_path / "out").clips == 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.mkdir(), "holds no sound file"),
        (lambda folder: None, "does not exist"),
        (lambda folder: write(folder / "a.wav", np.zeros(5000)), "no clip came out of 1 files; 'a.wav'"),
    ],
    ids=["empty", "missing", "nothing usable"],
)
def test_without_any_clip_one_line_says_why(tmp_path, capsys, make, message):
    make(tmp_path / "music")
    assert main(["prepare", str(tmp_path / "music"), str(tmp_path / "out"), "--workers", "0"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_captions_by_priority(tmp_path):
    music = tmp_path / "music"
    for name in ("text", "listed", "deeper/listed", "tagged", "none", "csv/x", "parquet/y"):
        write(music / f"{name}.wav", TONE)
    tagged = write(music / "tagged.mp3", TONE)
    tagged.write_bytes(id3_tag({"title": "Blue", "artist": "Nina", "genre": "jazz"}) + tagged.read_bytes())
    (music / "tagged.wav").unlink()
    (music / "text.txt").write_text("by text\nor so\n\n", encoding="utf-8-sig")
    lines = [
        {"file_name": "text.wav", "text": "not this"},
        {"file_name": "listed.wav", "text": "by\u2028list"},
        {"file_name": "deeper/listed.wav", "text": "from above"},
    ]
    (music / "metadata.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    (music / "csv/metadata.csv").write_text('file_name,text\nx.wav,"by, csv"\n')
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"file_name": ["y.wav"], "text": ["by parquet"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, music / "parquet/metadata.parquet")
    run(music, tmp_path / "out", caption="all")
    captions = {row["source"]: row["captions"] for row in rows_of(tmp_path / "out")}
    assert captions == {
        "text.wav": ["all, by text", "all, or so"],
        "listed.wav": ["all, by list"],
        "deeper/listed.wav": ["all, from above"],
        "tagged.mp3": ["all, jazz, Blue by Nina"],
        "none.wav": ["all"],
        "csv/x.wav": ["all, by, csv"],
        "parquet/y.wav": ["all, by parquet"],
    }


def test_what_could_not_be_read_is_tried_again(tmp_path):
    write(tmp_path / "music/a.wav", TONE)
    whole = write(tmp_path / "b.wav", TONE)
    status = whole.stat()
    bad = tmp_path / "music/b.wav"
    bad.write_bytes(bytes(status.st_size))
    os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert list(run(tmp_path / "music", tmp_path / "out").unused) == ["b.wav"]
    bad.write_bytes(whole.read_bytes())
    os.utime(bad, ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "out/.riff-prepare/clips/.riff-0123.png").write_bytes(b"half")
    assert run(tmp_path / "music", tmp_path / "out").clips == 6
    assert not list((tmp_path / "out/.riff-prepare/clips").iterdir())


def test_captions_without_audio_and_bad_metadata_are_named(tmp_path):
    music = tmp_path / "music"
    write(music / "a.wav", TONE)
    (music / "b.txt").write_text("nothing plays me")
    (music / "metadata.jsonl").write_text('{"file_name": "gone.wav", "text": "x"}\n{broken\n{"text": "y"}\n')
    (music / "metadata.parquet").write_bytes(b"PAR1 no")
    report = run(music, tmp_path / "out")
    told = "\n".join(report.no_audio)
    assert report.clips == 3
    assert report.without_words == 3
    for part in ("b.txt", "gone.wav", "line 2: no JSON", "entry 2: no file_name", "metadata.parquet: cannot be read"):
        assert part in told


def test_hidden_files_the_data_set_and_circular_links_are_skipped(tmp_path):
    music = tmp_path / "music"
    for name in ("a.wav", ".hidden.wav", ".git/b.wav", "out/c.wav", "deep/d.wav"):
        write(music / name, TONE)
    (music / "deep/up").symlink_to(music)
    listing = list_folder(music, without=music / "out")
    assert [source.name for source in listing.sources] == ["a.wav", "deep/d.wav"]


def test_one_file_is_music_too(tmp_path):
    write(tmp_path / "music/a.wav", TONE)
    write(tmp_path / "music/b.wav", TONE)
    (tmp_path / "music/a.txt").write_text("this one")
    run(tmp_path / "music/a.wav", tmp_path / "out")
    assert {row["text"] for row in rows_of(tmp_path / "out")} == {"this one"}


def test_a_local_data_set_of_datasets_is_read_without_decoding(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    files = [str(write(tmp_path / f"{name}.wav", TONE)) for name in "ab"] + [str(tmp_path / "bad.wav")]
    Path(files[2]).write_bytes(b"no sound")
    table = datasets.Dataset.from_dict({"audio": files, "caption": ["first", "second", "third"]})
    table = table.cast_column("audio", datasets.Audio(decode=False))
    rows = [{"bytes": Path(row["audio"]["path"]).read_bytes(), "path": "same.wav"} for row in table]
    embedded = datasets.Dataset.from_dict({"audio": rows, "caption": table["caption"][:]})
    embedded = embedded.cast_column("audio", datasets.Audio(decode=False))
    for number, data in enumerate((table, embedded)):
        data.save_to_disk(tmp_path / f"saved{number}")
        assert is_data_set(tmp_path / f"saved{number}")
        report = run(tmp_path / f"saved{number}", tmp_path / f"out{number}")
        assert report.clips == 6
        assert list(report.unused.values()) == ["it is not a readable sound file; use WAV, FLAC, OGG, MP3 or AIFF"] or (
            number == 0 and len(report.unused) == 1
        )
        assert sorted({row["text"] for row in rows_of(tmp_path / f"out{number}")}) == ["first", "second"]
        assert run(tmp_path / f"saved{number}", tmp_path / f"out{number}").clips == 6
    with pytest.raises(RiffError, match="no column 'words'"):
        run(tmp_path / "saved0", tmp_path / "out2", text_column="words")


def test_shards_are_read_by_datasets_and_grow(tmp_path):
    datasets = pytest.importorskip("datasets")
    write(tmp_path / "music/a.wav", TONE)
    (tmp_path / "music/a.txt").write_text("words")
    run(tmp_path / "music", tmp_path / "plain")
    run(tmp_path / "music", tmp_path / "out", shards=True)
    assert sorted(p.name for p in (tmp_path / "out/data").iterdir()) == ["train-00000-of-00001.parquet"]
    write(tmp_path / "music/b.wav", TONE)
    report = run(tmp_path / "music", tmp_path / "out", shards=True)
    assert report.clips == 6
    assert not list((tmp_path / "out/.riff-prepare/clips").iterdir())
    table = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    assert len(table) == 6
    assert table[0]["captions"] == ["words"]
    assert table[0]["image"].size == (128, 64)
    raw = table.cast_column("image", datasets.Image(decode=False))[1]["image"]["bytes"]
    assert raw == (tmp_path / "plain/train/a-0001.png").read_bytes()


def test_folders_are_read_by_datasets_as_an_imagefolder(tmp_path):
    datasets = pytest.importorskip("datasets")
    for number in range(6):
        write(tmp_path / f"music/{number}.wav", TONE * (0.5 + 0.05 * number))
    run(tmp_path / "music", tmp_path / "out", validation=0.4)
    data = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(table) for split, table in data.items()} == {
        split: len(rows_of(tmp_path / "out", split)) for split in ("train", "validation")
    }
    assert data["train"][0]["image"].size == (128, 64)


@pytest.mark.parametrize("shards", [False, True])
def test_a_full_disk_is_one_line_and_the_next_run_continues(tmp_path, monkeypatch, shards):
    for name in "abc":
        write(tmp_path / f"music/{name}.wav", TONE)
    count, whole = [0], Path.write_bytes

    def full(self, content):
        count[0] += 1
        if count[0] == 6:
            raise OSError(28, "No space left on device")
        return whole(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemProblem, match="full"):
        run(tmp_path / "music", tmp_path / "out", shards=shards)
    monkeypatch.undo()
    monkeypatch.setattr("riff.train.data.report.SAMPLES", 0)
    assert run(tmp_path / "music", tmp_path / "out", shards=shards).clips == 9
    assert not list((tmp_path / "out").rglob(".riff-*.png"))


def test_a_shard_that_cannot_be_written_loses_no_picture(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    write(tmp_path / "music/a.wav", TONE)
    run(tmp_path / "music", tmp_path / "out", shards=True)
    write(tmp_path / "music/b.wav", TONE)
    import riff.train.data.shards as shards

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "_pack", full)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "music", tmp_path / "out", shards=True)
    monkeypatch.undo()
    monkeypatch.setattr("riff.train.data.report.SAMPLES", 0)
    assert run(tmp_path / "music", tmp_path / "out", shards=True).clips == 6


@pytest.mark.slow
def test_ten_hours_are_read_in_bounded_memory(tmp_path):
    """36000 s would be 6 GB as one float32 tensor."""
    with soundfile.SoundFile(write(tmp_path / "music/long.flac", np.zeros(1), 8000), "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(8000 * 600, dtype=np.int16))
    code = (
        "import resource, sys\nfrom riff.train.data import prepare\nfrom riff.utils.errors import RiffError\n"
        "try:\n    prepare(sys.argv[1], sys.argv[2], workers=0)\nexcept RiffError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "music"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    why, kilobytes = done.stdout.splitlines()
    assert "silent" in why
    assert int(kilobytes) < 1_300_000


def test_settings_out_of_range_are_one_line(tmp_path):
    for changes in ({"overlap": 1.0}, {"bars": 0}, {"validation": 1.5}, {"unsteady": "what"}, {"beats_per_bar": 5}):
        with pytest.raises(RiffError, match="use"):
            PrepareSettings(CONFIG, **changes)


def own_clip(path, *, bpm=69.0, bars=4, prompt="techno, hard", **fields):
    """A sound as riff writes it, with what it says of itself, but without any beat that could be measured."""
    from riff.audio.io import save_audio
    from riff.tasks.provenance import provenance, sound_tags

    samples = round(bars * 4 * 60.0 / bpm * 44100)
    noise = 0.1 * np.random.default_rng(0).normal(size=samples)
    made = provenance(prompt, model="riff-mini", seed=1, bpm=bpm, **fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_audio(path, torch.from_numpy(noise).float()[None], 44100, metadata=sound_tags(made))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_riffs_own_files_say_their_tempo_and_beats(tmp_path, suffix):
    own_clip(tmp_path / f"music/a{suffix}")
    run(tmp_path / "music", tmp_path / "out", config=CONFIG)
    rows = rows_of(tmp_path / "out")
    assert [(row["bpm"], row["start_s"]) for row in rows] == [(69.0, 0.0), (69.0, round(8 * 60 / 69, 3))]
    assert {row["text"] for row in rows} == {"techno, hard"}


def test_riffs_own_waltz_is_cut_in_bars_of_three(tmp_path):
    own_clip(tmp_path / "music/a.wav", bars=6, prompt="a waltz")
    run(tmp_path / "music", tmp_path / "out", config=CONFIG)
    assert {row["beats_per_bar"] for row in rows_of(tmp_path / "out")} == {3}


@pytest.mark.parametrize(("bars", "fields"), [(4.13, {}), (4, {"task": "remix"})], ids=["cut since", "a remix"])
def test_a_tempo_that_may_no_longer_fit_is_measured(tmp_path, bars, fields):
    from riff.train.data.sources import read_stated

    stated = read_stated(own_clip(tmp_path / "a.wav", bars=bars, **fields))
    assert (stated.bpm, stated.exact) == (69.0, False)


def test_one_bad_file_of_any_kind_never_ends_the_batch(tmp_path):
    music = tmp_path / "music"
    write(music / "good.wav", TONE)
    flac = bytearray(write(music / "vast.flac", TONE).read_bytes())
    flac[21:26] = bytes([flac[21] | 0x0F, 255, 255, 255, 255])  # 2^36 - 1 samples
    (music / "vast.flac").write_bytes(flac)
    (music / "folder.wav").mkdir()
    (music / "bomb.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\xff\xff" + b"\xff" * 40)
    report = run(music, tmp_path / "out")
    assert {row["source"] for row in rows_of(tmp_path / "out")} >= {"good.wav"}
    assert "bomb.wav" in report.unused
    assert "vast.flac" in {**report.unused, **report.faults}
