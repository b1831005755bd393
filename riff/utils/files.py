"""Files: each is written wholly or not at all, and looked at before anything reads it.

What is wrong with a file, or with the disk, is one line that names it.
"""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from riff.utils.errors import ModelError, RiffError, SystemProblem

_LEFTOVER = re.compile(r"\.riff-[0-9a-f]{12}(\.\w+)?")
_LEFTOVER_SECONDS = 3600.0
_LFS_POINTER = b"version https://git-lfs"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | Path, *, force: bool = True, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place when the block ends without an exception.

    On any exception, Ctrl-C included, the temporary file is removed and what was at ``path`` stays as it was.

    Args:
        path: the file to write. A symbolic link is followed, so the link stays.
        force: False refuses a ``path`` that exists.
        needed: bytes to be written, if known; a message about a full disk then says how many were missing.

    Yields:
        An empty file in the same folder with the same suffix, to be written by name.

    Raises:
        RiffError: the folder is missing, or ``path`` is no ordinary file, or exists and ``force`` is False.
        SystemProblem: the folder cannot be written, or the disk is full.
    """
    target = _check_target(path, force=force)
    temporary = target.with_name(f".riff-{secrets.token_hex(6)}{Path(path).suffix}")
    try:
        _create(temporary, target)
        yield temporary
        _publish(temporary, target, force=force)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise _disk_full(temporary, target, needed=needed) from error
    finally:
        with suppress(OSError):  # a read-only disk refuses this too, and the first error says more
            temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is a temporary one of :func:`atomic_path`, which a killed process leaves behind."""
    return _LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes, which nobody has written to for an hour."""
    with suppress(OSError):
        for path in folder.iterdir():
            if is_leftover(path):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                        path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, if it is not there.

    Raises:
        RiffError: a file is in the way.
        SystemProblem: the disk is read-only, full, or the folder above may not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RiffError(f"{folder} cannot be a folder, since a file is in the way; choose another") from error
    except OSError as error:
        raise SystemProblem(f"cannot make the folder {folder}: {_reason(error)}; choose another") from error


def write_bytes(path: str | Path, content: bytes | bytearray, *, force: bool = True) -> None:
    """Write ``content`` to ``path``, wholly or not at all; errors as in :func:`atomic_path`."""
    with atomic_path(path, force=force, needed=len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str, *, force: bool = True) -> None:
    """Write ``text`` to ``path`` as UTF-8, wholly or not at all; errors as in :func:`atomic_path`."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RiffError(f"{path}: the text holds half a character ({error.reason}); remove it") from error
    write_bytes(path, content, force=force)


def write_json(path: str | Path, value: Any, *, force: bool = True) -> None:
    """Write ``value`` to ``path`` as indented JSON, wholly or not at all.

    Raises:
        RiffError: ``value`` holds NaN, an infinity or something JSON has no form for.
        RiffError, SystemProblem: as in :func:`atomic_path`.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RiffError(f"{path}: no JSON can hold it ({error}); use finite numbers and text") from error
    write_text(path, text + "\n", force=force)


def check_readable(path: str | Path, *, expected: str) -> None:
    """Refuse what is no ordinary, readable, non-empty file; a pipe is not opened, which could wait for ever.

    Args:
        path: the file to be read.
        expected: what it should be, for the message.

    Raises:
        RiffError: it is missing, empty, a folder, a pipe or a device, or may not be read.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise RiffError(f"{path} is a folder; give {expected}")
        if not stat.S_ISREG(status.st_mode):
            raise RiffError(f"{path} is a pipe or device; give {expected} in an ordinary file")
        if status.st_size == 0:
            raise RiffError(f"{path} is empty (0 bytes); give {expected}")
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise RiffError(f"{path} does not exist; give {expected}") from error
    except OSError as error:
        raise RiffError(f"{path} cannot be read ({_reason(error)}); give {expected}") from error
    except ValueError as error:
        # A NUL in the name is a ValueError, of which RiffError is a kind.
        if isinstance(error, RiffError):
            raise
        raise RiffError(f"{str(path)!r} is no file name; give {expected}") from error


def _check_target(path: str | Path, *, force: bool) -> Path:
    if not str(path) or "\0" in str(path):
        raise RiffError(f"output path {str(path)!r} is no file name; give one")
    target = Path(os.path.realpath(path))
    folder = target.parent
    try:
        if target.is_dir():
            raise RiffError(f"{path} is a folder; give the name of a file in it")
        if not folder.is_dir():
            state = "is not a folder" if folder.exists() else "does not exist; create it"
            raise RiffError(f"cannot write {path}: {folder} {state}, or choose another folder")
        if target.exists() and not target.is_file():
            raise RiffError(f"{path} is a device or pipe; give the name of an ordinary file")
        if target.exists() and not force:
            raise RiffError(f"{path} exists; use --force (force=True) to replace it, or choose another name")
    except OSError as error:
        raise RiffError(f"cannot write {path}: {_reason(error)}; choose another name") from error
    return target


def _create(temporary: Path, target: Path) -> None:
    # os.open rather than tempfile, whose files only their owner may read.
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        message = f"cannot write {target}: {_reason(error)}; choose a folder and a name that can be written"
        raise SystemProblem(message) from error


def _publish(temporary: Path, target: Path, *, force: bool) -> None:
    _flush(temporary)
    if not force and target.exists():
        raise RiffError(f"{target} exists by now; use --force (force=True) to replace it")
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise SystemProblem(f"cannot replace {target}: {_reason(error)}; choose another name") from error
    if os.name == "posix":
        _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until ``path``, a file or a POSIX folder, is on the disk, so that a power cut cannot empty it."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot flush a folder; the file itself has been flushed by then.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _disk_full(temporary: Path, target: Path, *, needed: int | None) -> SystemProblem:
    free = shutil.disk_usage(target.parent).free
    written = temporary.stat().st_size if temporary.exists() else 0
    size = f"{needed:,} bytes needed" if needed is not None else f"more than {written:,} bytes needed"
    return SystemProblem(
        f"cannot write {target}: the disk or your quota is full ({size}, {free:,} free); "
        "make room or choose another disk"
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; anything else is a ModelError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; the checkpoint is incomplete, so copy or download it again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}); restore it or download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, not a JSON object; restore it or download it again")
    return content


def check_safetensors(path: Path) -> None:
    """Raise ModelError unless ``path`` is a complete safetensors file; its tensors are not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise ModelError(f"{path} is a git-lfs pointer, not the weights; run 'git lfs pull' or download the file")
        if not start:
            raise ModelError(f"{path} is empty; download it again")
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is truncated or corrupt ({first_line(error)}); download it again") from error


def first_line(error: BaseException) -> str:
    """What an error says first, short enough for one line of ours; a heading is followed by what it announces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:200]
