"""Every file says how it was made, and what it says can be used to make it again."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import riff
from riff.tasks.provenance import provenance, read_sound_tags, sound_tags


def test_every_field_is_text_and_says_machine_made_by_which_riff() -> None:
    made = provenance("jazz", model="riff-mini", seed=7, bpm=84.0, steps=20, guidance=4.5, scheduler="DDIMScheduler")
    assert made == {
        "software": f"riff {riff.__version__}",
        "origin": "machine-made",
        "model": "riff-mini",
        "prompt": "jazz",
        "seed": "7",
        "bpm": "84",
        "steps": "20",
        "guidance": "4.5",
        "scheduler": "DDIMScheduler",
    }


def test_what_was_not_asked_for_is_left_out_but_zero_is_kept() -> None:
    made = provenance("jazz", model="riff-mini", seed=0, guidance=0.0, negative_prompt="", keyscale=None)
    assert made["seed"] == made["guidance"] == "0"
    assert not {"negative_prompt", "keyscale", "bpm", "bars", "duration"} & set(made)


def test_numbers_read_back_exactly() -> None:
    draw = random.Random(0)
    for _ in range(200):
        bpm, seed = draw.uniform(20, 300), draw.randrange(2**63)
        made = provenance("x", model="m", bpm=bpm, seed=seed, duration=bpm / 7)
        assert (float(made["bpm"]), int(made["seed"]), float(made["duration"])) == (bpm, seed, bpm / 7)


@pytest.mark.parametrize(
    "prompt", ["jazz", "古代の賛美歌 🎹", 'say "hi"\nand\\bye', "a\0b", "x" * 5000, "{}", "\ud800 half"]
)
def test_sound_tags_carry_any_prompt_there_and_back(prompt: str) -> None:
    made = provenance(prompt, model="riff-mini", seed=3, negative_prompt="noise")
    tags = sound_tags(made)
    assert set(tags) == {"title", "software", "comment", "source_type"}
    assert tags["comment"].isascii()
    assert read_sound_tags(tags) == made


def test_the_title_is_one_short_printable_line() -> None:
    title = sound_tags(provenance("slow\n\tjazz\0 " + "la " * 500, model="m"))["title"]
    assert title.startswith("slow jazz la la")
    assert len(title) <= 200
    assert title.isprintable()


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "made with love",
        "[1, 2]",
        "7",
        '"riff 1"',
        '{"software": "Audacity"}',
        "{" * 10**5,
        "[" * 10**5,
        "null",
    ],
)
def test_the_comment_of_a_stranger_is_no_provenance(comment: str) -> None:
    assert read_sound_tags({"comment": comment}) == {}
    assert read_sound_tags({}) == {}


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_sound_file_keeps_its_provenance(tmp_path: Path, suffix: str) -> None:
    import torch

    from riff.audio.io import read_metadata, save_audio

    made = provenance("fado à meia-noite", model="riff-mini", seed=2**62, bpm=91.5, guidance=3.0)
    sound = torch.sin(torch.arange(44100) / 20)[None] / 2
    path = save_audio(tmp_path / f"fado{suffix}", sound, 44100, metadata=sound_tags(made))
    assert read_sound_tags(read_metadata(path)) == made


def test_a_picture_keeps_its_provenance(tmp_path: Path) -> None:
    import torch

    from riff.spectrogram.png import read_png, write_png

    config = riff.SpectrogramConfig()
    made = provenance("fado à meia-noite", model="riff-mini", seed=2**62, bpm=91.5)
    drawn = torch.rand(1, config.n_mels, 64, generator=torch.Generator().manual_seed(0))
    write_png(tmp_path / "fado.png", drawn, config, metadata=made)
    assert read_png(tmp_path / "fado.png")[2] == made


MARK = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_other_software_finds_prompt_recipe_and_mark_in_the_standard_places(tmp_path: Path, suffix: str) -> None:
    import mutagen
    import torch

    from riff.audio.io import save_audio

    made = provenance("fado à meia-noite", model="riff-mini", seed=1)
    path = save_audio(tmp_path / f"a{suffix}", torch.zeros(1, 8000), 8000, metadata=sound_tags(made))
    tags = mutagen.File(path).tags
    if suffix in (".flac", ".ogg"):
        found = {name: tags[name][0] for name in ("title", "comment", "software", "digitalsourcetype")}
    else:
        found = {
            "title": tags["TIT2"].text[0],
            "comment": tags.getall("COMM")[0].text[0],
            "software": tags["TSSE"].text[0],
            "digitalsourcetype": tags["TXXX:digitalSourceType"].text[0],
        }
        assert MARK.encode() in tags.getall("PRIV:XMP")[0].data
    assert found == {
        "title": "fado à meia-noite",
        "comment": json.dumps(made),
        "software": f"riff {riff.__version__}",
        "digitalsourcetype": MARK,
    }
    if suffix == ".wav":
        content = path.read_bytes()
        for chunk in (b"LIST", b"id3 ", b"_PMX", b"ISRF"):
            assert chunk in content


def test_other_software_finds_prompt_and_mark_in_a_picture(tmp_path: Path) -> None:
    import PIL.Image
    import torch

    from riff.spectrogram.png import write_png

    made = provenance("fado à meia-noite\0", model="riff-mini", seed=1)
    config = riff.SpectrogramConfig(n_mels=32)
    path = write_png(tmp_path / "a.png", torch.zeros(1, 32, 64), config, metadata=made)
    with PIL.Image.open(path) as picture:
        assert picture.text["Description"] == "fado à meia-noite"
        assert picture.text["Software"] == f"riff {riff.__version__}"
        assert f"<Iptc4xmpExt:DigitalSourceType>{MARK}</" in picture.text["XML:com.adobe.xmp"]
    plain = write_png(tmp_path / "b.png", torch.zeros(1, 32, 64), config)
    assert MARK.encode() not in plain.read_bytes()


def test_another_process_at_another_time_writes_the_same_bytes(tmp_path: Path) -> None:
    """libsndfile's serial number of an OGG file and time stamp of a float WAV are drawn from the clock."""
    code = """
import sys, torch
from riff.audio.io import save_audio
sound = torch.sin(torch.arange(20000) / 20)[None] / 2
for suffix in ("wav", "flac", "ogg", "mp3"):
    save_audio(f"{sys.argv[1]}.{suffix}", sound, 44100, metadata={"title": "é", "source_type": "x"})
    save_audio(f"{sys.argv[1]}-bare.{suffix}", sound, 44100)
save_audio(f"{sys.argv[1]}-float.wav", sound, 44100, subtype="FLOAT")
"""
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
        time.sleep(1.0)
    for path in sorted(tmp_path.glob("a*")):
        assert path.read_bytes() == (tmp_path / f"b{path.name[1:]}").read_bytes(), path.name
    assert len(list(tmp_path.glob("a*"))) == 9
