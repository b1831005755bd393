"""The page as a whole, and the server that holds it."""

import contextlib
import functools
import os
import re
import webbrowser
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from riff.apps.playground import compose, edit, live, spectrogram, timeline, walk
from riff.apps.playground.cards import kept_list
from riff.apps.playground.stage import Stage
from riff.apps.playground.widgets import PRIVATE
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.pages import read_asset, render

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported, which asks the network otherwise
MAX_UPLOAD = 64 * 2**20  # bytes
MAX_QUEUE = 16
STATIC = Path(__file__).parent / "static"
TABS: tuple[tuple[str, Callable[[Stage], gr.Audio | None]], ...] = (
    ("Compose", compose.build),
    ("Walk", walk.build),
    ("Timeline", timeline.build),
    ("Remix", functools.partial(edit.build, verb="remix")),
    ("Extend", functools.partial(edit.build, verb="extend")),
    ("Inpaint", functools.partial(edit.build, verb="inpaint")),
    ("Spectrogram", spectrogram.build),
    ("Live", live.build),
)
# Nothing is loaded from elsewhere, whatever a library's page links to.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)
_FAR = re.compile(rb"<(?:link|script)\b[^>]*\b(?:href|src)=\"https?://[^>]*>(?:\s*</script>)?")


def make_page(stage: Stage) -> gr.Blocks:
    """All tabs, and below them the clips that were kept."""
    with gr.Blocks(title="riff", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(render("apps/playground/templates/head.html", model=stage.pipe.model.name), padding=False)
        sounds: dict[str, gr.Audio] = {}
        with gr.Tabs(overflow_behavior="wrap", elem_classes="riff-tabs") as tabs:
            for title, build in TABS:
                with gr.Tab(title, id=title.lower()):
                    sound = build(stage)
                    if sound is not None:
                        sounds[title.lower()] = sound
        _add_senders(stage, tabs, sounds)
        page.unload(stage.stop)
    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def _add_senders(stage: Stage, tabs: gr.Tabs, sounds: dict[str, gr.Audio]) -> None:
    """Hidden buttons, by which the page's script sends a clip of any card to a tab, or keeps it."""
    clip, names = gr.Textbox("", visible="hidden", elem_id="riff-clip"), gr.State([])
    kept = gr.HTML("", elem_id="riff-kept")
    sent: dict[str, Any] = {"js": "() => window.riffSent", **PRIVATE}

    def send(name: str, tab: str) -> tuple[object, object]:
        if name not in stage.shelf:
            raise gr.Error("that clip is no longer kept; make it again", print_exception=False)
        return str(stage.shelf.named_file(name)), gr.update(selected=tab)

    for tab, sound in sounds.items():
        button = gr.Button(tab, visible="hidden", elem_id=f"send-{tab}")
        button.click(functools.partial(send, tab=tab), clip, [sound, tabs], **sent)

    def keep(name: str, names: list[str]) -> tuple[list[str], str]:
        names = [each for each in [*(each for each in names if each != name), name] if each in stage.shelf]
        return names, kept_list([(each, stage.shelf.get(each)) for each in names])

    button = gr.Button("keep", visible="hidden", elem_id="send-keep")
    button.click(keep, [clip, names], [names, kept], **PRIVATE | {"js": "(_, names) => [window.riffSent, names]"})


def make_app(stage: Stage, *, names: tuple[str, ...] = ("*",)) -> "FastAPI":
    """The page, the clips' files, and nothing else.

    Args:
        stage: what the page works with.
        names: of this machine, so that no other site passes itself off as it; "*" is any.
    """
    from fastapi import FastAPI
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.responses import FileResponse, PlainTextResponse
    from fastapi.staticfiles import StaticFiles

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
    app.mount("/riff", StaticFiles(directory=STATIC))
    app.middleware("http")(_keep_at_home)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    head = render("apps/playground/templates/meta.html")
    return gr.mount_gradio_app(
        app, make_page(stage), path="/", allowed_paths=[], max_file_size=MAX_UPLOAD, ssr_mode=False, theme=theme(),
        css=read_asset("apps/playground/static/playground.css"), head=head, footer_links=[], show_error=True,
        server_name="127.0.0.1", enable_monitoring=False, pwa=False, mcp_server=False,
    )  # fmt: skip


def serve(stage: Stage, *, host: str, port: int, announce: Callable[[str], None], browser: bool) -> None:
    """Serve the page until a signal comes.

    Args:
        stage: what the page works with.
        host: address to listen on.
        port: 0 takes any that is free.
        announce: called with the page's address once it is there.
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


def is_foreign(request: "Request") -> bool:
    """Whether a browser sends a request for another site than this page."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")  # of browsers that do not say the site
    return origin is not None and origin.partition("://")[2] != request.headers.get("host", "")


async def _keep_at_home(request: "Request", call_next: Any) -> "Response":
    """Serve this page only: other sites may link to it, and neither call it nor store anything on it.

    What Gradio's page would load from elsewhere is taken out, and forbidden as well.
    """
    from fastapi.responses import PlainTextResponse, Response

    path = request.url.path
    if path.endswith("/openapi.json"):
        return PlainTextResponse("not found", status_code=404)
    if is_foreign(request) and (request.method not in ("GET", "HEAD") or path.startswith("/gradio_api")):
        return PlainTextResponse("this page takes requests from itself only", status_code=403)
    response: Response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if response.headers.get("content-type", "").startswith("text/html"):
        body = b"".join([part async for part in response.body_iterator])  # type: ignore[attr-defined]
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        headers["Content-Security-Policy"] = POLICY
        return Response(_FAR.sub(b"", body), response.status_code, headers)
    return response


def theme() -> gr.themes.Base:
    """Gradio's names for the colours of ``colours.css``, by day and by night the same variable."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    base = gr.themes.Base(
        primary_hue="violet", neutral_hue="zinc", font=fonts, font_mono=["ui-monospace", "monospace"],
        radius_size="lg", text_size="md",
    )  # fmt: skip
    names = {
        "ground": "body_background_fill background_fill_secondary button_secondary_background_fill_hover",
        "card": "background_fill_primary block_background_fill block_label_background_fill "
                "button_secondary_background_fill",
        "field": "input_background_fill",
        "ink": "body_text_color block_title_text_color button_secondary_text_color",
        "soft": "body_text_color_subdued block_label_text_color block_info_text_color",
        "line": "border_color_primary block_border_color input_border_color",
        "accent": "color_accent slider_color checkbox_background_color_selected checkbox_border_color_selected "
                  "button_primary_background_fill button_primary_background_fill_hover",
        "on-accent": "button_primary_text_color",
    }  # fmt: skip
    pairs = {name: f"var(--{colour})" for colour, listed in names.items() for name in listed.split()}
    pairs |= {f"{name}_dark": value for name, value in pairs.items() if name != "color_accent"}
    return base.set(**pairs, block_border_width="0px", block_shadow="none")
