"""A training run's checkpoints, which are whole or absent, and the way back to the last good one."""

import dataclasses
import datetime
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from riff.train.settings import LoopSettings
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import atomic_path, write_json
from riff.utils.validation import show

MANIFEST = "manifest.json"
STATE = "state.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: named groups of tensors and a few plain values.

    There is no state of random generators in it: every micro-batch draws from a generator that is seeded by its
    number (see :func:`riff.train.settings.generator_of`), so the step says it all, the order of the data included.

    Attributes:
        step: optimizer steps done.
        tensors: groups such as ``model``, ``ema`` and ``optimizer``; each becomes one safetensors file.
        state: plain values that JSON can hold.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def _operation(name: str, path: Path) -> None:
    """Called right before every file operation of a save; does nothing.

    The tests put something in its place that fails, or kills the process, at the n-th operation for every n.
    """


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Publish a checkpoint by one rename, then delete all but the newest ``keep``.

    Every file is written, flushed to disk and hashed in a folder of another name first, so a kill at any instant
    leaves the older checkpoints whole.

    Args:
        run: folder of the run; it is made where there is none.
        checkpoint: what to save, ``step`` below 10^8.
        keep: checkpoints up to this step that stay.

    Returns:
        The checkpoint's folder, ``run/step-<8 digits>``.

    Raises:
        SystemProblem: the disk is full or the folder cannot be written. Older checkpoints are as they were.
    """
    final = run / f"step-{checkpoint.step:08d}"
    draft = run / f"{final.name}.tmp-{os.getpid()}"
    try:
        _write(draft, checkpoint)
        _publish(draft, final)
        _prune(run, final, keep)
    except (OSError, SystemProblem) as error:
        raise SystemProblem(f"step {checkpoint.step} is not saved: {error}; {_what_is_left(run)}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final


def _write(draft: Path, checkpoint: Checkpoint) -> None:
    _operation("create", draft)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for group, tensors in checkpoint.tensors.items():
        path = draft / f"{group}.safetensors"
        _operation("write", path)
        with atomic_path(path) as temporary:
            _save_tensors(tensors, temporary)
    _operation("write", draft / STATE)
    write_json(draft / STATE, {"step": checkpoint.step} | checkpoint.state)
    digests = {path.name: _digest(path) for path in sorted(draft.iterdir())}
    _operation("write", draft / MANIFEST)
    write_json(draft / MANIFEST, digests)
    _operation("flush", draft)
    _sync(draft)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    held: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, value in tensors.items():
        kept = value.detach().cpu().contiguous()
        address = kept.untyped_storage().data_ptr()
        held[name] = kept.clone() if address in memory else kept  # safetensors refuses tied weights
        memory.add(address)
    try:
        save_file(held, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _publish(draft: Path, final: Path) -> None:
    aside = final.with_name(f"{draft.name}-old")
    if final.exists():  # a damaged one that was passed over when the run was taken up again
        _operation("set aside", final)
        os.replace(final, aside)
    _operation("publish", final)
    os.replace(draft, final)
    _operation("flush", final.parent)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(run: Path, newest: Path, keep: int) -> None:
    """Delete old checkpoints; what is newer than the one just saved is damaged, and no reason to delete a good one."""
    known = sorted(path for path in run.glob("step-????????") if path.name <= newest.name)
    for old in known[:-keep]:
        # A half deleted folder must not look like a checkpoint.
        doomed = old.with_name(f"{old.name}.tmp-{os.getpid()}-old")
        _operation("retire", old)
        os.replace(old, doomed)
        _operation("delete", doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _what_is_left(run: Path) -> str:
    newest = newest_checkpoint(run)
    if newest is None:
        return "the run has no checkpoint yet"
    return f"{newest} is whole, and the same command goes on from it"


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint's folder by its name, unread."""
    return max(run.glob("step-????????"), default=None)


