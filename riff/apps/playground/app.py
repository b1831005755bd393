"""The page as a whole, and the server that holds it."""

import contextlib
import html
import os
import re
import webbrowser
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from riff.apps.playground import compose, live, spectrogram, timeline, walk
from riff.apps.playground.edit import build_extend, build_inpaint, build_remix
from riff.apps.playground.stage import Shelf, Source, Stage, Works
from riff.pipeline import RiffPipeline
from riff.utils.errors import RiffError, SystemProblem

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported, which asks the network otherwise
MAX_UPLOAD = 64 * 2**20  # bytes
MAX_QUEUE = 16
TABS: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Compose", compose.build),
    ("Walk", walk.build),
    ("Timeline", timeline.build),
    ("Remix", build_remix),
    ("Extend", build_extend),
    ("Inpaint", build_inpaint),
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


# WAS riff/playground/script.py: What moves on the page: players, the line in the picture, A/B, copying,
# dragging a region.

SCRIPT = r"""
(() => {
const players = () => [...document.querySelectorAll('.riff-player audio')];
const parts = node => {
  const box = node.closest('.riff-player');
  return box && { box, audio: box.querySelector('audio'), picture: box.querySelector('.riff-picture'),
    line: box.querySelector('.riff-picture > i'), now: box.querySelector('.riff-now'),
    button: box.querySelector('.riff-play') };
};
const clock = s => Math.floor(s / 60) + ':' + String(Math.floor(s % 60)).padStart(2, '0');
const draw = audio => {
  const p = parts(audio);
  if (!p) return;
  if (audio.duration) p.line.style.left = 100 * audio.currentTime / audio.duration + '%';
  p.now.textContent = clock(audio.currentTime);
  p.picture.setAttribute('aria-valuenow', audio.currentTime.toFixed(1));
  if (!audio.paused) requestAnimationFrame(() => draw(audio));
};
let pair = null;
const toggle = audio => audio.paused ? audio.play() : audio.pause();
const seek = (audio, seconds) => {
  audio.currentTime = Math.max(0, Math.min(seconds, (audio.duration || 0) - 0.01));
  draw(audio);
};
document.addEventListener('play', event => {
  const audio = event.target;
  if (!parts(audio)) return;
  for (const other of players())
    if (other !== audio && !(pair && pair.includes(audio) && pair.includes(other))) other.pause();
  if (window.riffLive && window.riffLive.on) window.riffLive.stop();
  const p = parts(audio);
  p.box.classList.add('on'); p.button.setAttribute('aria-label', 'pause');
  draw(audio);
}, true);
for (const kind of ['pause', 'ended'])
  document.addEventListener(kind, event => {
    const p = parts(event.target);
    if (!p) return;
    p.box.classList.remove('on'); p.button.setAttribute('aria-label', 'play');
    if (pair && !players().some(each => pair.includes(each) && !each.paused)) endPair();
  }, true);
document.addEventListener('seeked', event => draw(event.target), true);

const endPair = () => {
  if (!pair) return;
  for (const audio of pair) { audio.muted = false; audio.pause(); }
  for (const button of document.querySelectorAll('.riff-both')) button.textContent = 'Play';
  pair = null; tellPair();
};
const chosen = letter => {
  const radio = document.querySelector('.riff-kept .riff-' + letter + ':checked');
  return radio && radio.closest('.riff-card').querySelector('audio');
};
const playPair = button => {
  if (pair) return endPair();
  const a = chosen('a'), b = chosen('b');
  if (!a || !b || a === b) return;
  pair = [a, b];
  a.currentTime = b.currentTime = 0; b.muted = true; a.muted = false;
  a.play(); b.play(); button.textContent = 'Stop'; tellPair();
};
const tellPair = () => {
  for (const button of document.querySelectorAll('.riff-switch'))
    button.textContent = pair && pair[0].muted ? 'Hear A' : 'Hear B';
};
const copy = async button => {
  const text = button.parentNode.querySelector('pre').textContent;
  try { await navigator.clipboard.writeText(text); }
  catch { const area = document.createElement('textarea'); area.value = text; document.body.append(area);
    area.select(); document.execCommand('copy'); area.remove(); }
  button.textContent = 'Copied'; setTimeout(() => button.textContent = 'Copy', 1500);
};
document.addEventListener('click', event => {
  const at = name => event.target.closest('.' + name);
  let found;
  if ((found = at('riff-play'))) toggle(parts(found).audio);
  else if ((found = at('riff-copy'))) copy(found);
  else if ((found = at('riff-both'))) playPair(found);
  else if (at('riff-switch') && pair) { for (const audio of pair) audio.muted = !audio.muted; tellPair(); }
  else if ((found = at('riff-picture')) && !found.classList.contains('riff-choose')) {
    const p = parts(found), box = found.getBoundingClientRect();
    if (p) { seek(p.audio, (event.clientX - box.left) / box.width * p.audio.duration); p.audio.play(); }
  }
});
document.addEventListener('change', event => {
  if (event.target.classList.contains('riff-round')) parts(event.target).audio.loop = event.target.checked;
});
document.addEventListener('keydown', event => {
  const picture = event.target.closest && event.target.closest('.riff-picture');
  if (!picture || !parts(picture)) return;
  const audio = parts(picture).audio, step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { seek(audio, audio.currentTime + step); event.preventDefault(); }
  else if (event.key === ' ' || event.key === 'Enter') { toggle(audio); event.preventDefault(); }
  else if (event.key === 'Home') { seek(audio, 0); event.preventDefault(); }
});

// A stretch of a picture, chosen by dragging, is told to the two number fields beside it.
let drag = null;
const tellRegion = (picture, from, to) => {
  const mark = picture.querySelector('.riff-region');
  mark.hidden = false; mark.style.left = 100 * from + '%'; mark.style.width = 100 * (to - from) + '%';
};
const putNumber = (name, value) => {
  const field = document.querySelector('#' + name + ' input[type=number]');
  if (!field) return;
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, value.toFixed(2));
  for (const kind of ['input', 'change', 'blur']) field.dispatchEvent(new Event(kind, { bubbles: true }));
};
document.addEventListener('pointerdown', event => {
  const picture = event.target.closest('.riff-choose');
  if (!picture) return;
  const box = picture.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  drag = { picture, box, from: share, to: share }; picture.setPointerCapture(event.pointerId); event.preventDefault();
});
document.addEventListener('pointermove', event => {
  if (!drag) return;
  drag.to = Math.max(0, Math.min(1, (event.clientX - drag.box.left) / drag.box.width));
  tellRegion(drag.picture, Math.min(drag.from, drag.to), Math.max(drag.from, drag.to));
});
document.addEventListener('pointerup', () => {
  if (!drag) return;
  const { picture, from, to } = drag, p = parts(picture), seconds = +picture.getAttribute('aria-valuemax');
  drag = null;
  if (Math.abs(to - from) * picture.clientWidth < 4) { seek(p.audio, from * p.audio.duration); return p.audio.play(); }
  putNumber('riff-from', Math.min(from, to) * seconds); putNumber('riff-to', Math.max(from, to) * seconds);
});
document.addEventListener('input', event => {
  if (!event.target.closest || !event.target.closest('#riff-from, #riff-to')) return;
  const picture = document.querySelector('.riff-choose');
  if (!picture || drag) return;
  const value = name => +document.querySelector('#' + name + ' input[type=number]').value;
  const seconds = +picture.getAttribute('aria-valuemax'), from = value('riff-from'), to = value('riff-to');
  if (to > from) tellRegion(picture, from / seconds, Math.min(1, to / seconds));
});
})();
"""


