"""The tab "Timeline": keyframes in a table and on a lane, rendered, and saved as YAML."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from riff.apps.playground.cards import result_card
from riff.apps.playground.stage import Stage, problem
from riff.apps.playground.widgets import (
    PRIVATE,
    RequestForm,
    buttons,
    columns,
    empty,
    python_loading,
    read_value,
    shell_code,
    slider_range,
    start,
)
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.spectrogram.display import LINES, to_data_uri
from riff.tasks.clip import Clip
from riff.tasks.requests import Easing, TimelineRequest
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import RiffError
from riff.utils.pages import render as fill
from riff.utils.schema import as_dict, describe_fields, parse_text

COLUMNS = ("bar", "prompt", "bpm", "hold", "easing", "key")
ROWS = (
    ("0", "lo-fi hip hop, mellow electric piano", "84", "2", "smooth", ""),
    ("4", "bossa nova guitar", "96", "2", "smooth", ""),
    ("8", "funky disco with slap bass", "112", "", "smooth", "A minor"),
)


def read_rows(rows: Sequence[Sequence[Any]], bars: float, loop: bool, seed: int | None) -> Timeline:
    """The table as a timeline; empty rows are left out.

    Raises:
        RiffError: a cell is wrong; the message names the keyframe, counted from 1.
    """
    frames: list[Keyframe] = []
    for row in rows:
        cells = {name: _text(cell) for name, cell in zip(COLUMNS, row, strict=False)}
        if any(cells.values()):
            frames.append(_keyframe(len(frames) + 1, cells))
    return Timeline(tuple(frames), bars=int(bars), loop=bool(loop), seed=seed)


def with_row(rows: Sequence[Sequence[Any]], bars: float) -> tuple[list[list[str]], int]:
    """The table with one more keyframe, four bars after the last, and the length that this takes."""
    table = [[_text(cell) for cell in row] for row in rows]
    try:
        place = max((float(_plain(row[0])) for row in table if row[0]), default=-4.0) + 4.0
    except ValueError:
        place = float(bars)
    return [*table, [f"{place:g}", "techno", "", "", "smooth", ""]], int(
        min(slider_range("bars")[1], max(bars, int(place) + 4))
    )


def lane(timeline: Timeline) -> str:
    """A timeline as an image: a block where a keyframe holds, a slope for each way, tempo and prompt above."""
    width, total = 1000.0, float(timeline.bars or 1)
    frames = list(timeline.keyframes)
    place = [width * float(frame.bar or 0.0) / total for frame in frames] + [width]
    blocks = []
    for number, frame in enumerate(frames):
        x, room = place[number], place[number + 1] - place[number]
        jumps = number + 1 < len(frames) and frames[number + 1].easing == "step"
        held = place[number + 1] if jumps else min(place[number + 1], x + width * frame.hold / total)
        letters = max(3, int(room / 8.2))
        short = frame.prompt if len(frame.prompt) <= letters else frame.prompt[: letters - 1].rstrip() + "…"
        above = " · ".join([f"bar {frame.bar:g}", *([f"{frame.bpm:g} bpm"] if frame.bpm else [])])
        blocks.append({
            "x": x, "held": held, "end": place[number + 1], "color": LINES[number % len(LINES)],
            "next": LINES[(number + (number + 1 < len(frames))) % len(LINES)], "prompt": frame.prompt, "short": short,
            "above": above if room > 90 else "",
        })  # fmt: skip
    grid = [(width * bar / total, bar % 4 == 0) for bar in range(int(total) + 1)]
    return fill("apps/playground/templates/lane.html", width=width, bars=timeline.bars, grid=grid, blocks=blocks)


def render(
    pipe: RiffPipeline, timeline: Timeline, options: dict[str, Any], callback: StepCallback | None = None
) -> Clip:
    """Play a timeline; ``options`` are those of the call."""
    return pipe.render(timeline, **options, callback_on_step_end=callback)


def to_yaml(timeline: Timeline) -> str:
    """The timeline as the file that ``riff render`` takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.yaml"
        timeline.save(path)
        return path.read_text(encoding="utf-8")


def yaml_link(timeline: Timeline) -> str:
    """A link that saves the timeline; the file is in the page itself."""
    data = to_data_uri(to_yaml(timeline).encode(), "application/yaml")
    return fill("apps/playground/templates/yaml.html", data=data)


