"""Starting a server and letting it end: the model loads while the health probes already answer."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import uvicorn

from riff.server.app import build_app
from riff.server.log import note, start_log
from riff.server.metrics import Metrics
from riff.server.queue import WorkQueue
from riff.server.settings import Settings
from riff.server.wire import Server, listen, patient_protocol

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline


def serve(
    load: Callable[[], "RiffPipeline"], settings: Settings, announce: Callable[[str], None], *, log: TextIO
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        load: gives the model; called in the thread that will use it.
        settings: limits and access.
        announce: is told the address once it is bound.
        log: gets one JSON object per event.

    Raises:
        SystemProblem: the port is taken.
        RiffError: whatever ``load`` raised.
        KeyboardInterrupt: SIGINT ended it.
    """
    start_log(log)
    bound = listen(settings.host, settings.port)
    port = bound.getsockname()[1]
    metrics = Metrics()
    queue = WorkQueue(lambda: _warmed(load()), settings, metrics)
    server = make_server(queue, settings, metrics)
    queue.start()
    threading.Thread(target=_watch, args=(queue, server), daemon=True).start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{host}:{port}/")
    note("listening", host=settings.host, port=port)
    server.run(sockets=[bound])
    note("stopped")
    if queue.failure is not None:
        raise queue.failure
    if server.interrupted:
        raise KeyboardInterrupt


def make_server(queue: WorkQueue, settings: Settings, metrics: Metrics) -> Server:
    """uvicorn around the application."""
    config = uvicorn.Config(
        build_app(queue, settings, metrics),
        http=patient_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.idle_s) + 5,
        timeout_graceful_shutdown=int(settings.grace_s + 5),
        backlog=256,
    )
    return Server(config, drain=queue.drain, expire=queue.expire, grace_s=settings.grace_s)


def _warmed(pipe: "RiffPipeline") -> "RiffPipeline":
    """Draw one small clip, so that the first request waits for no compiler and a broken model is found at once."""
    pipe("piano", seed=0, num_inference_steps=2)
    return pipe


def _watch(queue: WorkQueue, server: Server) -> None:
    """End the server if the model cannot be loaded."""
    while queue.state == "loading":
        time.sleep(0.05)
    if queue.state == "failed":
        server.should_exit = True
