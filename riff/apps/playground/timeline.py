"""The tab "Timeline": keyframes in a table and on a drawn lane, rendered, and saved as YAML."""

import base64
import html
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from riff.apps.playground.stage import EMPTY, Source, Stage, failure, problem, shell_code
from riff.apps.playground.widgets import buttons, result_card, seed_row, start
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.tasks.gallery import LINES
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import RiffError

COLUMNS = ("bar", "prompt", "bpm", "hold", "easing", "key")
ROWS = (
    ("0", "lo-fi hip hop, mellow electric piano", "84", "2", "smooth", ""),
    ("4", "bossa nova guitar", "96", "2", "smooth", ""),
    ("8", "funky disco with slap bass", "112", "", "smooth", "A minor"),
)
MAX_BARS = 64
_HINT = "Write keyframes, see them on the lane, then press <b>Render</b>"


def read_rows(rows: Sequence[Sequence[Any]], bars: float, loop: bool, seed: float | None) -> Timeline:
    """The table as a timeline; empty rows are left out.

    Raises:
        RiffError: a cell is wrong; the message names the keyframe, counted from 1.
    """
    frames: list[Keyframe] = []
    for row in rows:
        cells = {name: _text(cell) for name, cell in zip(COLUMNS, row, strict=False)}
        if any(cells.values()):
            frames.append(_keyframe(len(frames) + 1, cells))
    return Timeline(tuple(frames), bars=int(bars), loop=bool(loop), seed=None if seed is None else int(seed))


def with_row(rows: Sequence[Sequence[Any]], bars: float) -> tuple[list[list[str]], int]:
    """The table with one more keyframe, four bars after the last, and the length that this takes."""
    table = [[_text(cell) for cell in row] for row in rows]
    try:
        place = max((_number(row[0]) for row in table if row[0]), default=-4.0) + 4.0
    except ValueError:
        place = float(bars)
    return [*table, [f"{place:g}", "techno", "", "", "smooth", ""]], min(MAX_BARS, max(int(bars), int(place) + 4))


def lane(timeline: Timeline) -> str:
    """A timeline as a drawing: a block for each stay, a slope for each way, tempo above, sentences below."""
    width, total = 1000.0, float(timeline.bars or 1)
    frames = list(timeline.keyframes)
    place = [width * float(frame.bar or 0.0) / total for frame in frames] + [width]
    parts = [
        f'<line x1="{width * bar / total:.1f}" y1="34" x2="{width * bar / total:.1f}" y2="104" stroke="currentColor" '
        f'stroke-opacity="{0.35 if bar % 4 == 0 else 0.12}"/>'
        for bar in range(int(total) + 1)
    ]
    for number, frame in enumerate(frames):
        x, colour = place[number], LINES[number % len(LINES)]
        following = LINES[(number + 1) % len(LINES)] if number + 1 < len(frames) else colour
        held = min(place[number + 1], x + width * frame.hold / total)
        step = number + 1 < len(frames) and frames[number + 1].easing == "step"
        stop = place[number + 1] if step else held
        parts.append(f'<rect x="{x:.1f}" y="44" width="{max(stop - x, 3):.1f}" height="50" rx="4" fill="{colour}"/>')
        if not step and place[number + 1] > held:
            parts.append(_way(number, held, place[number + 1], colour, following))
        parts.append(_label(x, frame, room=place[number + 1] - x))
    bars = f'<text x="2" y="122" font-size="13" opacity=".7">{timeline.bars} bars</text>'
    return (
        f'<svg class="riff-lane" viewBox="-4 0 {width + 8:g} 128" role="img" aria-label="{len(frames)} keyframes in '
        f'{timeline.bars} bars" fill="currentColor" style="font:14px system-ui,sans-serif">{"".join(parts)}{bars}</svg>'
    )


def render(pipe: RiffPipeline, timeline: Timeline, steps: int, count_step: StepCallback | None = None) -> Clip:
    """Play a timeline.

    Raises:
        RiffError: it cannot be played, such as one with keyframes too near each other.
    """
    return pipe.render(timeline, num_inference_steps=steps, callback_on_step_end=count_step)


