"""Section "serve": requests a second and how long each waits, of similar requests generated together and one at a time."""  # noqa: E501

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

from benchmarks.harness import Figures, Ratio, environment
from benchmarks.history import Section
from riff.utils.errors import ModelError, RiffError, SystemProblem

PROMPT = "lo-fi hip hop, mellow electric piano, 84 bpm"
SIDES = {"batched": 4, "one_at_a_time": 1}  # requests that are generated side by side, at most
_PATIENCE_S = 600.0


@dataclasses.dataclass(frozen=True)
class Served:
    """A ``riff serve`` that is ready.

    Attributes:
        address: ends with a slash.
        process: itself.
    """

    address: str
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """End it as an init system does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def processor_s(self) -> float | None:
        """Processor time that it has taken over all threads; None where the system does not say."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Round:
    """What some clients saw.

    Attributes:
        seconds: from the first request to the last answer.
        waits: seconds from each request to its answer.
        processor_s: that the server took; None where the system does not say.
    """

    seconds: float
    waits: list[float]
    processor_s: float | None


def serve_section(
    *, model: str | None, device: str | None, steps: int, repeat: int, clients: int, each: int
) -> Section:
    """Measure, in turn, a server that generates up to four similar requests together and one that generates them one
    at a time.

    Args:
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini.
        device: "cpu", "cuda" or "mps"; None takes the fastest there is.
        steps: denoising steps of a request.
        repeat: rounds of each server.
        clients: at once.
        each: requests of each client in a round.

    Raises:
        RiffError, ModelError, SystemProblem: why the server does not start, or what it answers.
    """
    words = [*(["--model", model] if model else []), *(["--device", device] if device else [])]
    found: dict[str, list[Round]] = {name: [] for name in SIDES}
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(served([*words, "--queue", str(clients), "--batch", str(size)]))
            for name, size in SIDES.items()
        }
        for server in servers.values():
            load(server, clients=1, each=1, steps=steps)
        for number in range(repeat):
            for name in list(SIDES)[:: 1 if number % 2 else -1]:
                found[name].append(load(servers[name], clients=clients, each=each, steps=steps))
    figures: Figures = {"clients": clients, "requests": clients * each, "steps": steps}
    for name, rounds in found.items():
        figures |= _figures(name, rounds)
    ratio = _ratio(found["batched"], found["one_at_a_time"])
    return Section(
        "serve", [ratio], figures, ["A CPU generates the clips of a batch one after the other; a GPU does not."]
    )


@contextlib.contextmanager
def served(words: Sequence[str], log: Path | None = None) -> Iterator[Served]:
    """``riff serve`` in a process of its own while the block runs.

    Args:
        words: options, without the port.
        log: where its log goes; None keeps none.

    Raises:
        RiffError, ModelError, SystemProblem: it does not start, in its own words.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log" if log is None else log
        with open(log, "w", encoding="utf-8") as target:
            process = subprocess.Popen(
                [sys.executable, "-m", "riff", "serve", "--port", "0", *words],
                stdout=subprocess.PIPE, stderr=target, text=True, env=environment(),
            )  # fmt: skip
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            while not (address and _is_ready(address)):
                if process.poll() is not None or not address:
                    raise _why(process.wait(), log)
                time.sleep(0.1)
            yield Served(address, process)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.stdout.close()


def load(server: Served, *, clients: int, each: int, steps: int) -> Round:
    """Let clients send at once, each its next request as soon as it is answered."""
    before, began = server.processor_s(), time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        waits = list(pool.map(lambda seed: _ask(server.address, seed, steps), range(clients * each)))
    seconds, after = time.perf_counter() - began, server.processor_s()
    return Round(seconds, waits, None if before is None or after is None else after - before)


def _ask(address: str, seed: int, steps: int) -> float:
    body = {"prompt": PROMPT, "seed": seed, "num_inference_steps": steps, "format": "wav"}
    request = urllib.request.Request(
        f"{address}v1/render", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as reply:
            reply.read()
    except (urllib.error.URLError, OSError) as error:
        raise SystemProblem(f"the server that is measured did not answer: {error}; run riff serve by itself") from error
    return time.perf_counter() - began


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}readyz", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _why(code: int, log: Path) -> RiffError:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line and not line.startswith("{")]
    kinds: dict[int, type[RiffError]] = {4: ModelError, 5: SystemProblem}
    said = lines[-1].removeprefix("riff: error: ") if lines else f"riff serve ended with code {code}; run it by itself"
    return kinds.get(code, RiffError)(said)


def _figures(name: str, rounds: list[Round]) -> Figures:
    waits = [wait for each in rounds for wait in each.waits]
    return {
        f"{name}_requests_per_second": median(len(each.waits) / each.seconds for each in rounds),
        f"{name}_wait_p50_s": median(waits),
        f"{name}_wait_p95_s": quantiles(waits, n=20, method="inclusive")[-1],
    }


def _ratio(batched: list[Round], alone: list[Round]) -> Ratio:
    clock = [theirs.seconds / ours.seconds for ours, theirs in zip(batched, alone, strict=True)]
    work = [
        theirs.processor_s / ours.processor_s
        for ours, theirs in zip(batched, alone, strict=True)
        if theirs.processor_s and ours.processor_s
    ]
    meaning = f"as many requests a second with up to {SIDES['batched']} generated together as one at a time, riff serve"
    return Ratio.of("serve_batched", meaning, clock, processor=work)
