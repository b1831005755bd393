"""What a server allows: every limit in one place, with the value that holds unless another is asked for."""

import dataclasses

MB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits and access rules of one server.

    Attributes:
        host: address to listen on.
        port: of it; 0 takes a free one.
        token: that every request but the health probes must bring; None asks for none.
        allow_hosts: names, besides localhost and addresses in digits, that a Host header may give.
        allow_origins: web origins (``https://example.org``) whose pages may call; ``*`` is all.
        queue_size: requests that may wait for the model.
        batch_size: requests that are alike drawn side by side; None is 1 on a CPU and 4 elsewhere.
        deadline_s: seconds from a request's arrival to its result.
        grace_s: seconds that running work has left after SIGTERM.
        max_prompt: characters of a prompt.
        max_steps: denoising steps.
        max_bars: length of a result in bars.
        max_seconds: length of a recording or a result in seconds.
        max_body: bytes of a request's body.
        max_connections: open connections, and requests in work.
        max_streams: endless streams at a time.
        idle_s: seconds that a client may pause while it sends its request.
        keep_jobs: finished jobs whose results are kept.
        keep_bytes: of their results in all.
        keep_s: seconds that each is kept.
        log_prompts: whether the log may hold what people asked for.
    """

    host: str = "127.0.0.1"
    port: int = 3013
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    queue_size: int = 8
    batch_size: int | None = None
    deadline_s: float = 300.0
    grace_s: float = 30.0
    max_prompt: int = 1000
    max_steps: int = 150
    max_bars: int = 512
    max_seconds: float = 600.0
    max_body: int = 16 * MB
    max_connections: int = 64
    max_streams: int = 2
    idle_s: float = 10.0
    keep_jobs: int = 64
    keep_bytes: int = 256 * MB
    keep_s: float = 600.0
    log_prompts: bool = False
