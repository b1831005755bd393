"""What all of the server shares: its limits, the errors it answers with, its log and its metrics."""

import dataclasses
import json
import logging
import re
import time
import traceback
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from riff.tasks.requests import RenderRequest
from riff.utils.errors import ModelError, RiffError, SystemProblem, is_out_of_memory
from riff.utils.schema import describe_fields

MB = 1 << 20
# The largest value that riff itself allows for each option of a render.
_LARGEST: dict[str, Any] = {field.name: field.high for field in describe_fields(RenderRequest)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits and access rules of one server.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        token: required of every request except the health probes; None requires none.
        allow_hosts: names accepted in the Host header, besides localhost and numeric addresses.
        allow_origins: web origins (``https://example.org``) whose pages may call; ``*`` is all.
        queue_size: requests that may wait for the model.
        queue_bytes: of the uploads of all requests that wait or run.
        batch_size: similar requests generated side by side; None is 1 on a CPU and 4 elsewhere.
        deadline_s: seconds from a request's arrival to its result.
        grace_s: seconds that running work has left after SIGTERM.
        max_prompt: characters of a prompt.
        max_steps: denoising steps.
        max_bars: length of a result in bars.
        max_seconds: length of a recording or a result in seconds.
        max_body: bytes of a request's body.
        max_connections: requests handled at a time; health probes do not count.
        max_streams: endless streams at a time.
        idle_s: seconds that a client may pause while it sends its request.
        keep_jobs: finished jobs whose results are kept.
        keep_bytes: size of all kept results.
        keep_s: seconds that each result is kept.
        log_prompts: whether the log may contain prompts.
    """

    host: str = "127.0.0.1"
    port: int = 3013
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    queue_size: int = 8
    queue_bytes: int = 512 * MB
    batch_size: int | None = None
    deadline_s: float = 300.0
    grace_s: float = 30.0
    max_prompt: int = 1000
    max_steps: int = _LARGEST["num_inference_steps"]
    max_bars: int = _LARGEST["bars"]
    max_seconds: float = _LARGEST["duration"]
    max_body: int = 16 * MB
    max_connections: int = 64
    max_streams: int = 2
    idle_s: float = 10.0
    keep_jobs: int = 64
    keep_bytes: int = 256 * MB
    keep_s: float = 600.0
    log_prompts: bool = False


_QUOTED = re.compile(r"'(?P<a>[^']*)'|\"(?P<b>[^\"]*)\"")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"]+){2,}[/\\]?")
_LONGEST = 400
_SHORT = 12  # riff's own examples contain words as short as this


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: one line for the client.
        headers: to send with it, such as Retry-After.
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}


def human(message: str, secrets: Iterable[str] = ()) -> str:
    """A message for a client: one line, without paths and without quotations from ``secrets``, the prompts."""
    texts = [text for text in secrets if text]

    def hide(found: re.Match[str]) -> str:
        quoted = (found["a"] if found["a"] is not None else found["b"]).rstrip(".…")
        secret = len(quoted) > 1 and any(quoted in text or (len(text) > _SHORT and text in quoted) for text in texts)
        return "'…'" if secret else found[0]

    line = " ".join(_PATH.sub("(a file)", _QUOTED.sub(hide, message)).split())
    for text in texts:
        if len(text) > _SHORT:
            line = line.replace(text, "…")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def as_api_error(error: BaseException, secrets: Iterable[str] = ()) -> ApiError | None:
    """How an exception of riff's or the machine's is answered; None is a defect, whose text is not shown."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ModelError):
        return ApiError(500, "the model could not generate this; try another seed or guidance_scale")
    if isinstance(error, SystemProblem):
        return ApiError(503, "the server is short of disk space or memory; try again later", retry_after=30)
    if isinstance(error, RiffError):
        return ApiError(422, human(str(error), secrets))
    if is_out_of_memory(error):
        return ApiError(503, "there is not enough memory for this request; ask for less at once", retry_after=5)
    if isinstance(error, OSError):
        return ApiError(503, "the server has a problem with its disk; try again later", retry_after=30)
    return None


LOGGER = logging.getLogger("riff.apps.server")


class JsonLines(logging.Formatter):
    """One JSON object per record. Newlines are escaped, so no request can forge a line, and tracebacks stay out."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        event = record.getMessage()
        if not record.name.startswith((LOGGER.name, "uvicorn")):  # another library may quote a prompt
            event = f"{record.name} at {record.filename}:{record.lineno}"
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": event,
        }
        line |= getattr(record, "fields", {})
        return json.dumps(line, default=str)


def note(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one event with its fields."""
    LOGGER.log(level, event, extra={"fields": fields})


def note_defect(error: BaseException, **fields: Any) -> None:
    """Write where an unexpected exception came from. Its text stays out: it may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    note("defect", level=logging.ERROR, kind=type(error).__name__, at=places[-6:], **fields)


def _note_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    place = filename.replace("\\", "/").rpartition("/")[2]
    note("warning", level=logging.WARNING, kind=category.__name__, at=f"{place}:{lineno}")


def start_log(target: TextIO) -> None:
    """Send the server's events, and every library's warnings, to ``target``."""
    # Riff's warnings quote prompts, so the log says only where they arose.
    warnings.showwarning = _note_warning  # type: ignore[assignment]
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOGGER.setLevel(logging.INFO)


_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server, in a registry of their own; each says what it counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("riff_requests", "HTTP requests answered", ["route", "status"], **own)
        self.request_seconds = Histogram(
            "riff_request_seconds", "Seconds from request to answer", ["route"], buckets=_SECONDS, **own
        )
        self.jobs = Counter("riff_jobs", "Jobs ended", ["kind", "outcome"], **own)
        self.job_seconds = Histogram("riff_job_seconds", "Seconds of work on a job", ["kind"], buckets=_SECONDS, **own)
        self.steps = Counter("riff_denoising_steps", "Denoising steps done", **own)
        self.waiting = Gauge("riff_jobs_waiting", "Jobs in the queue", **own)
        self.running = Gauge("riff_jobs_running", "Jobs that the model works on", **own)
        self.streams = Gauge("riff_streams", "Endless streams that are open", **own)
        self.ready = Gauge("riff_ready", "1 while requests are accepted", **own)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
