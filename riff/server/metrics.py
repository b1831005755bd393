"""What Prometheus may read of a server."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server, in a registry of their own.

    Attributes:
        requests: by route and status.
        request_seconds: by route.
        jobs: by kind and outcome.
        job_seconds: of the model's work, by kind.
        steps: denoising steps drawn.
        waiting: jobs in the queue.
        running: jobs in work.
        streams: endless streams that are open.
        ready: 1 while requests are taken.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("riff_requests", "HTTP requests answered", ["route", "status"], **own)
        self.request_seconds = Histogram(
            "riff_request_seconds", "Seconds from request to answer", ["route"], buckets=_SECONDS, **own
        )
        self.jobs = Counter("riff_jobs", "Jobs ended", ["kind", "outcome"], **own)
        self.job_seconds = Histogram("riff_job_seconds", "Seconds of work on a job", ["kind"], buckets=_SECONDS, **own)
        self.steps = Counter("riff_denoising_steps", "Denoising steps drawn", **own)
        self.waiting = Gauge("riff_jobs_waiting", "Jobs in the queue", **own)
        self.running = Gauge("riff_jobs_running", "Jobs in work", **own)
        self.streams = Gauge("riff_streams", "Endless streams that are open", **own)
        self.ready = Gauge("riff_ready", "1 while requests are taken", **own)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