# WAS riff/playground/stream_script.py: Music that comes in parts, on the page, without a gap.
#
# A walk's parts begin on a bar line of the one before and are faded into each other; Live's go on to the
# sample.

STREAM = r"""
(() => {
const FADE = 0.012, SOON = 0.12;  // seconds: of a join's fade, and in which nothing new is begun
const feed = { context: null, kind: null, on: false, parts: [], last: null, pending: false, wanted: 0,
  asking: 0, got: 0, more: true, made: 0, took: 2, repeats: 0, gaps: 0, joins: [], changes: [],
  timer: null };
window.riffLive = feed;
const within = selector => document.querySelector(selector);
const say = text => {
  const line = within('#' + feed.kind + '-now .riff-live-now');
  if (line) line.textContent = text;
};
const newest = () => feed.parts[feed.parts.length - 1];
const end = () => feed.parts.length ? newest().until : 0;

feed.begin = kind => {
  feed.stop();
  document.querySelectorAll('.riff-player audio').forEach(audio => audio.pause());
  const box = within('#' + kind + '-now .riff-live');
  feed.context = feed.context || new AudioContext({ sampleRate: +box.dataset.rate });
  feed.context.resume();
  Object.assign(feed, { kind, on: true, parts: [], last: null, pending: false, wanted: 0, asking: 0, got: 0, more: true,
    made: 0, repeats: 0, gaps: 0, joins: [], changes: [] });
  feed.timer = setInterval(tick, 60);
  if (kind === 'live') ask();
  say('Getting the first bars ready');
  box.classList.add('on');
};
feed.stop = () => {
  if (!feed.on) return;
  feed.on = false; clearInterval(feed.timer);
  for (const part of feed.parts) fadeOut(part, feed.context.currentTime + FADE);
  feed.parts = [];
  const box = within('#' + feed.kind + '-now .riff-live');
  if (box) box.classList.remove('on');
  const picture = within('#' + feed.kind + '-now .riff-live-picture');
  if (picture) picture.classList.remove('on');
  say('Stopped');
};
const fadeOut = (part, at) => {
  const begin = Math.max(feed.context.currentTime, at - FADE);
  part.gain.gain.setValueAtTime(1, begin);
  part.gain.gain.linearRampToValueAtTime(0, Math.max(at, begin + 0.001));
  try { part.source.stop(at + 0.002); } catch {}
  part.until = at;
};
// A part's bars and beats are seconds of its sound. What is seamless begins with the sample after the last one.
const play = (sound, from, at, { repeated = false, seamless = false } = {}) => {
  if (!seamless) at = Math.ceil(at * feed.context.sampleRate) / feed.context.sampleRate;
  const gain = feed.context.createGain(), source = feed.context.createBufferSource();
  source.buffer = sound.buffer; source.connect(gain).connect(feed.context.destination);
  if (!seamless) {
    for (const part of feed.parts) if (part.until > at - FADE && part.at < at) fadeOut(part, at);
    for (const part of feed.parts) if (part.at >= at) { try { part.source.stop(); } catch {} }
    feed.parts = feed.parts.filter(part => part.at < at);
    gain.gain.setValueAtTime(0, at); gain.gain.linearRampToValueAtTime(1, at + 0.002);
  }
  source.start(at, from);
  const lines = sound.bars.filter(bar => bar >= from - 1e-6).map(bar => at + bar - from);
  const beats = sound.beats.map((beat, index) => ({ time: at + beat - from, phase: index % sound.perBar }))
    .filter(beat => beat.time >= at - 1e-6);
  feed.parts.push({ source, gain, at, from, until: at + sound.until - from, lines, beats, sound, said: sound.said,
    repeated });
  feed.joins.push({ came: feed.context.currentTime, at, from, until: at + sound.until - from, repeated, seamless,
    said: sound.said, beats: sound.beats, source: sound.source });
};
const join = sound => {
  const now = feed.context.currentTime + SOON;
  let at = end(), seamless = feed.kind === 'live' && feed.parts.length > 0;
  if (feed.kind === 'walk' && feed.parts.length && newest().repeated) {
    // What was repeated while this was made gives way at its next bar line.
    at = newest().lines.find(line => line >= now) || at;
  }
  if (at < feed.context.currentTime + 0.02) { if (feed.last) feed.gaps += 1; at = now; seamless = false; }
  play(sound, sound.from, at, { seamless });
  feed.last = sound; feed.made += 1;
};
// Nothing new has come: what is heard is heard again, on the beat.
const again = now => {
  const { bars } = feed.last, live = feed.kind === 'live', part = newest();
  const from = live ? 0 : Math.max(feed.last.from, bars[Math.max(0, bars.length - 3)]);
  const at = live && part ? part.at - part.from + bars[bars.length - 1] - bars[0] : end();
  feed.repeats += 1;
  play(feed.last, from, Math.max(at, now + 0.05), { repeated: true });
};
const show = (part, now) => {
  const box = within('#' + feed.kind + '-now .riff-live-picture'), image = box.querySelector('img');
  if (image.dataset.of !== part.sound.source) { image.src = part.sound.picture; image.dataset.of = part.sound.source; }
  box.classList.add('on');
  box.querySelector('i').style.left = 100 * (part.from + now - part.at) / part.sound.buffer.duration + '%';
};
const tick = () => {
  if (!feed.on) return;
  const now = feed.context.currentTime, part = [...feed.parts].reverse().find(each => each.at <= now);
  feed.parts = feed.parts.filter(each => each.until > now - 1);
  if (part && part.until > now) {
    const times = feed.parts.flatMap(each => each.beats).map(each => each.time);
    const beat = Math.max(...times.filter(each => each <= now)), next = Math.min(...times.filter(each => each > now));
    show(part, now);
    const since = next < Infinity && beat > -Infinity ? (now - beat) / (next - beat) : 0;
    within('#' + feed.kind + '-now .riff-beat').style.opacity = 1 - 0.75 * since;
    say(part.said + (feed.got < feed.wanted ? ' · on its way to what you asked' : ''));
  }
  if (feed.last && feed.more && end() - now < 0.2) again(now);
  if (feed.last && !feed.more && end() < now) return feed.stop();
  if (feed.kind !== 'live' || feed.pending) return;
  if (!feed.last || end() - now < lookahead()) ask();
};
// As riff.tasks.stream has it: a bar is asked for as late as is safe, so that it is of what is asked for then.
const lookahead = () => {
  const { bars } = feed.last, bar = bars[bars.length - 1] - bars[0];
  return Math.min(Math.max(1.5 * feed.took + SOON, 0.5 * bar), bar);
};
const ask = () => {
  feed.pending = true; feed.asking = feed.wanted; feed.asked = performance.now();
  within('#live-next').click();
};
const arrive = async node => {
  const kind = node.dataset.feed;
  if (!feed.on || kind !== feed.kind) return;
  if (!node.dataset.src) { feed.pending = false; return; }
  const bytes = await (await fetch(node.dataset.src)).arrayBuffer();
  const buffer = await feed.context.decodeAudioData(bytes);
  if (!feed.on || kind !== feed.kind) return;
  if (kind === 'live') feed.took = 0.5 * feed.took + 0.5 * (performance.now() - feed.asked) / 1000;
  feed.more = node.dataset.more === '1';
  const beats = node.dataset.beats.split(' ').map(Number), perBar = +node.dataset.perBar;
  const bars = beats.filter((beat, index) => index % perBar === 0);
  feed.got = feed.asking;
  join({ buffer, beats, perBar, bars, from: +node.dataset.from, until: kind === 'live' ? buffer.duration :
    +node.dataset.until, said: node.dataset.said, picture: node.dataset.picture, source: node.dataset.src });
  feed.pending = false;
};
let queue = Promise.resolve();
new MutationObserver(() => {
  for (const node of document.querySelectorAll('.riff-part:not([data-seen])')) {
    node.dataset.seen = '1';
    queue = queue.then(() => arrive(node)).catch(() => { feed.pending = false; });
  }
  if (within('#live-feed .riff-error') && feed.on && feed.kind === 'live') {
    const text = within('#live-feed .riff-error').textContent;
    feed.stop(); say(text);
  }
}).observe(document, { childList: true, subtree: true });

let patience = null;
const change = () => {
  feed.wanted += 1;
  feed.changes.push({ at: feed.context.currentTime, wanted: feed.wanted });
  const left = feed.last ? end() - feed.context.currentTime : Infinity;
  if (feed.pending && left > 1.2 * feed.took + SOON) within('#live-cancel').click();  // no longer wanted
};
document.addEventListener('input', event => {
  if (!feed.on || feed.kind !== 'live' || !event.target.closest('#live-controls')) return;
  clearTimeout(patience);
  patience = setTimeout(change, 150);
});
document.addEventListener('click', event => {
  const at = name => event.target.closest('#' + name);
  if (at('live-go')) feed.begin('live');
  else if (at('walk-go') && within('#walk-listen input').checked) feed.begin('walk');
  else if (at('live-stop') || at('walk-stop')) feed.stop();
  else if (event.target.closest('#live-chips button') && feed.on)
    setTimeout(change, 150);
}, true);
})();
"""


