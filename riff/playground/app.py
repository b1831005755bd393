"""The page as a whole, and the server that holds it."""

import contextlib
import html
import os
import re
import webbrowser
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported, which asks the network otherwise

import gradio as gr

from riff.errors import RiffError, SystemProblem
from riff.pipeline import RiffPipeline
from riff.playground import compose, extend, inpaint, live, remix, spectrogram, timeline, walk
from riff.playground.code import Source
from riff.playground.look import HEAD, POLICY, theme
from riff.playground.shelf import Shelf
from riff.playground.stage import Stage
from riff.playground.style import CSS
from riff.playground.work import Works

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

MAX_UPLOAD = 64 * 2**20  # bytes
MAX_QUEUE = 16
TABS: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Compose", compose.build),
    ("Walk", walk.build),
    ("Timeline", timeline.build),
    ("Remix", remix.build),
    ("Extend", extend.build),
    ("Inpaint", inpaint.build),
    ("Spectrogram", spectrogram.build),
    ("Live", live.build),
)
_FAR = re.compile(rb"<(?:link|script)\b[^>]*\b(?:href|src)=\"https?://[^>]*>(?:\s*</script>)?")


def make_stage(pipe: RiffPipeline, source: Source | None = None) -> Stage:
    """A stage for one pipeline; ``source`` is what the code on the page loads it by."""
    return Stage(pipe, source or Source(), Shelf(), Works(), Shelf(limit=16))


def make_page(stage: Stage) -> gr.Blocks:
    """All tabs."""
    with gr.Blocks(title="riff", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(
            '<header class="riff-head"><h1>riff</h1><p>A sentence becomes music. Made on this machine by '
            f"<b>{html.escape(stage.pipe.name)}</b>.</p></header>"
        )
        with gr.Tabs():
            for title, build in TABS:
                with gr.Tab(title, id=title.lower()):
                    build(stage)
        page.unload(stage.stop)
    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def make_app(stage: Stage, *, names: tuple[str, ...] = ("*",)) -> "FastAPI":
    """The page, the clips' files, and nothing else.

    Args:
        stage: what the page works with.
        names: by which the page may be asked for, so that no other site passes itself off as this machine; "*" is any.
    """
    from fastapi import FastAPI
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.responses import FileResponse, PlainTextResponse

    @contextlib.asynccontextmanager
    async def lifespan(_: "FastAPI") -> AsyncIterator[None]:
        yield
        stage.shelf.close()
        stage.parts.close()

    app = FastAPI(title="riff play", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    def clip_file(name: str) -> "Response":
        try:
            shelf = stage.parts if name[:16] in stage.parts else stage.shelf
            return FileResponse(shelf.file(name), headers={"Cache-Control": "private, max-age=3600"})
        except RiffError as error:
            return PlainTextResponse(str(error), status_code=404)

    app.add_api_route("/clips/{name}", clip_file, methods=["GET", "HEAD"], response_model=None)
    app.middleware("http")(_keep_at_home)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    return gr.mount_gradio_app(
        app, make_page(stage), path="/", allowed_paths=[], max_file_size=MAX_UPLOAD, ssr_mode=False, theme=theme(),
        css=CSS, head=HEAD, footer_links=[], show_error=True, server_name="127.0.0.1",
        enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip


def serve(stage: Stage, *, host: str, port: int, announce: Callable[[str], None], browser: bool) -> None:
    """Serve the page until a signal comes.

    Args:
        stage: what the page works with.
        host: address to listen on.
        port: 0 takes any that is free.
        announce: told the page's address once it is there.
        browser: open it.

    Raises:
        SystemProblem: the address is taken or none of this machine's.
    """
    import socket

    import uvicorn

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SystemProblem(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce(address)
            if browser:
                webbrowser.open(address)

    names = ("127.0.0.1", "localhost", host) if host in ("127.0.0.1", "localhost") else ("*",)
    config = uvicorn.Config(
        make_app(stage, names=names), log_level="error", access_log=False, timeout_graceful_shutdown=1
    )
    with listener:
        Server(config).run(sockets=[listener])


async def _keep_at_home(request: "Request", call_next: Any) -> "Response":
    """Take out what a page would load from elsewhere, and forbid it as well."""
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if response.headers.get("content-type", "").startswith("text/html"):
        from fastapi import Response

        body = b"".join([part async for part in response.body_iterator])
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        headers["Content-Security-Policy"] = POLICY
        return Response(_FAR.sub(b"", body), response.status_code, headers)
    return response
