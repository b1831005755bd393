"""Load ``riff serve`` with many clients at once and say whether it holds.

    python -m benchmarks.load_server                  50 clients, 2 minutes, a tiny model with random weights
    python -m benchmarks.load_server --rough          10 % of the requests are given up, 5 % are garbage
    python -m benchmarks.load_server --seconds 30 --clients 50 --model riff-mini

It holds if no answer is an error but 429 (and 4xx to garbage), every accepted job ends, jobs begin in the order in
which they came, and the process grows by less than 5 % after the first quarter of the time. Exit code 1 if not.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving import served

ROOT = Path(__file__).resolve().parent.parent
GIVEN_UP, GARBAGE = 0.10, 0.05
ROUTES = ("/v1/render", "/v1/walk", "/run_inference", "/v1/encode")
BODIES = (
    b"",
    b"{",
    b"[" * 100_000,
    b'{"prompt": NaN}',
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "jazz", "num_inference_steps": 1e9}',
    b'{"prompt": "jazz", "seed_image_id": "../../etc/passwd"}',
    b'{"audio": "!!!!"}',
    b"\x00\xff" * 1000,
    b'{"prompt": "' + b"a" * 100_000 + b'"}',
    b'{"prompt": "\\ud800"}',
    b'{"start": 1, "end": 2, "alpha": 3}',
)


def tiny_checkpoint(folder: Path) -> Path:
    """riff-mini in miniature, as the tests have it."""
    sys.path.insert(0, str(ROOT))
    import torch
    from diffusers import DDIMScheduler

    from riff.diffusion.checkpoint import save_checkpoint
    from riff.prompt.prior import MusicPrior
    from riff.spectrogram.config import SpectrogramConfig
    from tests.conftest import tiny_pipeline

    scheduler = DDIMScheduler(
        steps_offset=1,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    pipeline = tiny_pipeline(picture_channels=1, latent_channels=8, scheduler=scheduler)
    config = SpectrogramConfig(
        sample_rate=8000,
        n_fft=1024,
        win_length=512,
        hop_length=64,
        n_mels=32,
        f_max=4000.0,
        frames_per_beat=8,
        width=64,
    )
    prior = MusicPrior(weight=torch.zeros(2, 16), bias=torch.tensor([6.5, -4.0]))
    return Path(save_checkpoint(pipeline, config, folder / "riff-tiny", prior=prior))


def resident(process: int) -> float:
    """Megabytes that a process holds in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


Seen = list[tuple[str, int, float]]


async def client(http: httpx.AsyncClient, end: float, seen: Seen, chance: random.Random, *, rough: bool) -> None:
    """One client: it sends a request, waits, and sends the next; ``seen`` gets (kind, status, seconds)."""
    while time.monotonic() < end:
        luck, began, pause = chance.random(), time.monotonic(), 0.0
        kind = "honest"
        if rough and luck < GIVEN_UP + GARBAGE:
            kind = "given up" if luck < GIVEN_UP else "garbage"
        try:
            reply = await ask(http, kind, chance)
            status = reply.status_code
            if status == 429:
                pause = min(float(reply.headers["retry-after"]), 1.0) * chance.uniform(0.5, 1.5)
        except httpx.TimeoutException:
            status = 0 if kind == "given up" else -1
        except httpx.HTTPError:
            status = -1
        seen.append((kind, status, time.monotonic() - began))
        await asyncio.sleep(pause)


async def ask(http: httpx.AsyncClient, kind: str, chance: random.Random) -> httpx.Response:
    """One request of a kind."""
    if kind == "garbage":
        typed = {"content-type": "application/json"}
        return await http.post(chance.choice(ROUTES), content=chance.choice(BODIES), headers=typed)
    body = {"prompt": "jazz piano", "num_inference_steps": 2, "bars": 2, "quality": "fast"}
    patience = chance.uniform(0.02, 1.0) if kind == "given up" else 60.0
    return await http.post("/v1/render", json={**body, "seed": chance.randrange(99)}, timeout=patience)


