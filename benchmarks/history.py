"""What a benchmark found, and the files in which benchmarks are kept: one for each version, machine and day."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Figures, Ratio
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_json
from riff.utils.parallel import memory_gib, package_version, processor_name, usable_cores

RESULTS = Path("benchmarks/results")


@dataclasses.dataclass(frozen=True)
class Section:
    """One thing that was measured.

    Attributes:
        name: of :data:`benchmarks.run.SECTIONS`.
        ratios: against others, from the same run.
        figures: seconds (``*_s``), mebibytes (``*_mib``) and others by name; None was not measured.
        notes: what has to be known to read them, or why there are none; one sentence each.
        seconds: that the measuring took.
    """

    name: str
    ratios: list[Ratio] = dataclasses.field(default_factory=list)
    figures: Figures = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bench:
    """All of it.

    Attributes:
        version: of riff.
        when: ISO 8601, UTC.
        machine: as :func:`benchmarks.history.describe_machine` tells it.
        settings: what was asked for.
        sections: in the order in which they were measured.
        seconds: that it took.
    """

    version: str
    when: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    sections: list[Section]
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, ratios first."""
        return {
            "riff": self.version,
            "when": self.when,
            "ratios": {ratio.name: dataclasses.asdict(ratio) for ratio in self._ratios()},
            "sections": {
                section.name: {"figures": section.figures, "notes": section.notes, "seconds": round(section.seconds, 1)}
                for section in self.sections
            },
            "machine": self.machine,
            "settings": self.settings,
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> Iterator[str]:
        """A table for a terminal: machine, ratios, then figures and notes by section."""
        yield f"riff {self.version} on {describe(self.machine)}"
        yield ""
        yield from (ratio.line() for ratio in self._ratios())
        for section in self.sections:
            yield ""
            yield f"{section.name}, measured in {section.seconds:.0f} s"
            width = max((len(name) for name in section.figures), default=0)
            for name, value in section.figures.items():
                yield f"  {name.ljust(width)}  {show(value)}"
            yield from (f"  ({note})" for note in section.notes)

    def _ratios(self) -> Iterator[Ratio]:
        for section in self.sections:
            yield from section.ratios


def save_bench(found: Bench, folder: str | Path = RESULTS) -> Path:
    """Add a benchmark to ``<version>-<machine>-<date>.json``.

    Args:
        found: what :func:`benchmarks.run.bench` returned.
        folder: of the files; it is made.

    Returns:
        The file: ``{"runs": [...]}``, each as :meth:`benchmarks.history.Bench.to_dict` has it, the newest last.

    Raises:
        RiffError: a file of that name is not one of these.
        SystemProblem: the folder cannot be written.
    """
    place = Path(folder)
    path = place / f"{found.version}-{machine_slug(found.machine)}-{found.when[:10]}.json"
    runs = _runs(path) if path.exists() else []
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemProblem(f"cannot make {place} ({(error.strerror or str(error)).lower()})") from error
    write_json(path, {"runs": [*runs, found.to_dict()]})
    return path


def load_history(folder: str | Path = RESULTS) -> list[dict[str, Any]]:
    """All runs under ``folder``, the oldest first; empty if there are none.

    Raises:
        RiffError: a file is damaged; it is named.
    """
    runs = [run for path in sorted(Path(folder).glob("*.json")) for run in _runs(path)]
    return sorted(runs, key=lambda run: str(run["when"]))


def fair_ratios(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a run may claim, by name: of a noisy one ratios of processor time, for its clock tells of other programs.

    Args:
        run: as :func:`load_history` returns it.
    """
    if not run["machine"].get("noisy"):
        return dict(run["ratios"])
    fair = {}
    for name, ratio in run["ratios"].items():
        work = ratio.get("processor")
        if work is not None:
            fair[name] = ratio | {"value": work, "low": work, "high": work, "pairs": 1}
        elif not ratio["times"]:  # memory
            fair[name] = ratio
    return fair


def _runs(path: Path) -> list[dict[str, Any]]:
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        for run in runs:
            _ = run["riff"], run["when"], run["machine"]["processor"], run["ratios"], run["sections"], run["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RiffError(f"{path} is no file of python -m benchmarks --save ({error}); move it elsewhere") from error
    found: list[dict[str, Any]] = runs
    return found


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

    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gib": memory_gib(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
        "load": None if load is None else round(load, 2),
        "noisy": load is not None and load > QUIET * cores,
    }


def machine_slug(machine: dict[str, Any]) -> str:
    """The machine as part of a file's name, such as ``"amd-epyc-9b14-2-cores"``."""
    named = machine["accelerator"] or machine["processor"]
    plain = re.sub(r"\((r|tm)\)|\bprocessor\b|\bcpu\b|@.*|\d+-core\b", " ", str(named).lower())
    words = re.findall(r"[a-z0-9.]+", plain)
    return "-".join([*words, str(machine["cores"]), "cores"])


def show(value: Figure) -> str:
    """A figure as text: three decimals; "not measured" for None."""
    if value is None:
        return "not measured"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in one line, and whether others were using it."""
    counts = [f"{machine[name]} {name if machine[name] != 1 else name[:-1]}" for name in ("cores", "threads")]
    parts = [str(machine["processor"]), *counts]
    if machine.get("accelerator"):
        parts.append(str(machine["accelerator"]))
    if machine.get("noisy"):
        parts.append("NOISY: others were using it, trust the ratios by processor time")
    return ", ".join(parts)
