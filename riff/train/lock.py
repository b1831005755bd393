"""One trainer a run: the lock on its folder, and what dead trainers left there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from riff.errors import RiffError, SystemProblem

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
