"""``riff doctor``: what riff finds on this machine."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import riff
from riff.apps.cli.options import add_command
from riff.utils.errors import RiffError
from riff.utils.machine import memory_gib, package_version, processor_name, usable_cores

PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "librosa", "soundfile", "numpy", "numba")


def add_doctor(verbs: Any) -> None:
    """Add ``riff doctor``."""
    add_command(
        verbs,
        "doctor",
        run_doctor,
        help="show versions, devices, the model and what is missing",
        description="Show what riff finds on this machine: versions, devices, the model, the cache, free disk, and "
        "what each extra lacks. One line each, to be sent with a question or a report.",
    )


def run_doctor(args: argparse.Namespace) -> None:
    """Print the facts, one per line."""
    facts = dict(_facts())
    if args.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name}: {value}")


def _facts() -> Iterator[tuple[str, str]]:
    yield "riff", f"{riff.__version__}, in {Path(riff.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    versions = {name: package_version(name) for name in PACKAGES}
    yield "packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
    memory = memory_gib()
    yield "processor", f"{processor_name()}, {usable_cores()} cores, {memory or '?'} GiB of memory"
    yield from _devices()
    yield "model", _model()
    yield "cache", _cache()
    yield "disk", ", ".join(f"{_free(Path(place))} free in {place}" for place in (".", tempfile.gettempdir()))
    for extra, missing in _extras():
        yield f"extra {extra}", f"lacks {', '.join(missing)}" if missing else "complete"


def _devices() -> Iterator[tuple[str, str]]:
    """What PyTorch can run on. An installation of it that is broken is a fact too."""
    try:
        import torch
    except Exception as error:
        yield "device", f"none: torch cannot be imported ({str(error).splitlines()[0] if str(error) else error!r})"
        return
    found = ["cpu"]
    if torch.cuda.is_available():
        found = [f"cuda ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())] + found
    if torch.backends.mps.is_available():
        found = ["mps", *found]
    yield "device", f"{', '.join(found)}; the first is taken"
    limits = [f"{name}={value}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if (value := os.environ.get(name))]
    yield "threads", ", ".join([str(torch.get_num_threads()), *limits])


def _model() -> str:
    from riff.diffusion.checkpoint_files import check_index
    from riff.diffusion.hub import locate

    try:
        folder = locate(None)
        check_index(folder)
    except RiffError as error:
        return f"MISSING: {error}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"riff-mini, {size / 1e6:.0f} MB, in {folder}"


def _cache() -> str:
    """Where downloaded models are, and how many."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    models = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    offline = ", offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return f"{models} models in {folder}{offline}"


def _free(place: Path) -> str:
    try:
        return f"{shutil.disk_usage(place).free / 2**30:.1f} GiB"
    except OSError as error:
        return f"unknown ({error.strerror})"


def _extras() -> Iterator[tuple[str, list[str]]]:
    """Each extra of the package, and which of its packages are not installed."""
    try:
        lines = importlib.metadata.requires("riff-music") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        lines = _project_extras()
    extras: dict[str, list[str]] = {}
    for line in lines:
        package, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        if package and extra and extra[1] not in ("test", "docs"):
            missing = extras.setdefault(extra[1], [])
            missing += [package[0]] * (package_version(package[0]) is None)
    yield from sorted(extras.items())


def _project_extras() -> list[str]:
    """The extras of pyproject.toml beside the package, in the form of an installed one."""
    import tomllib

    try:
        text = (Path(riff.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        extras = tomllib.loads(text)["project"]["optional-dependencies"]
    except (OSError, KeyError, ValueError):
        return []
    return [f'{line}; extra == "{name}"' for name, lines in extras.items() for line in lines if ";" not in line]
