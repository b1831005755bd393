"""The trainer: resumable to the bit, safe against kills, and it learns."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from riff.errors import RiffError
from riff.train.loop import LoopSettings, learning_rate_at, train
from riff.train.runs import Checkpoint, load_checkpoint, save_checkpoint

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

SETTINGS = LoopSettings(
    steps=12,
    learning_rate=0.05,
    warmup_steps=2,
    mixed_precision="no",
    checkpointing_steps=4,
    preview_steps=1000,
    seed=3,
)


def line_loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    x = torch.rand(16, 1, generator=generator)
    return (model(x) - (3 * x + 1)).pow(2).mean(), {}


def new_model() -> nn.Module:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.1)
        model.bias.fill_(0.0)
    return model


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the trainer may catch it."""


def killed_at(step: int, count: list[int]):
    def loss(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        count[0] += 1
        if count[0] == step:
            raise Killed
        return line_loss(model, generator)

    return loss


@pytest.mark.parametrize("step", [2, 5, 9, 12])
def test_killed_and_resumed_training_equals_an_uninterrupted_run_bit_for_bit(tmp_path: Path, step: int):
    whole, stopped = new_model(), new_model()
    assert train(whole, line_loss, SETTINGS, tmp_path / "whole", device="cpu")
    with pytest.raises(Killed):
        train(stopped, killed_at(step, [0]), SETTINGS, tmp_path / "stopped", device="cpu")
    resumed = new_model()
    assert train(resumed, line_loss, SETTINGS, tmp_path / "stopped", device="cpu")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    ends = [load_checkpoint(tmp_path / name)[0] for name in ("whole", "stopped")]
    for group in ("model", "ema", "optimizer"):
        for name, value in ends[0].tensors[group].items():
            assert torch.equal(ends[1].tensors[group][name], value), (group, name)


def test_training_lowers_the_loss(tmp_path: Path):
    model = new_model()
    before, _ = line_loss(model, torch.Generator().manual_seed(9))
    train(model, line_loss, LoopSettings(**{**SETTINGS.__dict__, "steps": 60}), tmp_path, device="cpu")
    after, _ = line_loss(model, torch.Generator().manual_seed(9))
    assert float(after) < 0.5 * float(before)


def test_losses_that_stay_non_finite_stop_the_run_with_one_line(tmp_path: Path):
    def broken(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return model(torch.ones(1, 1)).sum() * float("nan"), {}

    with pytest.raises(RiffError, match="not finite for 20 steps"):
        train(new_model(), broken, LoopSettings(**{**SETTINGS.__dict__, "steps": 40}), tmp_path, device="cpu")


def test_one_non_finite_loss_is_skipped_and_leaves_the_weights_alone(tmp_path: Path):
    calls = [0]

    def once_broken(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        calls[0] += 1
        loss, figures = line_loss(model, generator)
        return (loss * float("nan") if calls[0] == 3 else loss), figures

    model = new_model()
    assert train(model, once_broken, SETTINGS, tmp_path, device="cpu")
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def small_checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((3,), float(step))}}, {"ema_step": step})


def test_a_kill_before_the_rename_leaves_the_older_checkpoint_whole(tmp_path: Path, monkeypatch):
    save_checkpoint(tmp_path, small_checkpoint(1))

    def killed(*_: object) -> None:
        raise Killed

    for point in ("save_file", "_digest", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"riff.train.runs.{point}", killed)
            with pytest.raises(Killed):
                save_checkpoint(tmp_path, small_checkpoint(2))
        found, skipped = load_checkpoint(tmp_path)
        assert found is not None and found.step == 1 and not skipped


def test_a_damaged_newest_checkpoint_is_passed_over_and_reported(tmp_path: Path):
    save_checkpoint(tmp_path, small_checkpoint(1))
    newest = save_checkpoint(tmp_path, small_checkpoint(2))
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found, skipped = load_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    assert skipped == [(newest, "model.safetensors is not as it was written")]


def test_when_every_checkpoint_is_damaged_the_run_is_not_begun_anew(tmp_path: Path):
    only = save_checkpoint(tmp_path, small_checkpoint(1))
    (only / "manifest.json").write_text(json.dumps({"model.safetensors": "0"}))
    with pytest.raises(RiffError, match="every checkpoint"):
        load_checkpoint(tmp_path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, small_checkpoint(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_the_learning_rate_rises_then_falls_to_zero():
    assert learning_rate_at(0, SETTINGS) == pytest.approx(0.025)
    assert learning_rate_at(SETTINGS.steps - 1, SETTINGS) < 0.05 * SETTINGS.learning_rate
    constant = LoopSettings(**{**SETTINGS.__dict__, "lr_scheduler": "constant"})
    assert learning_rate_at(11, constant) == SETTINGS.learning_rate
