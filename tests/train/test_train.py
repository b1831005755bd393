"""The trainer: resumable to the bit, safe against kills, and it learns."""

import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from riff.train.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from riff.train.loop import train
from riff.train.progress import advice, read_summary
from riff.train.settings import LoopSettings, NumberedLoss, generator_of, learning_rate_at, micro_batch_numbers
from riff.utils.errors import RiffError

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
    device="cpu",
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
    assert train(whole, line_loss, SETTINGS, tmp_path / "whole")
    with pytest.raises(Killed):
        train(stopped, killed_at(step, [0]), SETTINGS, tmp_path / "stopped")
    resumed = new_model()
    assert train(resumed, line_loss, SETTINGS, tmp_path / "stopped")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    ends = [load_checkpoint(tmp_path / name)[0] for name in ("whole", "stopped")]
    for group in ("model", "ema", "optimizer"):
        for name, value in ends[0].tensors[group].items():
            assert torch.equal(ends[1].tensors[group][name], value), (group, name)


def test_training_lowers_the_loss(tmp_path: Path):
    model = new_model()
    before = line_loss(model, torch.Generator().manual_seed(9))[0].detach()
    train(model, line_loss, LoopSettings(**{**SETTINGS.__dict__, "steps": 60}), tmp_path)
    after = line_loss(model, torch.Generator().manual_seed(9))[0].detach()
    assert float(after) < 0.5 * float(before)


def test_losses_that_stay_non_finite_stop_the_run_with_one_line(tmp_path: Path):
    def broken(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return model(torch.ones(1, 1)).sum() * float("nan"), {}

    with pytest.raises(RiffError, match="not finite for 20 steps"):
        train(new_model(), broken, LoopSettings(**{**SETTINGS.__dict__, "steps": 40}), tmp_path)


def test_one_non_finite_loss_is_skipped_and_leaves_the_weights_alone(tmp_path: Path):
    calls = [0]

    def once_broken(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        calls[0] += 1
        loss, figures = line_loss(model, generator)
        return (loss * float("nan") if calls[0] == 3 else loss), figures

    model = new_model()
    assert train(model, once_broken, SETTINGS, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


def small_checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((3,), float(step))}}, {"ema_step": step})


def test_a_kill_before_the_rename_leaves_the_older_checkpoint_whole(tmp_path: Path, monkeypatch):
    save_checkpoint(tmp_path, small_checkpoint(1))

    def killed(*_: object) -> None:
        raise Killed

    for point in ("save_file", "_digest", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"riff.train.checkpoints.{point}", killed)
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


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_validation_is_logged_kept_through_a_kill_and_judged_in_words(tmp_path: Path, caplog):
    settings = dataclasses.replace(SETTINGS, validation_steps=2, steps=10)
    losses = {2: 0.9, 4: 0.5, 6: 0.6, 8: 0.7, 10: 0.8}

    def scripted(start: int):
        at = iter(range(start, 12, 2))
        return lambda model: losses[next(at)]

    with pytest.raises(Killed):
        train(new_model(), killed_at(7, [0]), settings, tmp_path, validation=scripted(2))
    with caplog.at_level(logging.INFO):
        train(new_model(), line_loss, settings, tmp_path, validation=scripted(6))
    told = "validation loss was least at step 4 (0.5) and has risen since (0.8 at step 10)"
    assert any(told in record.message for record in caplog.records)
    summary = read_summary(tmp_path)
    assert summary.validation == [(step, loss) for step, loss in losses.items()]
    assert summary.advice is not None and told in summary.advice and "stop here" in summary.advice
    assert [step for step, _ in scalars(tmp_path)["validation/loss"]][-3:] == [6, 8, 10]


def test_validation_sees_the_averaged_weights_and_leaves_the_training_as_it_was(tmp_path: Path):
    seen: list[Tensor] = []

    def keep(model: nn.Module) -> float:
        seen.append(next(model.parameters()).detach().clone())
        return 1.0

    plain, watched = new_model(), new_model()
    train(plain, line_loss, SETTINGS, tmp_path / "plain")
    settings = dataclasses.replace(SETTINGS, validation_steps=3)
    train(watched, line_loss, settings, tmp_path / "watched", validation=keep)
    assert torch.equal(next(plain.parameters()), next(watched.parameters()))
    assert torch.equal(seen[-1], next(watched.parameters())) and len(seen) == 4


def test_a_preview_that_fails_leaves_the_trained_weights_not_the_averaged_ones(tmp_path: Path):
    def fails(model: nn.Module, step: int, writer: object) -> None:
        raise RiffError("no picture")

    model = new_model()
    with pytest.raises(RiffError, match="no picture"):
        train(model, line_loss, dataclasses.replace(SETTINGS, preview_steps=4), tmp_path, preview=fails)
    twin = new_model()
    train(twin, line_loss, SETTINGS, tmp_path / "twin", until=4)
    trained = load_checkpoint(tmp_path / "twin")[0].tensors["model"]
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_a_preview_that_fails_does_not_cost_a_due_checkpoint(tmp_path: Path):
    def fails(model: nn.Module, step: int, writer: object) -> None:
        raise RiffError("no picture")

    settings = dataclasses.replace(SETTINGS, preview_steps=4, checkpointing_steps=4)
    with pytest.raises(RiffError, match="no picture"):
        train(new_model(), line_loss, settings, tmp_path, preview=fails)
    assert load_checkpoint(tmp_path)[0].step == 4


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ([], None),
        ([(1, 1.0), (2, 0.9)], None),
        ([(1, 1.0), (2, 0.9), (3, 0.8)], "still falls"),
        ([(1, 1.0), (2, 0.999), (3, 0.998)], "hardly moves"),
        ([(1, 1.0), (2, 0.8), (3, 0.9), (4, 0.9)], "least at step 2 (0.8) and has risen"),
        ([(1, 1.0), (2, 0.8), (3, 0.9)], None),
        ([(1, 1.0), (2, float("nan"))], "at step 2 is not finite"),
    ],
)
def test_advice_says_what_validation_losses_mean(history: list[tuple[int, float]], words: str | None):
    told = advice(history)
    assert told is None if words is None else told is not None and words in told


