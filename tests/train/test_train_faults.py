"""Training is killed, starved of disk, interrupted and fed nonsense; nothing good is lost and the bits stay the same.

Kills are real: a child process is forked that sends itself SIGKILL, so no cleanup of any kind runs in it.
"""

import dataclasses
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from riff.train import checkpoints as runs
from riff.train.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, sole_trainer
from riff.train.loop import StopFlag, train
from riff.train.progress import MAX_BAD_STEPS, WINDOW, read_summary
from riff.train.settings import LoopSettings, NumberedLoss
from riff.utils.errors import ModelError, RiffError, SystemProblem

resource = pytest.importorskip("resource")
pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

SETTINGS = LoopSettings(
    steps=10,
    learning_rate=0.05,
    warmup_steps=2,
    mixed_precision="no",
    checkpointing_steps=3,
    validation_steps=4,
    seed=3,
    device="cpu",
    gradient_accumulation_steps=2,
)
POINTS = torch.linspace(-1, 1, 14)[:, None]
PER_EPOCH = 7


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill, unlike a power cut, loses nothing that the kernel has; flushing would be nine tenths of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def epoch_loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
    """Two of 14 points, each once an epoch of seven micro-batches; an epoch never ends where a checkpoint is."""
    epoch, place = divmod(number, PER_EPOCH)
    order = torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(epoch))
    x = POINTS[order[2 * place : 2 * place + 2]]
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return (model(x) - (3 * x + 1 + noise)).pow(2).mean(), {}


LOSS = NumberedLoss(epoch_loss, describe=lambda number: f"clip{number}.png")


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


def distance(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(POINTS) - (3 * POINTS + 1)).pow(2).mean())


def whole_training(run: Path, settings: LoopSettings = SETTINGS) -> bool:
    return train(new_model(), LOSS, settings, run, validation=distance)


