"""Measuring in processes of their own, so that each one's memory is its own, taken in turn, so that both sides of a
pair meet the same machine."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import write_json

# WAS riff/bench/result.py: What a benchmark found: ratios first, then figures, section by section.

Figure = float | int | str | None
Figures = dict[str, Figure]
Step = Callable[[int], Figures]


class Missing(SystemProblem):
    """A package that one side needs cannot be imported."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What a process is to measure.

    Attributes:
        place: ``"module:function"``. The function prepares all that should not count and returns a :data:`Step`, which
            takes the number of a round, 0 to warm up, and returns figures, ``seconds`` among them.
        arguments: of the function, plain JSON.
    """

    place: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a side's process found.

    Attributes:
        rounds: figures of each round.
        ready_s: seconds from its start until all was loaded.
        first: figures of the round that warmed it up.
        peak_memory_mib: the most resident memory it held; None where the system does not tell.
    """

    rounds: list[Figures]
    ready_s: float
    first: Figures
    peak_memory_mib: float | None

    def values(self, name: str) -> list[float]:
        """A figure of every round."""
        return [float(each[name] or 0.0) for each in self.rounds]


def compare(sides: Mapping[str, Side], rounds: int) -> dict[str, Measured]:
    """Measure sides in turn, every second round in reverse order.

    Args:
        sides: by name.
        rounds: how often each is measured after it has been warmed up.

    Raises:
        Missing: a package of one side cannot be imported.
        RiffError, ModelError, SystemProblem: what a side raised.
    """
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(side)) for name, side in sides.items()}
        ready: dict[str, tuple[float, Figures]] = {}
        for name, worker in workers.items():
            began = time.perf_counter()
            worker.start()
            worker.hear()
            seconds = time.perf_counter() - began
            ready[name] = seconds, worker.ask("0")
        found: dict[str, list[Figures]] = {name: [] for name in sides}
        for number in range(1, rounds + 1):
            for name in list(sides) if number % 2 else list(sides)[::-1]:
                found[name].append(workers[name].ask(str(number)))
        peaks = {name: worker.ask("end")["peak_memory_mib"] for name, worker in workers.items()}
    return {
        name: Measured(found[name], *ready[name], None if (peak := peaks[name]) is None else float(peak))
        for name in sides
    }


def measure_alone(place: str, arguments: dict[str, Any], *, environment: dict[str, str] | None = None) -> Figures:
    """What the function ``"module:function"`` returns in a process of its own, with errors as in :func:`compare`."""
    with _Worker(Side(place, arguments), environment) as worker:
        worker.start(alone=True)
        return worker.hear()


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times something is faster, or what share of memory it takes.

    Attributes:
        name: for machines, such as ``"sound_speed"``.
        meaning: for people; it reads on after the number.
        value: median over the pairs.
        low: the smallest of them.
        high: the largest of them.
        pairs: measurements taken in turn; 1 where each side was measured once.
        times: whether it is a multiple ("2.0x"), else a share of something ("0.50").
        processor: the same by processor time of all threads, which other programs disturb less; None if not measured.
    """

    name: str
    meaning: str
    value: float
    low: float
    high: float
    pairs: int = 1
    times: bool = True
    processor: float | None = None

    @classmethod
    def of(
        cls, name: str, meaning: str, values: Sequence[float], *, times: bool = True, processor: Sequence[float] = ()
    ) -> Ratio:
        """The ratio of some pairs."""
        work = statistics.median(processor) if processor else None
        return cls(name, meaning, statistics.median(values), min(values), max(values), len(values), times, work)

    def line(self) -> str:
        """Such as ``"39.1x  as fast as ..., picture to sound (37.2 to 40.0 in 3 pairs)"``."""
        shown = f"{_short(self.value)}x" if self.times else _short(self.value)
        spread = f" ({_short(self.low)} to {_short(self.high)} in {self.pairs} pairs)" if self.pairs > 1 else ""
        work = "" if self.processor is None else f", {_short(self.processor)}x by processor time"
        return f"{shown:>7}  {self.meaning}{spread}{work}"


def speed(name: str, meaning: str, ours: Measured, theirs: Measured, figure: str = "seconds") -> Ratio:
    """How many times as fast ours is, pair by pair, by the clock and by processor time."""
    clock, work = (
        [b / max(a, 1e-9) for a, b in zip(ours.values(each), theirs.values(each), strict=True)]
        for each in (figure, f"processor_{figure}")
    )
    return Ratio.of(name, meaning, clock, processor=work)


def memory_share(name: str, meaning: str, ours: Measured, theirs: Measured) -> list[Ratio]:
    """Our peak memory as a share of theirs; none where the system does not tell."""
    if ours.peak_memory_mib is None or theirs.peak_memory_mib is None:
        return []
    return [Ratio.of(name, meaning, [ours.peak_memory_mib / theirs.peak_memory_mib], times=False)]


@contextlib.contextmanager
def timed(found: Figures, name: str = "seconds") -> Iterator[None]:
    """Add the seconds of a block to ``found``, and processor time over all threads as ``processor_...``."""
    synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    yield
    synchronize()
    for key, spent in ((name, time.perf_counter() - clock), (f"processor_{name}", time.process_time() - processor)):
        found[key] = float(found.get(key) or 0.0) + spent


def synchronize() -> None:
    """Wait for the accelerator."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def serve(words: str, *, alone: bool) -> None:
    """What a side's process runs: a line of JSON for each line on stdin; see :class:`_Worker`."""
    # What libraries print must not get between the lines.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(figures: Mapping[str, Any]) -> None:
        channel.write(json.dumps(figures) + "\n")
        channel.flush()

    try:
        place, arguments = json.loads(words)
        module, _, function = place.partition(":")
        result = getattr(importlib.import_module(module), function)(**arguments)
        send(result if alone else {})
        if alone:
            return
        for line in sys.stdin:
            send({"peak_memory_mib": peak_memory()} if line.strip() == "end" else result(int(line)))
    except RiffError as error:
        send({"error": str(error), "exit_code": error.exit_code})
    except ImportError as error:
        send({"error": str(error), "exit_code": 0})


