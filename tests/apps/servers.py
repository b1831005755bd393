"""Servers for tests: ``riff serve`` as a process, and the same in a thread around a pipeline that is there already."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch

from riff.apps.server.process import listen, make_server
from riff.apps.server.queue import WorkQueue
from riff.apps.server.settings import Metrics, Settings
from riff.diffusion.fingerprint import CheckpointOrigin

PATIENCE_S = 240.0  # for what must happen, however busy the machine is


def until(condition: Callable[[], Any]) -> None:
    """Wait for an event; a test that waits for ever fails here."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def raw(port: int, content: bytes, *, end: bool = True) -> bytes:
    """What comes back for bytes that no HTTP library would send; ``end`` says that no more follow."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        found = b""
        try:
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                found += part
        except ConnectionError:
            pass
        return found


class Running:
    """A ``riff serve`` process."""

    def __init__(self, model: Path, log: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "riff", "serve", "--model", str(model), "--device", "cpu", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=open(log, "w"),  # noqa: SIM115 - the process has it for as long as it lives
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip().rstrip("/")
        self.port = int(self.address.rpartition(":")[2] or 0)
        self.http = httpx.Client(
            base_url=self.address, timeout=PATIENCE_S, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def ready(self) -> "Running":
        until(lambda: self.process.poll() is not None or self.http.get("/readyz").status_code == 200)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.http.close()
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def gauge(self, name: str) -> float:
        """A number of Prometheus'."""
        lines = self.http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class Nothing:
    """What a queue needs to know of a pipeline, for jobs that generate nothing."""

    name = "none"
    device = torch.device("cpu")
    origin = CheckpointOrigin()
    sample_rate = 8000


class InProcess:
    """A server in a thread, around a pipeline."""

    def __init__(self, pipe: Any, **limits: Any) -> None:
        settings = Settings(port=0, **{"grace_s": 5, "deadline_s": PATIENCE_S, "idle_s": PATIENCE_S, **limits})
        bound = listen("127.0.0.1", 0)
        self.pipe, self.port, metrics = pipe, bound.getsockname()[1], Metrics()
        self.queue = WorkQueue(lambda: pipe, settings, metrics)
        self.server = make_server(self.queue, settings, metrics)
        self.queue.start()
        self.thread = threading.Thread(target=self.server.run, args=([bound],), daemon=True)
        self.thread.start()
        address = f"http://127.0.0.1:{self.port}"
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=address, timeout=PATIENCE_S, limits=limits)
        until(lambda: self.server.started and self.queue.state == "ready")

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