def to_yaml(timeline: Timeline) -> str:
    """The timeline as the file that ``riff render`` takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.yaml"
        timeline.save(path)
        return path.read_text(encoding="utf-8")


def yaml_link(timeline: Timeline) -> str:
    """A link that saves the timeline; the file is in the page itself."""
    data = base64.b64encode(to_yaml(timeline).encode()).decode("ascii")
    return (
        '<div class="riff-files"><span>The timeline as a file for <code>riff render</code></span>'
        f'<a href="data:application/yaml;base64,{data}" download="song.yaml">YAML</a></div>'
    )


def build(stage: Stage) -> None:
    """Lay the tab out."""
    table = gr.Dataframe(
        value=[list(row) for row in ROWS], headers=list(COLUMNS), datatype="str", type="array", row_count=3,
        column_count=len(COLUMNS), interactive=True, wrap=True, elem_id="timeline-table", buttons=[],
        column_widths=["9%", "41%", "10%", "10%", "14%", "16%"], label="Keyframes", show_label=False,
    )  # fmt: skip
    with gr.Row():
        add = gr.Button("Add a keyframe", size="sm", elem_id="timeline-add", min_width=120)
        take = gr.Button("Take the last one away", size="sm", elem_id="timeline-take", min_width=120)
    gr.Markdown(
        "One row a keyframe: the **bar** where it is, what is played, its tempo, how many bars it **holds**, how the "
        "music gets there (*smooth*, *linear* or *step*), its key. Empty cells leave it open."
    )
    first = read_rows(ROWS, 12, False, 0)
    drawn = gr.HTML(lane(first), elem_id="timeline-lane")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            bars = gr.Slider(1, MAX_BARS, 12, step=1, label="Bars", elem_id="timeline-bars")
            loop = gr.Checkbox(False, label="Loop: the end leads back into the first keyframe")
            seed = seed_row("timeline")
            steps = gr.Slider(1, 100, 20, step=1, label="Steps")
            go, stop, status = buttons("Render", "timeline")
            export = gr.HTML(yaml_link(first), elem_id="timeline-yaml")
        with gr.Column(scale=6, min_width=320):
            result = gr.HTML(EMPTY.format(_HINT), elem_id="timeline-result")
    current, fields = gr.State(None), [table, bars, loop, seed]

    def look(*values: Any) -> tuple[str, str]:
        try:
            timeline = read_rows(*values)
        except RiffError as error:
            return problem(error), ""
        return lane(timeline), yaml_link(timeline)

    def work(request: gr.Request, steps: float, *values: Any) -> Iterator[tuple[object, ...]]:
        try:
            timeline = read_rows(*values)
        except RiffError as error:
            raise failure(error) from error

        def make(count_step: StepCallback) -> Iterator[Clip]:
            yield render(stage.pipe, timeline, int(steps), count_step)

        shell = shell_code("render", ["song.yaml"], {"--steps": int(steps)}, source=stage.source)
        yield from stage.perform(
            str(request.session_hash), make,
            lambda clip, name, notes: result_card(
                clip, name, python=_python(timeline, int(steps), stage.source), shell=shell, notes=notes
            ),
        )  # fmt: skip

    add.click(with_row, [table, bars], [table, bars], queue=False, api_visibility="private")
    take.click(lambda rows: list(rows)[:-1] or [list(ROWS[0])], table, table, queue=False, api_visibility="private")
    gr.on([table.change, bars.change, loop.change, seed.change], look, fields, [drawn, export], show_progress="hidden",
          trigger_mode="always_last", api_visibility="private")  # fmt: skip
    start(stage, [go.click], work, [steps, *fields], [status, result, current], stop)


def _python(timeline: Timeline, steps: int, source: Source) -> str:
    frames = "\n".join(f"    {_without_defaults(frame)}," for frame in timeline.keyframes)
    loop = ", loop=True" if timeline.loop else ""
    return (
        "from riff import Keyframe, RiffPipeline, Timeline\n\n"
        f"{source.python()}frames = (\n{frames}\n)\n"
        f"song = Timeline(frames, bars={timeline.bars}, seed={timeline.seed}{loop})\n"
        f'clip = pipe.render(song, num_inference_steps={steps})\nclip.save("song.wav")\n'
    )


def _without_defaults(frame: Keyframe) -> str:
    plain = Keyframe(frame.prompt, bar=0.0)
    told = [f"{name}={getattr(frame, name)!r}" for name in ("bpm", "hold", "easing", "key")
            if getattr(frame, name) != getattr(plain, name)]  # fmt: skip
    return f"Keyframe({', '.join([repr(frame.prompt), f'bar={frame.bar:g}', *told])})"


def _keyframe(number: int, cells: dict[str, str]) -> Keyframe:
    numbers: dict[str, float | None] = {}
    for name in ("bar", "bpm", "hold"):
        try:
            numbers[name] = _number(cells[name]) if cells.get(name) else None
        except ValueError:
            raise RiffError(f"keyframe {number}: {name} is '{cells[name]}'; write a number") from None
    if numbers["bar"] is None:
        raise RiffError(f"keyframe {number}: bar is empty; write where it is, 0 for the start")
    try:
        return Keyframe(
            cells.get("prompt", ""), bar=numbers["bar"], bpm=numbers["bpm"], hold=numbers["hold"] or 0.0,
            easing=cells.get("easing") or "smooth", key=cells.get("key") or None,  # type: ignore[arg-type]
        )  # fmt: skip
    except RiffError as error:
        raise RiffError(f"keyframe {number}: {error}") from error


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip()


def _way(number: int, start: float, stop: float, colour: str, following: str) -> str:
    return (
        f'<defs><linearGradient id="riff-way-{number}"><stop stop-color="{colour}"/><stop offset="1" '
        f'stop-color="{following}"/></linearGradient></defs><rect x="{start:.1f}" y="54" width="{stop - start:.1f}" '
        f'height="30" fill="url(#riff-way-{number})" opacity=".55"/>'
    )


def _label(x: float, frame: Keyframe, *, room: float) -> str:
    """What a keyframe says, cut to the room that it has."""
    letters = max(3, int(room / 8.2))
    prompt = frame.prompt if len(frame.prompt) <= letters else frame.prompt[: letters - 1].rstrip() + "…"
    above = " · ".join([f"bar {frame.bar:g}", *([f"{frame.bpm:g} bpm"] if frame.bpm else [])])
    return (
        f'<text x="{x + 2:.1f}" y="14" font-size="13" opacity=".7">{above if room > 90 else ""}</text>'
        f'<text x="{x + 2:.1f}" y="31" font-weight="600"><title>{html.escape(frame.prompt)}</title>'
        f"{html.escape(prompt)}</text>"
    )
