"""The examples run as they stand."""

import importlib.util
from pathlib import Path
from types import ModuleType

import soundfile
import torch

import riff

ROOT = Path(__file__).parents[2]


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_clip_writes_two_sounds_and_a_picture(tmp_path: Path):
    paths = load_example("first_clip").main(str(tmp_path), steps=1)
    assert [path.name for path in paths] == ["first.wav", "first.png", "second.wav"]
    assert soundfile.info(paths[0]).frames == round(8 * 60 / 84 * 44100)


def test_a_sound_becomes_a_picture_and_a_sound_of_its_length(tmp_path: Path):
    sound = tmp_path / "in.wav"
    time = torch.arange(44100) / 44100
    soundfile.write(sound, (0.3 * torch.sin(2 * torch.pi * 440 * time)).numpy(), 44100)
    picture, again = load_example("sound_to_picture_and_back").main(str(sound), str(tmp_path))
    assert picture.exists()
    assert soundfile.info(again).frames == 44100


def test_walk_writes_a_walk_its_picture_and_a_loop_of_whole_bars(tmp_path: Path):
    paths = load_example("walk").main(str(tmp_path), steps=1, bars_per_step=3)
    assert [path.name for path in paths] == ["walk.wav", "walk.png", "round.wav"]
    assert soundfile.info(paths[2]).frames == round(6 * 4 * 60 / 110 * 44100)


def test_a_recording_is_remixed_made_longer_and_filled(tmp_path: Path):
    beat = 22050
    time = torch.arange(4 * 4 * beat) / 44100
    soundfile.write(tmp_path / "in.wav", (0.3 * torch.sin(880 * torch.pi * (time % 0.5))).numpy(), 44100)
    paths = load_example("edit_a_recording").main(str(tmp_path / "in.wav"), str(tmp_path), bpm=120.0, steps=1)
    assert [path.name for path in paths] == ["remix.wav", "longer.wav", "filled.wav", "bass.wav"]
    remixed, longer, filled, bass = (soundfile.info(path).frames for path in paths)
    assert remixed == filled == bass == 16 * beat
    assert longer > 7 * 4 * beat


def test_the_song_is_a_minute_long_and_can_be_drawn(tmp_path: Path, mini_checkpoint: Path):
    """With a tiny model, whose columns are wider; the bundled one needs as long as the song lasts."""
    pipe = riff.RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    clip = pipe.render(ROOT / "examples" / "song.yaml", num_inference_steps=1, quality="fast")
    assert 55 < clip.duration < 65
    assert clip.seed == 7
    assert clip.tempo is not None and clip.image.shape[-1] == 28 * 4 * pipe.config.frames_per_beat
    assert clip.save(tmp_path / "song.wav").exists()


def test_the_bundled_model_knows_every_word_of_the_song():
    from riff.prompt.syntax import parse_weights

    model = riff.RiffPipeline.from_pretrained(device="cpu").model
    for frame in riff.Timeline.load(ROOT / "examples" / "song.yaml").keyframes:
        for text in (frame.prompt, frame.negative_prompt):
            assert model.prompts.known(parse_weights(text))[1] == []
