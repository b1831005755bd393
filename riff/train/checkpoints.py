"""A training run's checkpoints, which are whole or absent, and the way back to the last good one."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import atomic_path, write_json

MANIFEST = "manifest.json"
STATE = "state.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: named groups of tensors and a few plain values.

    There is no state of random generators in it: every micro-batch has a generator that is seeded by its
    number (see :func:`riff.train.settings.generator_of`), so the step says it all, the order of the data included.

    Attributes:
        step: optimizer steps done.
        tensors: groups such as ``model``, ``ema`` and ``optimizer``; each becomes one safetensors file.
        state: plain values that JSON can hold.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


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
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for group, tensors in checkpoint.tensors.items():
        path = draft / f"{group}.safetensors"
        with atomic_path(path) as temporary:
            _save_tensors(tensors, temporary)
    write_json(draft / STATE, {"step": checkpoint.step} | checkpoint.state)
    digests = {path.name: _digest(path) for path in sorted(draft.iterdir())}
    write_json(draft / MANIFEST, digests)
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
        os.replace(final, aside)
    os.replace(draft, final)
    _sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(run: Path, newest: Path, keep: int) -> None:
    """Delete old checkpoints; what is newer than the one just saved is damaged, and no reason to delete a good one."""
    known = sorted(path for path in run.glob("step-????????") if path.name <= newest.name)
    for old in known[:-keep]:
        # A half deleted folder must not look like a checkpoint.
        doomed = old.with_name(f"{old.name}.tmp-{os.getpid()}-old")
        os.replace(old, doomed)
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
        ModelError: there are checkpoints, but none is whole; a run never starts over silently.
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
            f"every checkpoint in {run} is damaged ({why}); restore one, or delete the folder to start over"
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


# One trainer at a time.

LOCK = ".lock"


@contextmanager
def sole_trainer(run: Path) -> Iterator[None]:
    """Hold the run's folder for the length of the block, cleared of unfinished files of processes that died.

    The lock ends with the process, however that ends, so there is never a stale one to delete.

    Raises:
        RiffError: another process trains there.
        SystemProblem: the folder cannot be written.
    """
    path = run / LOCK
    lock = FileLock(path, timeout=0)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        with suppress(OSError):  # on a full disk the number is missing, and the lock holds all the same
            path.write_text(str(os.getpid()), encoding="utf-8")
    except Timeout as error:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        raise RiffError(
            f"another training (process {holder}) is writing to {run}; wait for it, stop it, or choose another folder"
        ) from error
    except NotImplementedError:  # a file system without locks; training works there as well
        pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SystemProblem(f"cannot train in {run}: {reason}; choose a folder that can be written") from error
    try:
        _clear_drafts(run)
        yield
    finally:
        lock.release()


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