async def load(
    address: str, process: int, options: argparse.Namespace
) -> tuple[list[tuple[str, int, float]], list[float]]:
    """All clients for the given time, and the server's memory once a second meanwhile."""
    seen: Seen = []
    memory: list[float] = []
    end = time.monotonic() + options.seconds
    limits = httpx.Limits(max_connections=options.clients, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as http:
        clients = [
            asyncio.create_task(client(http, end, seen, random.Random(number), rough=options.rough))
            for number in range(options.clients)
        ]
        while not all(task.done() for task in clients):
            memory.append(resident(process))
            await asyncio.sleep(1)
        await asyncio.gather(*clients)
    return seen, memory


def jobs_of(log: Path) -> list[dict[str, Any]]:
    """What the log says of every job, with the times it came and began."""
    jobs = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "job":
            moment, part = event["time"].rstrip("Z").split(".")
            ended = time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%S")) + int(part) / 1000
            began = ended - (event["worked_s"] or 0.0)
            jobs.append({**event, "began": began, "came": began - event["waited_s"]})
    return jobs


def out_of_order(jobs: list[dict[str, Any]]) -> int:
    """Jobs that began before one that had come earlier; the log's times are exact to a few milliseconds."""
    done = sorted((job for job in jobs if job["worked_s"] is not None), key=lambda job: job["began"])
    return sum(later["came"] < earlier["came"] - 0.02 for earlier, later in itertools.pairwise(done))


def fits(kind: str, status: int) -> bool:
    """Whether a kind of request may be answered so; 0 is a client that did not wait for it."""
    if kind == "garbage":
        return 400 <= status < 500
    return status in (200, 429) or (status == 0 and kind == "given up")


def report(seen: Seen, memory: list[float], jobs: list[dict[str, Any]], code: int) -> bool:
    """Print the table; True if the server held."""
    counts = Counter((kind, status) for kind, status, _ in seen)
    done = sorted(seconds for kind, status, seconds in seen if kind == "honest" and status == 200)
    refused = [seconds for _, status, seconds in seen if status == 429]
    steady = memory[len(memory) // 4 :] or [0.0]
    growth = max(steady) / steady[0] - 1.0 if steady[0] else 0.0
    states = Counter(job["state"] for job in jobs)
    wrong = sum(number for (kind, status), number in counts.items() if not fits(kind, status))
    mixed, failed = out_of_order(jobs), states["failed"]
    print(f"{'requests':<34}{len(seen)}")
    for (kind, status), number in sorted(counts.items()):
        print(f"  {kind + ' -> ' + {0: 'left', -1: 'no answer'}.get(status, str(status)):<32}{number}")
    print(f"{'jobs by how they ended':<34}{dict(states)}")
    if done:
        print(f"{'seconds to a clip: median, worst':<34}{statistics.median(done):.2f}, {done[-1]:.2f}")
    if refused:
        print(f"{'seconds to a 429: median, worst':<34}{statistics.median(refused):.3f}, {max(refused):.3f}")
    print(f"{'memory: steady, most, growth':<34}{steady[0]:.0f} MB, {max(steady):.0f} MB, {growth:+.1%}")
    print(f"{'jobs begun out of order':<34}{mixed}")
    print(f"{'wrong answers, failed jobs':<34}{wrong}, {failed}")
    print(f"{'exit code after SIGTERM':<34}{code}")
    holds = not (wrong or failed or mixed or code) and growth < 0.05
    print("it holds" if holds else "IT DOES NOT HOLD")
    return holds


def main() -> int:
    """Start a server, load it, end it."""
    parser = argparse.ArgumentParser(description="Load riff serve and say whether it holds.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rough", action="store_true", help="10 %% of the requests are given up, 5 %% are garbage")
    parser.add_argument("--model", help="default a tiny one with random weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        model = options.model or str(tiny_checkpoint(Path(folder)))
        with served(["--model", model, "--device", "cpu"], log) as server:
            seen, memory = asyncio.run(load(server.address, server.process.pid, options))
            code = server.stop()
        return 0 if report(seen, memory, jobs_of(log), code) else 1


if __name__ == "__main__":
    sys.exit(main())
