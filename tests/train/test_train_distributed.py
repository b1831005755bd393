"""Two processes train as one that accumulates twice, agree on every decision, and fail together.

The test starts this very file under ``accelerate launch``; all that needs two processes happens in that one start.
"""

import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riff.train.checkpoints import load_checkpoint, sole_trainer
from riff.train.loop import train
from riff.train.processes import gathered, sharded_like
from riff.train.progress import read_summary
from riff.train.settings import LoopSettings, NumberedLoss
from riff.utils.errors import RiffError, SystemProblem

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

SETTINGS = LoopSettings(
    steps=12,
    learning_rate=0.05,
    warmup_steps=2,
    mixed_precision="no",
    checkpointing_steps=4,
    validation_steps=4,
    seed=3,
    device="cpu",
)
POINTS = torch.linspace(-1, 1, 16)[:, None]


def line_loss(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
    """Four of 16 points, in an order without replacement, with noise from the generator."""
    epoch, place = divmod(number, 4)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(epoch))
    x = POINTS[order[4 * place : 4 * place + 4]]
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return (model(x) - (3 * x + 1 + noise)).pow(2).mean(), {"number": float(number)}


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def distance(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(POINTS) - (3 * POINTS + 1)).pow(2).mean())


def go(run: Path, settings: LoopSettings = SETTINGS, loss: Callable[..., Any] = line_loss, **more: Any) -> list[float]:
    """Train; the weights it ends with."""
    model = new_model()
    train(model, NumberedLoss(loss), settings, run, validation=distance, **more)
    return torch.cat([value.detach().reshape(-1) for value in model.parameters()]).tolist()


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except RiffError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def sharded_round_trip() -> bool:
    """A model sharded as FSDP2 shards it is gathered whole, and what was whole is put back in its shards."""
    from torch.distributed.fsdp import fully_shard

    model, whole = new_model(), [value.detach().clone() for value in new_model().parameters()]
    fully_shard(model)
    same = all(
        torch.equal(gathered(value.detach()), wanted) for value, wanted in zip(model.parameters(), whole, strict=True)
    )
    with torch.no_grad():
        for value, wanted in zip(model.parameters(), whole, strict=True):
            value.copy_(sharded_like(wanted + 1.0, value))
    return same and all(
        torch.equal(gathered(value.detach()), wanted + 1.0)
        for value, wanted in zip(model.parameters(), whole, strict=True)
    )


def in_two_processes(root: Path) -> dict[str, Any]:
    """All that is done by each of the two processes; what came of it."""
    rank = int(os.environ["RANK"])
    found: dict[str, Any] = {}

    go(root / "two", until=6)
    found["weights"] = go(root / "two")

    def nan_in_one(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        loss, figures = line_loss(model, generator, number)
        return (loss * float("nan") if number == 5 else loss), figures

    found["after_nan"] = go(root / "nan", loss=nan_in_one)

    def told_to_stop(model: nn.Module, generator: torch.Generator, number: int) -> tuple[Tensor, dict[str, float]]:
        if number == 7:  # the second process, in its fourth step
            os.kill(os.getpid(), signal.SIGTERM)
        return line_loss(model, generator, number)

    found["after_signal"] = go(root / "signal", loss=told_to_stop)

    if rank == 0:
        with sole_trainer(root / "locked"):
            found["locked"] = refusal(lambda: go(root / "locked"))
    else:
        found["locked"] = refusal(lambda: go(root / "locked"))

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    usual, os.replace = os.replace, full
    found["full"] = refusal(lambda: go(root / "full"))
    os.replace = usual
    own = dataclasses.replace(SETTINGS, seed=rank)
    found["unlike"] = refusal(lambda: go(root / "unlike", own))
    accumulating = dataclasses.replace(SETTINGS, gradient_accumulation_steps=2)
    found["four"] = go(root / "two_by_two", accumulating)
    found["sharded"] = sharded_round_trip()
    return found


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the runs, and what each of the two processes found."""
    root = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # With --cpu it would start several processes under MPI only, and one without it.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), __file__, str(root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, [json.loads((root / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def losses_and_weights(run: Path) -> tuple[Tensor, Tensor]:
    found, passed = load_checkpoint(run)
    assert found is not None and not passed
    weights = [value.reshape(-1) for _, value in sorted(found.tensors["model"].items())]
    return torch.tensor(found.state["health"]["recent"]), torch.cat(weights)


@pytest.mark.parametrize(("name", "accumulation"), [("two", 2), ("two_by_two", 4)])
def test_two_processes_give_the_losses_of_one_with_twice_the_accumulation(
    launched: tuple[Path, Any], tmp_path: Path, name: str, accumulation: int
):
    """The two were also stopped half-way and resumed."""
    settings = dataclasses.replace(SETTINGS, gradient_accumulation_steps=accumulation)
    go(tmp_path / "one", settings)
    losses, weights = losses_and_weights(tmp_path / "one")
    assert len(losses) == SETTINGS.steps
    two_losses, two_weights = losses_and_weights(launched[0] / name)
    torch.testing.assert_close(two_losses, losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two_weights, weights, rtol=1e-4, atol=1e-5)
    one, two = read_summary(tmp_path / "one").validation, read_summary(launched[0] / name).validation
    # The half-way stop was validated as the end of its call.
    assert dict(two).keys() >= dict(one).keys()
    assert all(dict(two)[step] == pytest.approx(loss, rel=1e-4) for step, loss in one)


def test_both_processes_end_with_the_same_weights(launched: tuple[Path, list[dict[str, Any]]]):
    first, second = launched[1]
    for name in ("weights", "after_nan", "after_signal", "four"):
        assert first[name] == second[name], name


def test_a_loss_that_breaks_in_one_process_is_skipped_in_both(launched: tuple[Path, Any]):
    found, _ = load_checkpoint(launched[0] / "nan")
    assert found is not None and found.state["ema_step"] == SETTINGS.steps - 1
    assert all(bool(torch.isfinite(value).all()) for value in found.tensors["model"].values())


def test_a_signal_to_one_process_stops_both_at_one_checkpoint(launched: tuple[Path, Any]):
    found, _ = load_checkpoint(launched[0] / "signal")
    assert found is not None and found.step == 4
    summary = read_summary(launched[0] / "signal")
    assert (summary.step, summary.signal) == (4, "SIGTERM")


def test_what_the_main_process_cannot_do_fails_in_both_alike(
    launched: tuple[Path, list[dict[str, Any]]],
):
    first, second = launched[1]
    for name, line in (
        ("locked", "RiffError: another training"),
        ("full", "SystemProblem: step 4 is not saved"),
        ("unlike", "RiffError: the processes were given different settings"),
    ):
        assert first[name] == second[name] and first[name].startswith(line), name
    assert issubclass(SystemProblem, RiffError)


def test_sharded_tensors_are_gathered_and_put_back(launched: tuple[Path, list[dict[str, Any]]]):
    assert [found["sharded"] for found in launched[1]] == [True, True]


def test_going_on_with_fewer_processes_shows_the_change(launched: tuple[Path, Any], tmp_path: Path):
    settings = dataclasses.replace(SETTINGS, gradient_accumulation_steps=2, steps=14)
    with pytest.raises(RiffError, match=r"gradient_accumulation_steps: 1 -> 2; processes: 2 -> 1"):
        go(launched[0] / "two", settings)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcome = in_two_processes(folder)
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(outcome))
    torch.distributed.barrier()  # neither leaves while the other still speaks to it
    torch.distributed.destroy_process_group()
