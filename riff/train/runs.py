"""A training run's folder: checkpoints that are complete or absent, and the way back to the last good one."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from riff.errors import RiffError

MANIFEST = "manifest.json"
STATE = "state.json"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: named groups of tensors and a few plain values."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Publish a checkpoint by one rename, then delete all but the newest ``keep``.

    Every file is written, hashed and flushed to disk in a folder of another name first, so a kill at any instant
    leaves the older checkpoints whole.
    """
    run.mkdir(parents=True, exist_ok=True)
    final = run / f"step-{checkpoint.step:08d}"
    draft = run / f"{final.name}.tmp-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for group, tensors in checkpoint.tensors.items():
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            draft / f"{group}.safetensors",
        )
    (draft / STATE).write_text(json.dumps({"step": checkpoint.step} | checkpoint.state), encoding="utf-8")
    digests = {path.name: _digest(path) for path in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps(digests), encoding="utf-8")
    for path in [*draft.iterdir(), draft]:
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    os.replace(draft, final)
    _sync(run)
    for old in sorted(run.glob("step-????????"))[:-keep]:
        shutil.rmtree(old)
    return final


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(_digest(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def load_checkpoint(run: Path) -> tuple[Checkpoint | None, list[Path]]:
    """The newest checkpoint whose every file is as it was written, and the newer ones that were passed over.

    Raises:
        RiffError: there are checkpoints, but none is whole; a run is never silently begun anew.
    """
    folders = sorted(run.glob("step-????????"), reverse=True)
    for number, folder in enumerate(folders):
        if _is_whole(folder):
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
            return Checkpoint(state.pop("step"), tensors, state), folders[:number]
    if folders:
        raise RiffError(f"every checkpoint in {run} is damaged ({len(folders)}); restore one or delete the folder")
    return None, []


def optimizer_to_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as flat tensors, ``<parameter index>.<name>``: no pickle is needed to keep it."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def tensors_to_optimizer(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """The inverse of :func:`optimizer_to_tensors`, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