def in_child(action: Callable[[], object]) -> int:
    """Run it in a forked process; its return code, negative for a signal as in subprocess."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            action()
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemProblem:
            code = 5
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_operation(n: int, action: Callable[[], None]) -> Callable[[str], None]:
    """Acts at the n-th file operation, counted from 1."""
    count = [0]

    def operation(name: str) -> None:
        count[0] += 1
        if count[0] == n:
            action()

    return operation


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch(patch: pytest.MonkeyPatch, before: Callable[[str], object]) -> None:
    """Call ``before`` with a name right before every file operation of a save."""
    replace, rmtree, sync = os.replace, shutil.rmtree, runs._sync

    def watched_replace(source: Path | str, target: Path | str) -> None:
        name = Path(target).name
        kind = "publish" if name.startswith("step-") and ".tmp-" not in name else "write"
        if name.endswith("-old"):
            kind = "set aside" if name.startswith(("step-00000003",)) else "retire"
        before(f"{kind} {name}")
        replace(source, target)

    def watched_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            before(f"delete {path.name}")
        rmtree(path, ignore_errors=ignore_errors)

    def watched_sync(path: Path) -> None:
        before(f"flush {path.name}")
        sync(path)

    patch.setattr(os, "replace", watched_replace)
    patch.setattr(runs.shutil, "rmtree", watched_rmtree)
    patch.setattr(runs, "_sync", watched_sync)


def operations_of(action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    with monkeypatch.context() as patch:
        watch(patch, names.append)
        action()
    return names


def assert_same(one: Path, other: Path) -> None:
    """The last checkpoints of two runs agree in every bit, and in what they know of the run."""
    ends = [load_checkpoint(run)[0] for run in (one, other)]
    assert ends[0] is not None and ends[1] is not None
    assert ends[0].step == ends[1].step and ends[0].state == ends[1].state
    assert ends[0].tensors.keys() == ends[1].tensors.keys() == {"model", "ema", "optimizer"}
    for group, tensors in ends[0].tensors.items():
        assert tensors.keys() == ends[1].tensors[group].keys()
        for name, value in tensors.items():
            assert torch.equal(ends[1].tensors[group][name], value), (group, name)


def small_checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"model": {"w": torch.full((3,), float(step))}, "ema": {"0": torch.ones(2)}}, {"a": step})


def prepared_run(run: Path) -> None:
    """Two good checkpoints and, at the step to be saved, a damaged one that was passed over."""
    for step in (1, 2, 3):
        save_checkpoint(run, small_checkpoint(step), keep=3)
    (run / "step-00000003" / "manifest.json").write_text("{")


def test_a_save_killed_anywhere_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch):
    prepared_run(tmp_path / "count")
    names = operations_of(lambda: save_checkpoint(tmp_path / "count", small_checkpoint(3)), monkeypatch)
    assert len(names) >= 10 and any("set aside" in name for name in names) and any("delete" in name for name in names)
    for n, name in enumerate(names, start=1):
        run = tmp_path / str(n)
        prepared_run(run)
        with monkeypatch.context() as patch:
            watch(patch, at_operation(n, kill))
            assert in_child(lambda run=run: save_checkpoint(run, small_checkpoint(3))) == -signal.SIGKILL, name
        found, _ = load_checkpoint(run)
        published = n > names.index("publish step-00000003") + 1
        assert found is not None and found.step == (3 if published else 2), name
        assert torch.equal(found.tensors["model"]["w"], torch.full((3,), float(found.step)))
        with sole_trainer(run):
            assert not list(run.glob("*.tmp-*")), name
        save_checkpoint(run, small_checkpoint(3))
        assert load_checkpoint(run)[0].step == 3 and load_checkpoint(run)[1] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_an_error_at_any_file_operation_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch, number: int):
    prepared_run(tmp_path / "count")
    every = operations_of(lambda: save_checkpoint(tmp_path / "count", small_checkpoint(3)), monkeypatch)
    # A folder that cannot be deleted is left, and no error.
    names = [name for name in every if not name.startswith("delete")]

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for name in names:
        n = every.index(name) + 1
        run = tmp_path / str(n)
        prepared_run(run)
        with monkeypatch.context() as patch:
            watch(patch, at_operation(n, fail))
            with pytest.raises(SystemProblem, match=r"step 3 is not saved.*whole") as caught:
                save_checkpoint(run, small_checkpoint(3))
        assert "\n" not in str(caught.value) and caught.value.exit_code == 5
        found, _ = load_checkpoint(run)
        assert found is not None and found.step in (2, 3), name
        assert not [path for path in run.glob("*.tmp-*") if not path.name.endswith("-old")], name


def test_training_killed_at_every_file_operation_ends_with_the_same_bits(tmp_path: Path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, steps=5, checkpointing_steps=2)
    names = operations_of(lambda: whole_training(tmp_path / "whole", settings), monkeypatch)
    assert (
        sum(name.startswith("publish") for name in names) == 3 and sum(name.startswith("delete") for name in names) == 1
    )
    for n in range(1, len(names) + 1):
        run = tmp_path / str(n)
        with monkeypatch.context() as patch:
            watch(patch, at_operation(n, kill))
            assert in_child(lambda run=run: whole_training(run, settings)) == -signal.SIGKILL, names[n - 1]
        whole_training(run, settings)
        assert_same(tmp_path / "whole", run)


@pytest.mark.parametrize(("kills", "steps"), [(12, 40), pytest.param(200, 2000, marks=pytest.mark.slow)])
def test_training_killed_over_and_over_ends_with_the_same_bits(tmp_path: Path, kills: int, steps: int):
    settings = dataclasses.replace(SETTINGS, steps=steps)
    whole_training(tmp_path / "whole", settings)
    delays = torch.rand(kills, generator=torch.Generator().manual_seed(1)).mul(0.25).tolist()
    for delay in delays:
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            train(new_model(), LOSS, settings, tmp_path / "killed", validation=distance)
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    whole_training(tmp_path / "killed", settings)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_full_disk_while_saving_is_exit_code_5_and_resumable(tmp_path: Path):
    def starved() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
        save_checkpoint(tmp_path / "run", Checkpoint(2, {"model": {"w": torch.zeros(1000)}}, {}))

    save_checkpoint(tmp_path / "run", small_checkpoint(1))
    assert in_child(starved) == 5
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "run")[0].step == 1


@pytest.mark.parametrize("limit", [1, 40, 300, 600, 900])
def test_a_disk_that_fills_up_is_one_line_and_resumable(tmp_path: Path, limit: int):
    def starved() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        whole_training(tmp_path / "run")

    assert in_child(starved) == 5
    assert not list((tmp_path / "run").glob("*.tmp-*"))
    whole_training(tmp_path / "run")
    whole_training(tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


SCRIPT = """
import sys, time, warnings
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.train.test_train_faults import *
torch.set_num_threads(1)

