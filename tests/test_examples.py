"""The examples and the notebook run as they stand."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import soundfile
import torch

import riff

ROOT = Path(__file__).parent.parent


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


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch):
    whole = riff.RiffPipeline.__call__

    def one_step(self, *arguments, **options):
        return whole(self, *arguments, num_inference_steps=1, **options)

    monkeypatch.setattr(riff.RiffPipeline, "__call__", one_step)
    monkeypatch.chdir(tmp_path)
    shown: list[object] = []
    names = {"display": shown.append}
    notebook = json.loads((ROOT / "notebooks" / "first_steps.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(shown) == 2
    assert "<audio" in shown[0]._repr_html_()  # type: ignore[attr-defined]
    assert (tmp_path / "jazz.flac").exists() and (tmp_path / "jazz.png").exists()