def load_checkpoint(run: Path) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """Load the newest checkpoint whose every file is as it was written.

    Returns:
        The checkpoint, None for a run that has none, and the newer folders that were passed over, each with the
        reason.

    Raises:
        ModelError: there are checkpoints, but none is whole; a run is never silently begun anew.
    """
    passed: list[tuple[Path, str]] = []
    for folder in sorted(run.glob("step-????????"), reverse=True):
        fault = _fault(folder)
        if fault is None:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
            return Checkpoint(state.pop("step"), tensors, state), passed
        passed.append((folder, fault))
    if passed:
        why = f"{len(passed)}; {passed[0][0].name}: {passed[0][1]}"
        raise ModelError(
            f"every checkpoint in {run} is damaged ({why}); restore one, or delete the folder to begin anew"
        )
    return None, []


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        return f"{MANIFEST} is missing"
    except ValueError:
        return f"{MANIFEST} is no JSON"
    if not isinstance(digests, dict) or STATE not in digests:
        return f"{MANIFEST} does not name {STATE}"
    for name, digest in digests.items():
        try:
            if _digest(folder / name) != digest:
                return f"{name} is not as it was written"
        except OSError:
            return f"{name} is missing"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Wait until a folder's names are on the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


# WAS riff/train/lock.py: One trainer a run: the lock on its folder, and what dead trainers left there.

LOCK = ".lock"


@contextmanager
def sole_trainer(run: Path) -> Iterator[None]:
    """Hold the run's folder for the length of the block, cleared of unfinished files of processes that died.

    The lock goes with the process, however that ends, so there is never a stale one to delete.

    Raises:
        RiffError: another process trains there.
        SystemProblem: the folder cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SystemProblem(f"cannot train in {run}: {reason}; choose a folder that can be written") from error
    with file:
        _lock(file, run)
        _clear_drafts(run)
        yield


def _lock(file: IO[str], run: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        raise RiffError(
            f"another training (process {holder}) is writing to {run}; wait for it, stop it, or choose another folder"
        ) from error
    except OSError:  # a file system without locks; the trainer works there as well
        return
    with suppress(OSError):  # on a full disk the name is missing, and the lock holds all the same
        file.truncate(0)
        os.write(file.fileno(), str(os.getpid()).encode())


def _clear_drafts(run: Path) -> None:
    for path in run.glob("step-*.tmp-*"):
        owner = path.name.split(".tmp-")[1].split("-")[0]
        if not owner.isdigit() or int(owner) == os.getpid() or not _alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)
    for path in run.glob(".riff-*"):
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# WAS riff/train/optimizer.py: AdamW, in 32 or 8 bits, and its state as flat tensors: no pickle is needed to
# keep it.

BETAS = (0.9, 0.99)


def new_optimizer(parameters: Iterable[nn.Parameter], settings: LoopSettings, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW over ``parameters``.

    Raises:
        SystemProblem: ``use_8bit_adam`` without bitsandbytes.
    """
    values: dict[str, Any] = {"lr": settings.learning_rate, "betas": BETAS, "weight_decay": settings.weight_decay}
    if not settings.use_8bit_adam:
        return torch.optim.AdamW(parameters, fused=fused, **values)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise SystemProblem(
            "use_8bit_adam needs bitsandbytes, which is not installed; pip install bitsandbytes, or leave it out"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **values)
    return optimizer


def optimizer_to_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors: ``<parameter index>.<name>``, or ``<index>.<group>.<name>`` in 8 bits."""
    flat: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            inner = {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            flat |= {f"{index}.{key}": torch.as_tensor(each) for key, each in inner.items()}
    return flat


def tensors_to_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """The inverse of :func:`optimizer_to_tensors`, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, *groups, name = key.split(".")
        place = state.setdefault(int(index), {})
        for group in groups:
            place = place.setdefault(group, {})
        # 8-bit Adam counts its steps in a plain int, torch's in a float tensor.
        plain = value.ndim == 0 and not value.is_floating_point()
        place[name] = int(value) if plain else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# WAS riff/train/processes.py: What the processes of a run do together: start, agree, gather what is sharded.