# WAS riff/playground/look.py: How the page looks: one set of colours by day and one by night, the system's own
# fonts.

HEAD = f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{SCRIPT}{STREAM}</script>'
# Nothing is loaded from elsewhere, whatever a library's page asks for.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)


def theme() -> gr.themes.Base:
    """riff's colours in Gradio's names; the second of each pair is for the night."""
    colours = {
        "body_background_fill": ("#f6f4ef", "#121019"),
        "body_text_color": ("#1d1b26", "#efecf6"),
        "body_text_color_subdued": ("#66626f", "#a59fb5"),
        "background_fill_primary": ("#ffffff", "#1c1926"),
        "background_fill_secondary": ("#f6f4ef", "#16131f"),
        "block_background_fill": ("#ffffff", "#1c1926"),
        "block_label_background_fill": ("#ffffff", "#1c1926"),
        "block_label_text_color": ("#66626f", "#a59fb5"),
        "block_title_text_color": ("#3f3b49", "#cbc6d8"),
        "border_color_primary": ("#e4e0d8", "#2d293a"),
        "block_border_color": ("#e4e0d8", "#2d293a"),
        "input_background_fill": ("#fbfaf7", "#16131f"),
        "input_border_color": ("#ddd8ce", "#383347"),
        "color_accent": ("#6c3fd1", "#b69cff"),
        "slider_color": ("#6c3fd1", "#b69cff"),
        "checkbox_background_color_selected": ("#6c3fd1", "#8c6be8"),
        "button_primary_background_fill": ("#6c3fd1", "#b69cff"),
        "button_primary_background_fill_hover": ("#5a31b8", "#c7b3ff"),
        "button_primary_text_color": ("#ffffff", "#14101f"),
        "button_secondary_background_fill": ("#ffffff", "#231f30"),
        "button_secondary_background_fill_hover": ("#efeaf9", "#2d2740"),
        "button_secondary_border_color": ("#ddd8ce", "#383347"),
        "button_secondary_text_color": ("#1d1b26", "#efecf6"),
    }
    base = gr.themes.Base(
        primary_hue="violet",
        neutral_hue="zinc",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
    pairs = {name: day for name, (day, _) in colours.items()}
    pairs |= {f"{name}_dark": night for name, (_, night) in colours.items()}
    pairs.pop("color_accent_dark")
    return base.set(**pairs, block_border_width="1px", block_shadow="none")


# WAS riff/playground/style.py: The page's style sheet, in Gradio's own colour variables so that day and night
# both hold.

CSS = """
:root, .dark { --riff-night: #0b0a1f; }
.dark { --color-accent: #b69cff; }
.gradio-container { width: 100% !important; max-width: min(72rem, 100vw) !important; min-width: 0 !important;
  margin: 0 auto !important; padding: 0 clamp(.5rem, 3vw, 2rem) !important; overflow-x: clip; }
.gradio-container > .main { padding-left: 0 !important; padding-right: 0 !important; }
.gradio-container > .main, .gradio-container main { width: 100% !important; max-width: 100% !important;
  min-width: 0 !important; }
[id$="-status"] .error, [id$="-status"] .clear-status { display: none; }
[id$="-status"] .translucent { background: none !important; }
.riff-head { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; padding: 1.1rem 0 .1rem; }
.riff-head h1 { margin: 0; font-size: 2rem; letter-spacing: -.03em; line-height: 1.1; font-weight: 750; }
.riff-head p { margin: 0; color: var(--body-text-color-subdued); }
.riff-chips { gap: .4rem !important; flex-wrap: wrap !important; }
.riff-chips button { flex: 0 1 auto !important; width: auto !important; min-width: 0 !important;
  border-radius: 99px !important; font-weight: 450 !important;
  border: 1px solid var(--border-color-primary) !important; padding: .3rem .8rem !important; }
.riff-row { align-items: end; }
.riff-status { min-height: 2.4rem; }
footer { display: none !important; }
.riff-dice::before { content: ""; width: 1.05rem; height: 1.05rem; margin-right: .45rem; border: 2px solid;
  border-radius: .3rem; background: radial-gradient(circle, currentColor 30%, transparent 34%) 0 0 / 50% 50%; }
.riff-progress { display: grid; gap: .35rem; font-size: .92rem; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; }
.riff-progress > div { height: 6px; border-radius: 9px; background: var(--border-color-primary); overflow: hidden; }
.riff-progress i { display: block; height: 100%; border-radius: 9px; background: var(--color-accent);
  transition: width .25s linear; }
.riff-progress.busy i { width: 25%; animation: riff-busy 1.4s ease-in-out infinite alternate; }
@keyframes riff-busy { to { transform: translateX(300%) } }
.riff-error { color: #c43c3c; margin: .2rem 0; overflow-wrap: anywhere; }
.dark .riff-error { color: #ff8d8d; }
.riff-empty { display: grid; place-items: center; text-align: center; min-height: 15rem; border-radius: 14px;
  padding: 1rem;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued); }
.riff-card { background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: 14px;
  overflow: hidden; padding: 0 0 .9rem; }
.riff-card > :not(.riff-player) { margin-left: 1rem; margin-right: 1rem; }
.riff-card h3 { margin: .3rem 1rem .2rem; font-size: 1rem; font-weight: 600; line-height: 1.35;
  overflow-wrap: anywhere; }
.riff-player .riff-picture, .riff-live-picture { position: relative; height: clamp(8rem, 22vw, 13rem);
  background: var(--riff-night);
  cursor: pointer; overflow: hidden; touch-action: pan-y; }
.riff-picture img { display: block; width: 100%; height: 100%; object-fit: fill; margin: 0; pointer-events: none; }
.riff-picture[style]::after { content: ""; position: absolute; inset: 0; pointer-events: none; opacity: .5;
  background: repeating-linear-gradient(90deg, #fff 0 1px, transparent 1px var(--bar)); }
.riff-picture i { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; z-index: 2;
  box-shadow: 0 0 8px #fff8; pointer-events: none; opacity: 0; }
.riff-player.on i, .riff-picture:focus-visible i { opacity: 1; }
.riff-choose { cursor: crosshair !important; user-select: none; }
.riff-region { position: absolute; top: 0; bottom: 0; background: #ffffff3d; border: solid #fff; border-width: 0 2px;
  pointer-events: none; z-index: 1; }
.riff-region[hidden] { display: none; }
.riff-bar { display: flex; align-items: center; gap: .8rem; padding: .7rem 1rem .2rem; }
.riff-play { width: 2.9rem; height: 2.9rem; border-radius: 50%; border: 0; background: var(--color-accent);
  cursor: pointer;
  display: grid; place-items: center; flex: none; }
.riff-play::before { content: ""; width: 0; height: 0; margin-left: .2rem; border: solid transparent;
  border-width: .5rem 0 .5rem .8rem; border-left-color: #fff; }
.riff-player.on .riff-play::before { width: .8rem; height: .95rem; margin: 0; border: solid #fff;
  border-width: 0 .26rem; }
.dark .riff-play::before { border-left-color: #14101f; }
.dark .riff-player.on .riff-play::before { border-color: #14101f; }
.riff-time { font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); }
.riff-loop { margin-left: auto; display: flex; gap: .4rem; align-items: center;
  color: var(--body-text-color-subdued); }
.riff-facts { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: 0 1rem .5rem !important;
  padding: 0 !important;
  list-style: none !important; font-size: .88rem; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; }
.riff-facts li { margin: 0; }
.riff-note { margin: .1rem 1rem .5rem; font-size: .9rem; color: #9a6700; }
.dark .riff-note { color: #e3b341; }
.riff-files { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center; margin-top: .3rem;
  margin-bottom: .6rem; }
.riff-files > span { color: var(--body-text-color-subdued); font-size: .88rem; margin-right: .2rem; }
.riff-files label { display: flex; gap: .25rem; align-items: center; font-weight: 600; }
.riff-files a { padding: .22rem .7rem; border: 1px solid var(--border-color-primary); border-radius: 99px;
  font-size: .82rem;
  color: var(--body-text-color) !important; text-decoration: none !important; }
.riff-files a:hover { border-color: var(--color-accent); }
.riff-files input[type=radio], .riff-loop input { border: 1px solid var(--body-text-color-subdued) !important; }
.riff-code summary { cursor: pointer; padding: .25rem 0; color: var(--body-text-color-subdued); font-size: .9rem; }
.riff-code pre { margin: .2rem 0 .4rem; padding: .7rem .9rem; border-radius: 8px;
  background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); white-space: pre-wrap; overflow-wrap: anywhere; font-size: .82rem;
  font-family: ui-monospace, monospace; }
.riff-copy, .riff-both, .riff-switch { border: 1px solid var(--border-color-primary); border-radius: 99px;
  cursor: pointer;
  padding: .3rem .9rem; background: var(--block-background-fill); color: var(--body-text-color); font-size: .88rem; }
.riff-both { background: var(--color-accent); border-color: transparent; color: #fff; }
.dark .riff-both { color: #14101f; }
.riff-kept h2 { font-size: 1.1rem; margin: 1rem 0 .5rem; }
.riff-kept > div:last-child { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.riff-kept .riff-picture { height: 6.5rem; }
.riff-compare { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem; margin-bottom: .8rem; }
.riff-compare small { color: var(--body-text-color-subdued); }
.riff-two { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.riff-two h4, .riff-card > h4 { margin: .6rem 1rem .5rem; font-size: .85rem; text-transform: uppercase;
  letter-spacing: .06em;
  color: var(--body-text-color-subdued); }
.riff-lane { width: 100%; height: auto; display: block; border-radius: 14px; }
.riff-live { display: flex; gap: .8rem; align-items: center; padding: .6rem .2rem;
  color: var(--body-text-color-subdued); }
.riff-live-picture { border-radius: 14px; cursor: default !important; height: clamp(7rem, 18vw, 11rem); }
.riff-live-picture:not(.on) { display: none; }
.riff-live-picture.on > i { opacity: 1; }
.riff-beat { width: .9rem; height: .9rem; border-radius: 50%; background: var(--color-accent); opacity: .25;
  flex: none; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 40rem) { .riff-head h1 { font-size: 1.6rem; } .riff-files a { padding: .45rem .8rem; } }
@media (prefers-reduced-motion: reduce) { .riff-progress.busy i { animation: none; } }
"""
