"""The judge and the bookkeeping around it, on planted pictures: no soundfont, no trained model."""

import argparse
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.music.tagger_net import KeyNet, Labels, TaggerNet, Verdict, judge, load_net, save_net, semitone_weights
from riff.music.theory import KEYS
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.utils.errors import ModelError, RiffError
from training.measure.riff_mini import (
    Row,
    choose_tasks,
    copy_rows,
    frechet_rows,
    genre_misses,
    genre_row,
    key_rows,
    lead_rows,
    matching_others,
    share,
    sharpness_row,
    table,
    tempo_row,
    variety_row,
)
from training.measure.sampling import Way, parse_way
from training.measure.sampling import table as ways_table
from training.recipes.dataset import Clips, load_clips
from training.recipes.tagger import augment, check, labels_of, train_classifier

CONFIG = SpectrogramConfig()


def _fields(genre: str = "house", **changes: object) -> dict[str, object]:
    return {
        "seed": 1,
        "window": 0,
        "genre": genre,
        "family": "electronic",
        "instruments": ["piano", "drums"],
        "lead": "piano",
        "bpm": 120.0,
        "keyscale": "A minor",
        "beats_per_bar": 4,
        "mood": "happy",
        "density": "medium",
        "swing": False,
        "section": "full",
        "has_drums": True,
        "captions": ["house"],
    } | changes


def _write_shard(folder: Path, name: str, pictures: np.ndarray, truths: list[dict[str, object]]) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"pictures-{name}.npy", pictures)
    (folder / f"clips-{name}.jsonl").write_text("".join(json.dumps(truth) + "\n" for truth in truths))


def test_three_four_pictures_are_followed_by_silence_and_given_back_without(tmp_path: Path) -> None:
    _write_shard(tmp_path, "4-000000", np.full((2, 256, 256), 255, np.uint8), [_fields(), _fields()])
    waltz = _fields(beats_per_bar=3)
    _write_shard(tmp_path, "3-000000", np.full((1, 256, 192), 51, np.uint8), [waltz])
    clips = load_clips(tmp_path)
    place = [truth["beats_per_bar"] for truth in clips.truths].index(3)
    assert clips.pictures.shape == (3, 256, 256)
    assert clips.pictures[place, :, 192:].max() == 0
    assert clips.picture(place).shape == (1, 256, 192)
    torch.testing.assert_close(clips.picture(place), torch.full((1, 256, 192), 0.2))
    assert len(load_clips(tmp_path, limit=1)) == 1


def test_a_missing_or_torn_dataset_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RiffError, match=r"training\.recipes\.dataset"):
        load_clips(tmp_path)
    _write_shard(tmp_path, "4-000000", np.zeros((2, 256, 256), np.uint8), [_fields()])
    with pytest.raises(RiffError, match="2 pictures and 1 truths"):
        load_clips(tmp_path)


@pytest.mark.parametrize("pitch", [50, 57, 69, 81, 90])
def test_a_tone_lights_its_own_semitone_most(pitch: int) -> None:
    time = torch.arange(44100) / 44100
    tone = 0.1 * torch.sin(2 * math.pi * 440 * 2 ** ((pitch - 69) / 12) * time)[None]
    picture = mel_to_image(waveform_to_mel(tone, CONFIG, bpm=120.0), CONFIG)[0]
    notes = (semitone_weights(CONFIG) @ picture).mean(1)
    assert int(notes.argmax()) + 36 == pitch


def test_key_net_moves_its_answer_with_the_music() -> None:
    torch.manual_seed(0)
    net = KeyNet(CONFIG).eval()
    net.semitones = torch.eye(60)
    notes = torch.rand(2, 5, 12, 16)
    here = net(notes.flatten(1, 2)).unflatten(1, (2, 12))
    up = net(notes.roll(5, dims=2).flatten(1, 2)).unflatten(1, (2, 12))
    torch.testing.assert_close(up, here.roll(5, dims=2), rtol=1e-4, atol=1e-5)


