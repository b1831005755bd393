"""Compiling on request: the same picture, sooner; and one line where it cannot be."""

import shutil
from pathlib import Path

import pytest
import torch

from riff import RiffPipeline
from riff.apps.cli import main
from riff.tasks.provenance import read_recipe
from riff.utils.errors import SystemProblem

QUICK = {"num_inference_steps": 2, "quality": "fast"}


def test_without_a_compiler_it_is_one_line_and_nothing_is_written(
    mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    with pytest.raises(SystemProblem, match="install g"):
        pipe.compile()
    assert not pipe.compiled
    made = tmp_path / "a.wav"
    told = ["--model", str(mini_checkpoint), "--device", "cpu", "--compile", "-o", str(made)]
    assert main(["render", "techno", *told]) == 5
    assert capsys.readouterr().err.count("\n") == 1
    assert not made.exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_draws_the_same_picture_and_says_that_it_did(mini_checkpoint: Path, tmp_path: Path) -> None:
    plain = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    compiled = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu").compile()
    before, after = (pipe("techno, 120 bpm", seed=1, **QUICK).clips[0] for pipe in (plain, compiled))
    torch.testing.assert_close(after.image, before.image, rtol=1e-3, atol=1e-4)
    assert set(compiled.components.unet.state_dict()) == set(plain.components.unet.state_dict())
    assert read_recipe(after.save(tmp_path / "after.wav")).compiled
    assert not read_recipe(before.save(tmp_path / "before.wav")).compiled