def test_micro_batches_are_numbered_alike_however_a_step_is_divided():
    for step in (0, 7):
        alone = micro_batch_numbers(step, accumulation=4, processes=1)
        shared = micro_batch_numbers(step, accumulation=2, processes=2)
        assert alone == [[4 * step], [4 * step + 1], [4 * step + 2], [4 * step + 3]]
        assert shared == [[4 * step, 4 * step + 1], [4 * step + 2, 4 * step + 3]]
    numbers = [number for step in range(9) for each in micro_batch_numbers(step, 3, 2) for number in each]
    assert numbers == list(range(54))


def test_a_numbered_loss_gets_every_micro_batch_once(tmp_path: Path):
    drawn: list[tuple[int, float]] = []

    def loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        drawn.append((number, float(torch.rand(1, generator=generator))))
        return line_loss(model, generator)

    settings = dataclasses.replace(SETTINGS, gradient_accumulation_steps=3, steps=4)
    train(new_model(), NumberedLoss(loss), settings, tmp_path, until=2)
    train(new_model(), NumberedLoss(loss), settings, tmp_path)
    assert [number for number, _ in drawn] == list(range(12))
    assert all(value == float(torch.rand(1, generator=generator_of(3, number))) for number, value in drawn)


def test_accumulated_micro_batches_are_one_batch_of_their_mean_gradient(tmp_path: Path):
    def joined(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        parts = [line_loss(model, generator_of(SETTINGS.seed, 2 * number + i))[0] for i in range(2)]
        return torch.stack(parts).mean(), {}

    accumulated, whole = new_model(), new_model()
    halves = dataclasses.replace(SETTINGS, gradient_accumulation_steps=2)
    train(accumulated, line_loss, halves, tmp_path / "halves")
    train(whole, NumberedLoss(joined), SETTINGS, tmp_path / "whole")
    for one, other in zip(accumulated.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_global_random_state_is_neither_read_nor_moved(tmp_path: Path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = new_model()
    torch.set_rng_state(before)
    train(one, line_loss, SETTINGS, tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"preview_steps": 0}, "preview_steps is 0"),
        ({"mixed_precision": "fp8"}, "mixed_precision is .*; use one of no, bf16, fp16"),
        ({"lr_scheduler": "linear"}, "lr_scheduler is .*; use one of cosine, constant"),
        ({"report_to": "paper"}, "report_to is .*; use names of .*wandb"),
        ({"mixed_precision": "fp16"}, "fp16, which needs a GPU"),
        ({"use_8bit_adam": True}, "bitsandbytes"),
    ],
)
def test_settings_that_make_no_sense_or_lack_something_are_one_line(tmp_path: Path, monkeypatch, change, line: str):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(RiffError, match=line) as caught:
        train(new_model(), line_loss, dataclasses.replace(SETTINGS, **change), tmp_path)
    assert "\n" not in str(caught.value)


def test_runs_of_different_precision_follow_each_other_in_one_process(tmp_path: Path):
    for precision in ("no", "bf16", "no"):
        settings = dataclasses.replace(SETTINGS, mixed_precision=precision, steps=2)
        assert train(new_model(), line_loss, settings, tmp_path / f"{precision}-{os.urandom(2).hex()}")


def test_trackers_that_accelerate_knows_get_the_figures(tmp_path: Path, monkeypatch):
    from accelerate import tracking

    told: list[tuple[int, dict[str, float]]] = []

    class Notebook(tracking.GeneralTracker):
        name = "trackio"
        requires_logging_directory = False
        main_process_only = True

        def __init__(self, run_name: str, **_: object):
            super().__init__()

        @property
        def tracker(self):
            return self

        def start(self) -> None: ...

        def store_init_configuration(self, values: dict) -> None:
            told.append((0, values))

        def log(self, values: dict, step: int | None, **_: object) -> None:
            told.append((step or 0, values))

        def finish(self) -> None:
            told.append((-1, {}))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", Notebook)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [tracking.LoggerType.TRACKIO])
    settings = dataclasses.replace(SETTINGS, report_to="tensorboard,trackio", validation_steps=6)
    assert train(new_model(), line_loss, settings, tmp_path, validation=lambda model: 0.5)
    assert told[0][1]["learning_rate"] == 0.05 and told[-1][0] == -1
    assert (6, {"validation/loss": 0.5}) in told
    assert any(step == 12 and values.keys() >= {"loss", "lr", "steps_per_s"} for step, values in told)
    assert "loss" in scalars(tmp_path)


def test_tied_weights_are_saved_and_taken_up(tmp_path: Path):
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        with torch.no_grad():
            model[0].weight.fill_(0.5), model[0].bias.fill_(0.1), model[1].bias.fill_(0.2)
        model[1].weight = model[0].weight
        return model

    whole, halves = tied(), tied()
    train(whole, line_loss, SETTINGS, tmp_path / "whole")
    train(tied(), line_loss, SETTINGS, tmp_path / "halves", until=5)
    train(halves, line_loss, SETTINGS, tmp_path / "halves")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in halves.state_dict().items())
