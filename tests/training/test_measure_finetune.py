"""The measurements of fine-tuning: songs, judge and report on planted clips; both sides of the speed benchmark."""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from riff.diffusion.hub import BUNDLED
from riff.music.tagger_net import Labels, TaggerNet, judge, save_net
from riff.music.theory import parse_key
from riff.prompt.vocabulary import split_known
from riff.spectrogram.config import SpectrogramConfig
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError
from training.composer.render import find_soundfont
from training.measure import finetune as finetune_judge
from training.measure import finetune as measure_finetune
from training.measure import speed as measure_training
from training.measure.finetune import (
    TRIGGER,
    WORLD,
    compare,
    examine,
    main,
    make_songs,
    teach,
    trigger_prompts,
    with_one_more,
)
from training.recipes.dataset import Clips

CONFIG = SpectrogramConfig()


def _clips(genre: str, count: int, seed: int) -> Clips:
    """Noise that is loud where its genre says."""
    rows = {"folk": slice(0, 80), "house": slice(90, 170), WORLD: slice(180, 256)}[genre]
    pictures = 0.1 * torch.rand(count, 256, 256, generator=torch.Generator().manual_seed(seed))
    pictures[:, rows] += 0.7
    truth = {"genre": genre, "instruments": ["piano"], "lead": "piano", "keyscale": "C major", "beats_per_bar": 4}
    truth |= {"seed": 1, "window": 0, "family": "", "bpm": 100.0, "mood": "happy", "density": "medium"}
    truth |= {"swing": False, "section": "full", "has_drums": True}
    return Clips((255 * pictures).to(torch.uint8), [truth] * count)


def _both(count: int, seed: int) -> Clips:
    folk, house = _clips("folk", count, seed), _clips("house", count, seed + 1)
    return Clips(torch.cat([folk.pictures, house.pictures]), [*folk.truths, *house.truths])


@pytest.fixture(scope="module")
def net() -> TaggerNet:
    torch.manual_seed(0)
    return TaggerNet(Labels(("folk", "house"), ("piano",), ("piano",)), CONFIG).eval()


@pytest.fixture(scope="module")
def taught(net: TaggerNet) -> TaggerNet:
    return teach(with_one_more(net, CONFIG), _both(20, 0), _clips(WORLD, 20, 2), steps=25)


def test_one_more_class_changes_no_other_verdict(net: TaggerNet) -> None:
    wider = with_one_more(net, CONFIG)
    assert wider.labels.genres == ("folk", "house", WORLD)
    pictures = _both(2, 5).pictures
    assert torch.equal(judge(wider, pictures).genre[:, :2], judge(net, pictures).genre)
    assert torch.equal(judge(wider, pictures).key, judge(net, pictures).key)


def test_a_taught_judge_tells_the_new_world_from_the_others(taught: TaggerNet) -> None:
    heard = examine(taught, _both(6, 10), _clips(WORLD, 6, 12))
    assert (heard["clips"], heard["classes"], heard["world_clips"]) == (18, 3, 6)
    assert heard["share"] >= 0.9 and heard["world_share"] == 1.0 and heard["others_taken_for_it"] == 0


def test_prompts_hold_the_word_alone_and_with_tempo_and_key() -> None:
    prompts = trigger_prompts("wug", 60, seed=1)
    assert prompts == trigger_prompts("wug", 60, seed=1) and prompts.count("wug") == 24
    assert all(prompt.startswith("wug") for prompt in prompts)
    assert sum("bpm" in prompt for prompt in prompts) == 24
    assert sum(parse_key(prompt) is not None for prompt in prompts) == 24


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="no bundled model here")
def test_riff_mini_does_not_know_the_made_up_word() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED / "tokenizer")
    assert split_known(f"{TRIGGER}, 120 bpm", tokenizer)[1] == [TRIGGER]


def test_a_word_riff_mini_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiffError, match="trigger 'Piano' is a word riff-mini knows"):
        make_songs(tmp_path, clips=1, trigger="Piano")
    with pytest.raises(RiffError, match="clips is 0"):
        make_songs(tmp_path, clips=0, trigger="wug")


@pytest.mark.skipif(find_soundfont() is None, reason="no soundfont")
def test_songs_are_stereo_files_with_captions_beside_them(tmp_path: Path) -> None:
    import soundfile

    pytest.importorskip("fluidsynth")
    songs = make_songs(tmp_path / "songs", clips=2, trigger="wug")
    assert [song.name for song in songs] == ["song-00.wav", "song-01.wav"]
    for song in songs:
        about = soundfile.info(song)
        assert about.samplerate == 44100 and about.channels == 2 and 64 * 60 / 150 <= about.duration <= 64 * 60 / 84
        assert song.with_suffix(".txt").read_text().startswith("wug")


