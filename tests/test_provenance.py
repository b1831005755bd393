"""Every file says how it was made, and what it says can be used to make it again."""

import random
from pathlib import Path

import pytest

import riff
from riff.provenance import provenance, read_sound_tags, sound_tags


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

    from riff.audio import read_metadata, save_audio

    made = provenance("fado à meia-noite", model="riff-mini", seed=2**62, bpm=91.5, guidance=3.0)
    sound = torch.sin(torch.arange(44100) / 20)[None] / 2
    path = save_audio(tmp_path / f"fado{suffix}", sound, 44100, metadata=sound_tags(made))
    assert read_sound_tags(read_metadata(path)) == made


def test_a_picture_keeps_its_provenance(tmp_path: Path) -> None:
    import torch

    from riff.image import read_png, write_png

    config = riff.SpectrogramConfig()
    made = provenance("fado à meia-noite", model="riff-mini", seed=2**62, bpm=91.5)
    drawn = torch.rand(1, config.n_mels, 64, generator=torch.Generator().manual_seed(0))
    write_png(tmp_path / "fado.png", drawn, config, metadata=made)
    assert read_png(tmp_path / "fado.png")[2] == made
