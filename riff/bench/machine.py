"""The machine that a benchmark ran on, told without names of people or places."""

import contextlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

# Share of the cores that others may keep busy before a run counts as noisy.
QUIET = 0.25
_PACKAGES = ("torch", "diffusers", "transformers", "torchaudio", "librosa", "numpy")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions; and how busy others kept it before the measurement began.

    Returns:
        ``processor, cores, threads, memory_gib, accelerator, system, python, packages, load, noisy``; what the system
        does not tell is None. ``load`` is the mean number of running processes over the last minute, ``noisy`` whether
        it is above a quarter of the cores.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "load": None if load is None else round(load, 2),
        "noisy": load is not None and load > QUIET * cores,
    }


def machine_slug(machine: dict[str, Any]) -> str:
    """The machine as part of a file's name, such as ``"amd-epyc-9b14-2-cores"``."""
    named = machine["accelerator"] or machine["processor"]
    plain = re.sub(r"\((r|tm)\)|\bprocessor\b|\bcpu\b|@.*|\d+-core\b", " ", str(named).lower())
    words = re.findall(r"[a-z0-9.]+", plain)
    return "-".join([*words, str(machine["cores"]), "cores"])


def _processor() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        names = re.findall(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