def environment() -> dict[str, str]:
    """That of this process, with this very riff first on the path."""
    here = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


def peak_memory() -> float | None:
    """Most resident memory that this process has had, in MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


class _Worker:
    """A process that answers each line with a line of JSON; it sleeps in between."""

    def __init__(self, side: Side, added: dict[str, str] | None = None) -> None:
        self.side = side
        self.added = added or {}

    def __enter__(self) -> _Worker:
        self.process: subprocess.Popen[str] | None = None
        self.complaints = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self.complaints.close()

    def start(self, *, alone: bool = False) -> None:
        words = json.dumps([self.side.place, self.side.arguments])
        code = f"from benchmarks.harness import serve; serve({words!r}, alone={alone})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            encoding="utf-8",
            env=environment() | self.added,
        )

    def ask(self, line: str) -> Figures:
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # hear() says why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Figures:
        """The next line's figures; its failure is this process's, in the same words."""
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise SystemProblem(f"the process that measures {self.side.place} ended with code {code}: {self._reason()}")
        figures: dict[str, Any] = json.loads(line)
        if "error" in figures:
            kinds: dict[int, type[RiffError]] = {0: Missing, 4: ModelError, 5: SystemProblem}
            raise kinds.get(figures["exit_code"], RiffError)(figures["error"])
        return figures

    def _reason(self) -> str:
        self.complaints.seek(0)
        lines: Sequence[str] = self.complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


# WAS riff/bench/history.py: Benchmarks kept in files, one a version, machine and day, so that versions can be
# compared.

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
        machine: as :func:`benchmarks.harness.describe_machine` tells it.
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
        The file: ``{"runs": [...]}``, each as :meth:`benchmarks.harness.Bench.to_dict` has it, the newest last.

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


# WAS riff/bench/machine.py: The machine that a benchmark ran on, told without names of people or places.

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


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# WAS riff/bench/tune.py: A plain tune to measure with, so that no recording has to be at hand: chords, a bass
# and a drum on every beat.

BPM = 120.0
_CHORDS = ((57, 60, 64), (53, 57, 60), (48, 55, 64), (55, 59, 62))  # Am F C G, MIDI notes


def tune(seconds: float, sample_rate: int, *, seed: int = 0) -> Tensor:
    """The tune (1, T) in [-1, 1] at 120 bpm; another ``seed`` plays it in another key and order.

    Args:
        seconds: length.
        sample_rate: samples per second.
        seed: of key, order of the chords and noise of the drum.
    """
    generator = torch.Generator().manual_seed(seed)
    shift = int(torch.randint(12, (), generator=generator))
    order = torch.randperm(len(_CHORDS), generator=generator).tolist()
    size, beat = round(seconds * sample_rate), 60.0 / BPM
    sound = torch.zeros(size)
    for number in range(math.ceil(seconds / beat)):
        start = round(number * beat * sample_rate)
        length = min(round(2.0 * beat * sample_rate), size - start)
        time = torch.arange(length) / sample_rate
        chord = _CHORDS[order[number // 4 % len(order)]]
        notes = [*(note + shift for note in chord), chord[number % 3] + shift - 24]
        part = torch.stack([_note(note, time) for note in notes]).sum(0) * 0.12
        drum = torch.randn(length, generator=generator) * torch.exp(-time * 60.0)
        sound[start : start + length] += part + 0.25 * drum
    return (sound / sound.abs().max().clamp_min(1e-9) * 0.8)[None]


def _note(note: int, time: Tensor) -> Tensor:
    """A decaying tone of six partials."""
    frequency = 440.0 * 2.0 ** ((note - 69) / 12.0)
    partials = [torch.sin(2.0 * math.pi * frequency * k * time) / k for k in range(1, 7)]
    return torch.stack(partials).sum(0) * torch.exp(-time * 3.0)