def _planted(count: int) -> Clips:
    """Two genres: bright above, or bright below."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 60, (count, 256, 256), generator=generator, dtype=torch.uint8)
    truths = []
    for index in range(count):
        genre = ("house", "folk")[index % 2]
        pictures[index, slice(0, 128) if genre == "house" else slice(128, 256)] += 120
        lead = "piano" if genre == "house" else "banjo"
        truths.append(_fields(genre, lead=lead, instruments=[lead, "drums"], keyscale=KEYS[index % 24]))
    return Clips(pictures, truths)


def test_classifier_learns_planted_genres_and_survives_its_file(tmp_path: Path) -> None:
    clips = _planted(32)
    model = train_classifier(clips, CONFIG, steps=12)
    figures = check(model, clips)
    assert figures["genre"]["share"] == 1.0  # type: ignore[index]
    assert figures["lead"]["share"] == 1.0  # type: ignore[index]
    save_net(model, tmp_path / "runs" / "judge.safetensors")
    again = load_net(tmp_path / "runs" / "judge.safetensors", CONFIG)
    assert again.labels == model.labels
    torch.testing.assert_close(judge(again, clips.pictures).key, judge(model, clips.pictures).key)


def test_a_foreign_file_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "judge.safetensors")
    with pytest.raises(ModelError, match="is not a tagger"):
        load_net(tmp_path / "judge.safetensors", CONFIG)


def test_judge_reads_uint8_floats_and_narrow_pictures_alike() -> None:
    model = TaggerNet(labels_of(_planted(4)), CONFIG).eval()
    narrow = torch.randint(0, 256, (2, 256, 192), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(narrow, (0, 64))
    torch.testing.assert_close(judge(model, narrow).genre, judge(model, padded.float() / 255).genre)


def test_training_and_augmentation_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    train_classifier(_planted(4), CONFIG, steps=2)
    varied = augment(torch.rand(2, 256, 256, generator=torch.Generator()), torch.Generator())
    torch.testing.assert_close(torch.random.get_rng_state(), before)
    assert float(varied.min()) >= 0 and float(varied.max()) <= 1


def test_tasks_cover_genres_equally_and_tempo_is_asked_only_with_drums() -> None:
    truths = [_fields(genre) for genre in ("house", "folk", "blues") for _ in range(5)]
    truths += [_fields("ambient", has_drums=False), _fields("trap", lead="", instruments=["drums"])]
    clips = Clips(torch.zeros(len(truths), 1, 1, dtype=torch.uint8), truths)
    rng = random.Random(0)
    tempo = choose_tasks(clips, "tempo", 8, rng=rng)
    assert sorted(truths[task.index]["genre"] for task in tempo) == sorted(["house", "folk", "blues", "trap"] * 2)
    assert all("120 bpm" in task.prompt for task in tempo)
    lead = choose_tasks(clips, "lead", 8, rng=rng)
    assert {truths[task.index]["genre"] for task in lead} == {"house", "folk", "blues", "ambient"}
    pairs = matching_others(clips, [*tempo, *tempo], rng=rng)
    assert all(truths[tempo[place].index]["genre"] == truths[index]["genre"] for place, index in pairs)
    assert not {task.index for task in tempo} & {index for _, index in pairs}
    assert len({index for _, index in pairs}) == len({tempo[place].index for place, _ in pairs}) == len(pairs) >= 3


def _verdict() -> tuple[Verdict, TaggerNet]:
    labels = Labels(("folk", "house"), ("banjo", "piano"), ("banjo", "piano"))
    genre = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    instruments = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    return Verdict(genre, instruments, instruments, torch.eye(24)[:3]), TaggerNet(labels, CONFIG)


def test_rows_count_what_the_judge_heard() -> None:
    verdict, model = _verdict()
    truths = [_fields("house"), _fields("house"), _fields("house")]
    row = genre_row("genre", verdict, model, truths, 0.6)
    assert (row.value, row.clips, row.met) == (pytest.approx(2 / 3), 3, True)
    assert row.low < row.value < row.high
    assert genre_misses(verdict, model, truths) == [("house", "folk", 1)]
    named, sounding = lead_rows("generated", verdict, model, truths)
    assert (named.value, named.met) == (pytest.approx(1 / 3), False)
    assert sounding.value == pytest.approx(2 / 3)


def test_tempo_and_key_of_silence_are_misses_not_crashes() -> None:
    verdict, _ = _verdict()
    silence = [torch.zeros(1, 88200)] * 3
    assert tempo_row("generated", silence, 44100, [120.0] * 3).value == 0.0
    truths = [_fields(keyscale="C major")] * 3
    rows = {row.name: row.value for row in key_rows("generated", silence, 44100, verdict, truths)}
    assert rows["generated: key by chroma"] == 0.0
    assert rows["generated: key by classifier"] == pytest.approx(1 / 3)


def test_likeness_rows_pass_for_real_pictures_and_fail_for_blurred_or_copied_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(40, 1, 256, 256, generator=generator)
    real, others, drawn = pictures[:12], pictures[12:24], pictures[24:36]
    blurred = torch.nn.functional.avg_pool2d(drawn, 3, 1, 1)
    assert sharpness_row(list(drawn), list(real)).met is True
    assert sharpness_row(list(blurred), list(real)).met is False
    assert frechet_rows(list(drawn), list(real), list(others))[-1].value == pytest.approx(1.0, abs=0.5)
    assert frechet_rows(list(0.5 * drawn), list(real), list(others))[-1].met is False
    train = Clips((pictures[:24, 0] * 255).to(torch.uint8), [_fields()] * 24)
    held_out = Clips((pictures[36:, 0] * 255).to(torch.uint8), [_fields()] * 4)
    assert copy_rows(list(drawn), train, held_out)[0].met is True
    assert copy_rows([*drawn, pictures[3]], train, held_out)[0].value == 1
    assert variety_row(list(real), list(drawn)).met is True
    assert variety_row(list(real), list(real)).met is False


def test_table_shows_missed_targets() -> None:
    text = table([share("genre", [True, False], at_least=0.9), Row("plain", 1.5, 3)])
    assert "| genre | 0.500 | 0.095..0.905 | 2 | >= 90% | NO |" in text
    assert text.endswith("| plain | 1.500 |  | 3 |  |  |")


def test_ways_to_draw_are_read_and_laid_out_in_one_row_each() -> None:
    way = parse_way("dpm++:12:2.5:0.1:0.5")
    assert way == Way("dpm++", 12, 2.5, (0.1, 0.5))
    lines = ways_table({way: [Row(name, 0.5, 8) for name in "abcdef"]}).splitlines()
    assert lines[2].startswith("| dpm++ | 12 | 2.5 | 10% to 50% | 0.50 |")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("text", ["ddim", "ddim:20:1.8:0", "ddim:x:1:0:1", "ddim:20:1.8:0:1:2"])
def test_a_way_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="SCHEDULER:STEPS"):
        parse_way(text)