def slow(model, generator, number):
    Path({ready!r}).touch()
    time.sleep(0.05)
    return epoch_loss(model, generator, number)

finished = train(new_model(), NumberedLoss(slow), SETTINGS, Path({run!r}), validation=distance)
raise SystemExit(0 if finished else 130)
"""


def started(run: Path, ready: Path) -> subprocess.Popen:
    """A real process that trains slowly, past its first micro-batch."""
    code = SCRIPT.format(tests=str(Path(__file__).parents[2]), ready=str(ready), run=str(run))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.01)
    return process


def test_sigterm_saves_at_the_step_and_resuming_gives_the_same_bits(tmp_path: Path):
    process = started(tmp_path / "run", tmp_path / "ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    summary = read_summary(tmp_path / "run")
    assert summary.signal == "SIGTERM" and 1 <= summary.step < SETTINGS.steps == summary.steps
    assert load_checkpoint(tmp_path / "run")[0].step == summary.step
    whole_training(tmp_path / "whole")
    whole_training(tmp_path / "run")
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert read_summary(tmp_path / "run").signal is None


def forked_training(run: Path, ready: Path, asked: list[int]) -> int:
    """Train in a child whose first micro-batch lasts until all the signals have come; its return code."""

    def held(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if not ready.exists():
            ready.touch()
            for _ in range(100):
                time.sleep(0.02)
        return epoch_loss(model, generator, 0)

    child = os.fork()
    if child == 0:
        code = 70
        try:
            torch.set_num_threads(1)
            code = 0 if train(new_model(), held, SETTINGS, run) else 99
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    while not ready.exists():
        time.sleep(0.01)
    for number in asked:
        os.kill(child, number)
        time.sleep(0.1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ([signal.SIGINT], 99),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGINT], 130),
        ([signal.SIGINT, signal.SIGTERM], -signal.SIGTERM),
    ],
    ids=["one is clean", "two leave", "the second may be another", "sigterm second"],
)
def test_the_first_signal_saves_and_a_second_one_leaves_at_once(tmp_path: Path, asked: list[int], code: int):
    began = time.monotonic()
    assert forked_training(tmp_path / "run", tmp_path / "ready", asked) == code
    if len(asked) == 1:
        assert read_summary(tmp_path / "run").step == 1 and load_checkpoint(tmp_path / "run")[0].step == 1
    else:
        assert time.monotonic() - began < 1.9  # the micro-batch itself takes two seconds
        assert load_checkpoint(tmp_path / "run") == (None, [])


def test_what_a_launcher_echoes_right_after_a_signal_is_no_second_one():
    with StopFlag(launched=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGINT


def test_a_second_trainer_is_refused_until_the_first_is_gone(tmp_path: Path):
    with sole_trainer(tmp_path), pytest.raises(RiffError, match=rf"another training \(process {os.getpid()}\)"):
        whole_training(tmp_path)

    def hold_and_die() -> None:
        with sole_trainer(tmp_path):
            kill()

    assert in_child(hold_and_die) == -signal.SIGKILL
    assert whole_training(tmp_path)


def test_drafts_of_dead_processes_are_cleared_and_others_kept(tmp_path: Path):
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    for owner in (dead, os.getppid()):
        (tmp_path / f"step-00000004.tmp-{owner}").mkdir()
    (tmp_path / ".riff-abc.json").touch()
    with sole_trainer(tmp_path):
        assert [path.name for path in tmp_path.glob("*tmp*")] == [f"step-00000004.tmp-{os.getppid()}"]
        assert not (tmp_path / ".riff-abc.json").exists()


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemProblem, match="cannot train in"):
        whole_training(tmp_path / "file" / "run")


def test_resuming_with_other_settings_names_changes_and_needs_permission(tmp_path: Path):
    def go(settings: LoopSettings, batch_size: int) -> bool:
        facts = {"batch_size": batch_size, "sizes": (1, 2)}
        return train(new_model(), LOSS, settings, tmp_path, recipe=facts, until=None)

    assert go(SETTINGS, 2)
    longer = dataclasses.replace(SETTINGS, steps=12, checkpointing_steps=5, preview_steps=7, validation_steps=9)
    assert go(longer, 2)
    other = dataclasses.replace(longer, steps=14, learning_rate=0.02)
    with pytest.raises(RiffError, match=r"learning_rate: 0.05 -> 0.02; batch_size: 2 -> 3"):
        go(other, 3)
    assert load_checkpoint(tmp_path)[0].step == 12
    assert go(dataclasses.replace(other, allow_changes=True), 3)
    assert load_checkpoint(tmp_path)[0].step == 14


def test_checkpoints_of_another_model_are_refused(tmp_path: Path):
    assert whole_training(tmp_path)
    wider = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
    with pytest.raises(RiffError, match=r"another model \(0\.weight differs"):
        train(wider, LOSS, SETTINGS, tmp_path)


def half_frozen() -> nn.Module:
    model = new_model()
    model[0].requires_grad_(False)
    return model


def test_frozen_weights_are_not_saved_but_known_again(tmp_path: Path):
    settings = dataclasses.replace(SETTINGS, steps=4)
    assert train(half_frozen(), LOSS, settings, tmp_path)
    assert set(load_checkpoint(tmp_path)[0].tensors["model"]) == {"2.weight", "2.bias"}
    longer = dataclasses.replace(settings, steps=6)
    changed = half_frozen()
    with torch.no_grad():
        changed[0].bias.add_(1.0)
    with pytest.raises(RiffError, match="frozen_weights"):
        train(changed, LOSS, longer, tmp_path)
    assert train(half_frozen(), LOSS, longer, tmp_path)


def test_a_checkpoint_of_the_first_riff_is_resumed(tmp_path: Path):
    assert whole_training(tmp_path)
    newest = load_checkpoint(tmp_path)[0]
    old = dataclasses.replace(newest, state={"ema_step": newest.state["ema_step"]})
    save_checkpoint(tmp_path, old)
    assert whole_training(tmp_path, dataclasses.replace(SETTINGS, steps=12))


def test_damaged_checkpoints_are_never_a_reason_to_delete_a_good_one(tmp_path: Path):
    for step in (4, 5):
        folder = save_checkpoint(tmp_path, small_checkpoint(step))
        (folder / "state.json").unlink()
    save_checkpoint(tmp_path, small_checkpoint(1))
    save_checkpoint(tmp_path, small_checkpoint(2))
    found, passed = load_checkpoint(tmp_path)
    assert found is not None and found.step == 2
    assert [(path.name, why) for path, why in passed] == [
        ("step-00000005", "state.json is missing"),
        ("step-00000004", "state.json is missing"),
    ]


def broken_from(step: int, factor: float) -> NumberedLoss:
    def loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        x = torch.rand(8, 1, generator=generator)
        value = (model(x) * 0.0 + 1.0).pow(2).mean()
        return value * (factor if number >= 2 * step else 1.0), {}

    return NumberedLoss(loss, describe=lambda number: f"clip{number}.png")


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_breaks_names_step_clips_and_last_checkpoint(tmp_path: Path, factor: float):
    settings = dataclasses.replace(SETTINGS, steps=60, lr_scheduler="constant")
    with pytest.raises(ModelError) as caught:
        train(new_model(), broken_from(7, factor), settings, tmp_path)
    step = 7 + MAX_BAD_STEPS - 1
    for words in (
        f"the loss was not finite for 20 steps in a row (step {step}, learning rate 0.05, ",
        f"batch of clip{2 * step}.png; clip{2 * step + 1}.png)",
        f"the last good checkpoint is {tmp_path / 'step-00000024'}",
    ):
        assert words in str(caught.value)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    found, passed = load_checkpoint(tmp_path)
    assert found is not None and not passed
    assert all(bool(torch.isfinite(value).all()) for group in found.tensors.values() for value in group.values())


def test_a_gradient_that_is_not_finite_is_skipped_like_such_a_loss(tmp_path: Path):
    def loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        value, _ = epoch_loss(model, generator, number)
        if number == 5:  # the root of nothing: 0, with an infinite slope
            value = value + (model[0].weight.sum() * 0.0).sqrt()
        return value, {}

    model = new_model()
    assert train(model, NumberedLoss(loss), SETTINGS, tmp_path)
    assert all(bool(torch.isfinite(value).all()) for value in model.parameters())
    assert load_checkpoint(tmp_path)[0].state["ema_step"] == SETTINGS.steps - 1


def test_a_loss_that_jumps_warns_once_and_stops_if_it_stays(tmp_path: Path, caplog):
    settings = dataclasses.replace(SETTINGS, steps=200, checkpointing_steps=50)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ModelError, match="jumped from 1 to 50 and stayed there for 20"),
    ):
        train(new_model(), broken_from(WINDOW + 10, 50.0), settings, tmp_path)
    assert sum("the loss jumped from 1 to 50" in record.message for record in caplog.records) == 1


def test_the_count_of_bad_steps_outlives_a_stop(tmp_path: Path):
    settings = dataclasses.replace(SETTINGS, steps=60)
    assert train(new_model(), broken_from(7, float("nan")), settings, tmp_path, until=20)
    assert load_checkpoint(tmp_path)[0].state["health"]["bad"] == 13
    with pytest.raises(ModelError, match=f"step {7 + MAX_BAD_STEPS - 1},"):
        train(new_model(), broken_from(7, float("nan")), settings, tmp_path)


def test_the_same_run_under_another_version_of_the_json_is_still_whole(tmp_path: Path):
    folder = save_checkpoint(tmp_path, small_checkpoint(1))
    for text in ("[]", "{}", json.dumps({"../x": "0", "state.json": "0"}), "\x00"):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ModelError, match="every checkpoint"):
            load_checkpoint(tmp_path)


def test_8_bit_adam_goes_on_to_the_same_bits(tmp_path: Path):
    pytest.importorskip("bitsandbytes")

    def wide() -> nn.Module:
        torch.manual_seed(0)  # matrices below 4096 numbers stay in 32 bits
        return nn.Sequential(nn.Linear(1, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 1))

    settings = dataclasses.replace(SETTINGS, use_8bit_adam=True, learning_rate=1e-3)
    assert train(wide(), LOSS, settings, tmp_path / "whole")
    for until in (5, None):
        assert train(wide(), LOSS, settings, tmp_path / "halves", until=until)
    kinds = {value.dtype for value in load_checkpoint(tmp_path / "whole")[0].tensors["optimizer"].values()}
    assert torch.uint8 in kinds
    assert_same(tmp_path / "whole", tmp_path / "halves")


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated", "one bit flipped"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path: Path, how: str):
    whole_training(tmp_path / "whole")
    newest = max((tmp_path / "whole").glob("step-*"))
    names = sorted(path.name for path in newest.iterdir())
    assert names == ["ema.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for name in names:
        run = tmp_path / name
        shutil.copytree(tmp_path / "whole", run)
        spoil(run / newest.name / name, how)
        with pytest.warns(UserWarning, match=rf"passed over the damaged checkpoint .*{newest.name}: \w+\.\w+"):
            whole_training(run)
        assert_same(tmp_path / "whole", run)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's own thread
def test_a_run_folder_that_is_deleted_during_training_is_made_again(tmp_path: Path):
    run = tmp_path / "run"

    def loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        if number == 10:
            shutil.rmtree(run)
        return epoch_loss(model, generator, number)

    assert train(new_model(), NumberedLoss(loss), SETTINGS, run, validation=distance)
    whole_training(tmp_path / "whole")
    assert_same(tmp_path / "whole", run)
