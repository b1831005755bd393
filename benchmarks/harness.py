"""Measuring in processes of their own, so that each has its own peak memory, and in turn, so that both sides of a pair
meet the same machine."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.parallel import peak_memory_mib

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
        """Such as ``"39.1x  as fast as ..., image to sound (37.2 to 40.0 in 3 pairs)"``."""
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
            send({"peak_memory_mib": peak_memory_mib()} if line.strip() == "end" else result(int(line)))
    except RiffError as error:
        send({"error": str(error), "exit_code": error.exit_code})
    except ImportError as error:
        send({"error": str(error), "exit_code": 0})


def environment() -> dict[str, str]:
    """That of this process, with this very riff first on the path."""
    here = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


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


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