def build(stage: Stage) -> None:
    """Lay the tab out."""
    form = RequestForm(stage, "timeline", TimelineRequest(timeline={}))
    first = read_rows(ROWS, 12, False, 0)
    table = gr.Dataframe(
        value=[list(row) for row in ROWS], headers=list(COLUMNS), datatype="str", type="array", row_count=3,
        column_count=len(COLUMNS), interactive=True, wrap=True, elem_id="timeline-table", buttons=[],
        column_widths=["10%", "37%", "11%", "11%", "16%", "15%"], label="Keyframes", show_label=False,
    )  # fmt: skip
    with gr.Row(elem_classes="riff-row riff-rows"):
        add = gr.Button("Add a keyframe", size="sm", elem_id="timeline-add", min_width=120)
        take = gr.Button("Remove the last one", size="sm", elem_id="timeline-take", min_width=120)
    drawn = gr.HTML(lane(first), elem_id="timeline-lane")
    ask, out, more = columns()
    with ask:
        low, high, step = slider_range("bars")
        bars = gr.Slider(low, high, 12, step=step, label="Bars", elem_id="timeline-bars")
        go, stop, status = buttons("Render", "timeline")
    with out:
        result = gr.HTML(empty("Write keyframes, see them on the lane, then press Render"), elem_id="timeline-result")
    with more:
        loop = gr.Checkbox(False, label="Loop: the end leads into the first keyframe")
        form.add_seed()
        form.add_rest()
        export = gr.HTML(yaml_link(first), elem_id="timeline-yaml")
        gr.HTML(f"A keyframe says at which bar the music is like this. It holds for some bars, then goes to the next "
                f"one. Easing is {', '.join(get_args(Easing))}; empty cells leave it open.",
                elem_classes="riff-hint")  # fmt: skip
    fields = [table, bars, loop, form.controls["seed"]]

    def look(rows: Any, bars: float, loop: bool, seed: str) -> tuple[str, str]:
        try:
            timeline = read_rows(rows, bars, loop, read_value(form.fields["seed"], seed))
        except RiffError as error:
            return problem(error), ""
        return lane(timeline), yaml_link(timeline)

    def work(session: gr.Request, rows: Any, bars: float, loop: bool, *values: Any) -> Iterator[tuple[object, ...]]:
        def read() -> tuple[Timeline, TimelineRequest]:
            request: TimelineRequest = form.read(values, timeline={})
            timeline = read_rows(rows, bars, loop, request.seed)
            return timeline, dataclasses.replace(request, seed=None, timeline=timeline.to_dict())

        def make(song: tuple[Timeline, TimelineRequest], callback: StepCallback) -> Iterator[Clip]:
            yield render(stage.pipe, song[0], _options(song[1]), callback)

        def show(song: tuple[Timeline, TimelineRequest], clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            return result_card(clip, name, code=code_of(stage, *song), notes=notes)

        yield from stage.perform(str(session.session_hash), read, make, show)

    add.click(with_row, [table, bars], [table, bars], **PRIVATE)
    take.click(lambda rows: list(rows)[:-1] or [list(ROWS[0])], table, table, **PRIVATE)
    gr.on([table.change, bars.change, loop.change, fields[3].change], look, fields, [drawn, export],
          show_progress="hidden", trigger_mode="always_last", api_visibility="private")  # fmt: skip
    start(stage, [go.click], work, [table, bars, loop, *form.inputs], [status, result], stop)


def code_of(stage: Stage, timeline: Timeline, request: TimelineRequest) -> list[tuple[str, str]]:
    """The same music as Python and as a shell command."""
    frames = "\n".join(f"    {_without_defaults(frame)}," for frame in timeline.keyframes)
    loop = ", loop=True" if timeline.loop else ""
    options = "".join(f", {name}={value!r}" for name, value in _options(request).items())
    python = (
        "from riff import Keyframe, RiffPipeline, Timeline\n\n"
        f"{python_loading(stage)}frames = (\n{frames}\n)\n"
        f"song = Timeline(frames, bars={timeline.bars}, seed={timeline.seed}{loop})\n"
        f'clip = pipe.render(song{options})\nclip.save("song.wav")\n'
    )
    shell = shell_code(stage, "render", ["song.yaml"], request)
    return [("Copy as Python", python), ("Copy as shell command", shell)]


def _options(request: TimelineRequest) -> dict[str, Any]:
    return {name: value for name, value in as_dict(request).items() if name != "timeline"}


def _without_defaults(frame: Keyframe) -> str:
    given = as_dict(frame)
    words = [repr(given.pop("prompt"))]
    words += [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in given.items()]
    return f"Keyframe({', '.join(words)})"


def _keyframe(number: int, cells: dict[str, str]) -> Keyframe:
    fields = {field.name: field for field in describe_fields(Keyframe)}
    try:
        if not cells.get("bar"):
            raise RiffError("bar is empty; write where it is, 0 for the start")
        given = {name: parse_text(_plain(cell) if fields[name].kind is float else cell, fields[name])
                 for name, cell in cells.items() if cell or name == "prompt"}  # fmt: skip
        return Keyframe(**given)
    except RiffError as error:
        raise RiffError(f"keyframe {number}: {error}") from error


def _plain(number: str) -> str:
    return number.replace(",", ".")


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip()