def test_targets_are_met_by_the_new_world_heard_and_the_old_ones_kept() -> None:
    new = measure_finetune.Asked("new", [], [WORLD] * 10)
    others = measure_finetune.Asked("others", [], ["folk"] * 20)
    before, after = compare(new, ["folk"] * 10, [WORLD] * 8 + ["folk"] * 2)
    assert (before.value, after.value, after.met) == (0.0, 0.8, True)
    assert compare(new, ["folk"] * 10, [WORLD] * 7 + ["folk"] * 3)[1].met is False
    assert compare(others, ["folk"] * 20, ["folk"] * 19 + [WORLD])[1].met is True
    assert compare(others, ["folk"] * 20, ["folk"] * 18 + [WORLD] * 2)[1].met is False
    assert compare(others, ["house"] * 20, ["folk"] * 20)[1].met is True


class _Planted:
    """A pipeline that draws what it is asked for, and the new world only once a LoRA is on it."""

    config = CONFIG
    lora: Path | None = None

    def load_lora(self, folder: Path) -> None:
        self.lora = folder

    def __call__(self, prompts: list[str], *, seed: int, **_: object) -> argparse.Namespace:
        clips = []
        for number, prompt in enumerate(prompts):
            genre = WORLD if "wug" in prompt and self.lora else "house" if "house" in prompt else "folk"
            image = _clips(genre, 1, seed + number).picture(0)
            clips.append(Clip(torch.zeros(1, 4410), 44100, image, CONFIG, prompt, seed + number, 100.0))
        return argparse.Namespace(clips=clips)


def test_the_report_counts_before_and_after(taught, tmp_path: Path, monkeypatch, capsys) -> None:
    from riff.pipeline import RiffPipeline

    CONFIG.save(tmp_path)
    save_net(taught, tmp_path / "judge.safetensors")
    monkeypatch.setattr(RiffPipeline, "from_pretrained", lambda *_, **__: _Planted())
    monkeypatch.setattr(measure_finetune, "load_clips", lambda *_: _both(6, 20))
    monkeypatch.setattr(measure_finetune, "world_clips", lambda *_: _clips(WORLD, 6, 22))
    out = tmp_path / "finetune.json"
    given = ["--data", str(tmp_path), "--judge", str(tmp_path / "judge.safetensors"), "--out", str(out)]
    main(["report", *given, "--lora", "RUN/model", "--trigger", "wug", "--prompts", "10"])
    told = json.loads(out.read_text())
    new, others = told["rows"]
    assert (new["before"]["value"], new["after"]["value"], new["after"]["met"]) == (0.0, 1.0, True)
    assert others["before"]["value"] == others["after"]["value"] == 1.0
    assert len(told["heard"]) == 20 and {each["before"] for each in told["heard"][:10]} == {"folk"}
    assert "| 'wug' gives the new music | 0.0% (0.0%..27.8%) | 100.0%" in out.with_suffix(".md").read_text()
    assert "drop <= 5 points | yes |" in capsys.readouterr().out


def test_a_judge_of_the_thirty_and_a_report_of_nothing_are_refused(net, tmp_path: Path, capsys) -> None:
    CONFIG.save(tmp_path)
    save_net(net, tmp_path / "judge.safetensors")
    given = ["report", "--data", str(tmp_path), "--judge", str(tmp_path / "judge.safetensors"), "--out", "x.json"]
    with pytest.raises(RiffError, match="does not know 'gamelan'"):
        main([*given, "--lora", "RUN/model"])
    with pytest.raises(SystemExit):
        main(given)
    assert "needs --lora RUN/model or --full RUN/model" in capsys.readouterr().err


@pytest.mark.skipif(find_soundfont() is None, reason="no soundfont")
def test_clips_of_the_world_are_as_wide_as_the_others() -> None:
    pytest.importorskip("fluidsynth")
    clips = finetune_judge.world_clips([3], CONFIG)
    assert clips.pictures.shape == (2, 256, 256) and clips.pictures.dtype == torch.uint8
    assert [truth["genre"] for truth in clips.truths] == [WORLD] * 2


@pytest.mark.parametrize("side", measure_training.SIDES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_both_sides_of_the_benchmark_train(side, method, mini_checkpoint, mini_config, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    measure_training.write_data_set(tmp_path / "data", mini_config, clips=4)
    arguments = measure_training.parse_arguments(["--steps", "2", "--batch-size", "2", "--method", method])
    ridden = measure_training.ride(side, str(mini_checkpoint), tmp_path / "data", tmp_path / "run", arguments)
    assert all(math.isfinite(value) and value > 0 for value in ridden.values())


def test_ratios_are_those_of_rounds_taken_in_turn() -> None:
    figures = [(1.0, 1.5), (2.0, 4.0), (1.0, 2.5)]
    found = {
        side: [
            {
                "seconds": each[place],
                "processor_seconds": 2 * each[place],
                "preparing_mib": 50.0,
                "training_mib": 100.0 + 100 * place,
            }
            for each in figures
        ]
        for place, side in enumerate(measure_training.SIDES)
    }
    result = measure_training.summary(found)
    assert (result["times_as_fast"], result["memory_ratio"]) == (2.0, 0.5)
    text = measure_training.table(result, measure_training.parse_arguments([]))
    assert "2.00 times as fast" in text and "| diffusers | 0.400 | 2.500 | 5.000 | 200 | 50 |" in text
