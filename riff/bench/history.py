"""Benchmarks kept in files, one a version, machine and day, so that versions can be compared."""

import json
from pathlib import Path
from typing import Any

from riff.bench.machine import machine_slug
from riff.bench.result import Bench
from riff.errors import RiffError, SystemProblem
from riff.files import write_json

RESULTS = Path("benchmarks/results")


def save_bench(found: Bench, folder: str | Path = RESULTS) -> Path:
    """Add a benchmark to ``<version>-<machine>-<date>.json``.

    Args:
        found: what :func:`riff.bench.bench` returned.
        folder: of the files; it is made.

    Returns:
        The file: ``{"runs": [...]}``, each as :meth:`riff.bench.Bench.to_dict` has it, the newest last.

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
        raise RiffError(f"{path} is no file of riff bench --save ({error}); move it elsewhere") from error
    found: list[dict[str, Any]] = runs
    return found