# With one process nearly nothing.

# The others wait so long for the main process to render previews or save; ten minutes, NCCL's own, can be too few.
PATIENCE = datetime.timedelta(hours=2)


def choose_precision(device: torch.device) -> str:
    """The ``mixed_precision`` that is quickest on a device and safe there: "bf16", "fp16" or "no"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # Measured on a CPU with bfloat16 instructions: a step takes 0.6 of the time. Without them it takes longer.
    fast = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast else "no"


def new_accelerator(settings: LoopSettings, logs: str, device: str | None) -> Any:
    """Accelerate's view of this process and its fellows.

    Raises:
        RiffError: fp16 without a GPU, a tracker that accelerate does not know or that is not installed, or sharding of
            the first kind (FSDP1), whose weights are no longer the model's own.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    # The state is shared by all accelerators of a process and would refuse a second run with another precision.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != settings.mixed_precision:
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=device == "cpu",
        log_with=_trackers(settings.report_to) or None,
        project_dir=logs,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if settings.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise RiffError("mixed_precision is fp16, which needs a GPU; use bf16 or no")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 1:
        raise RiffError("FSDP version 1 is not supported; launch with --fsdp_version 2")
    return accelerator


def _trackers(report_to: str) -> list[str]:
    """Trackers beside TensorBoard, which riff writes itself."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    names = [name.strip() for name in report_to.split(",") if name.strip()]
    for name in names:
        if name not in ("tensorboard", "none") and name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise RiffError(f"report_to is {show(report_to)}; use names of {known}")
    wanted = [name for name in names if name not in ("tensorboard", "none")]
    for name in wanted:
        if name not in [str(each) for each in get_available_trackers()]:
            raise RiffError(f"report_to asks for {name}, which is not installed; pip install it, or leave it out")
    return wanted


def on_main(accelerator: Any, action: Callable[[], Any]) -> None:
    """Do something on the main process alone while the others wait; where it fails, it fails on all alike.

    Raises:
        RiffError: that of ``action``.
    """
    from accelerate.utils import broadcast_object_list

    problem: RiffError | None = None
    if accelerator.is_main_process:
        try:
            action()
        except RiffError as error:
            problem = error
    if accelerator.num_processes > 1:
        [problem] = broadcast_object_list([problem])
    if problem is not None:
        raise problem


def mean_over(accelerator: Any, value: float) -> float:
    """The mean of a number over all processes."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.reduce(torch.tensor(value, device=accelerator.device), reduction="mean"))


def largest_over(accelerator: Any, value: int) -> int:
    """The largest of a whole number over all processes."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())


def same_everywhere(accelerator: Any, value: object) -> bool:
    """Whether all processes hold the same as the main one."""
    if accelerator.num_processes == 1:
        return True
    from accelerate.utils import broadcast_object_list

    [wanted] = broadcast_object_list([value])
    return largest_over(accelerator, int(value != wanted)) == 0


def figures_over(accelerator: Any, figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure over the micro-batches of all processes that gave it."""
    from accelerate.utils import gather_object

    every = gather_object(figures) if accelerator.num_processes > 1 else figures
    names = sorted({name for each in every for name in each})
    columns = {name: [each[name] for each in every if name in each] for name in names}
    return {name: sum(column) / len(column) for name, column in columns.items()}


def gathered(value: Tensor) -> Tensor:
    """All of a tensor that may be sharded over the processes, which must all call this."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def sharded_like(value: Tensor, reference: Tensor) -> Tensor:
    """``value``, which every process holds whole, on the device of ``reference`` and sharded as that is."""
    placed = value.to(reference.device)
    if not hasattr(reference, "full_tensor") or value.shape != reference.shape:
        return placed
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    return distribute_tensor(placed, reference.device_mesh, reference.placements)
