"""The tab "Extend": a recording goes on."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.playground.edit import Edit, code_of, read_edit, work_on
from riff.playground.recording import NOTHING, field
from riff.playground.stage import Stage
from riff.playground.widgets import buttons, more_settings, seed_row, start


def extend(stage: Stage, edit: Edit, bars: int, count_step: StepCallback | None = None) -> Clip:
    """Make a recording longer.

    Raises:
        RiffError: a value is out of its range, or the recording cannot be read.
    """
    return stage.pipe.extend(edit.path, **edit.arguments(), bars=bars, callback_on_step_end=count_step)


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(NOTHING, elem_id="extend-before", render=False)
            sound = field(stage, "extend", shown)
            prompt = gr.Textbox("funk with a guitar solo", label="How should it go on?", lines=2, max_length=1000,
                                elem_id="extend-prompt")  # fmt: skip
            bars = gr.Slider(1, 32, 4, step=1, label="Bars to add")
            seed = seed_row("extend")
            more = more_settings(stage)
            go, stop, status = buttons("Extend", "extend")
        with gr.Column(scale=6, min_width=320):
            shown.render()
            result = gr.HTML("", elem_id="extend-result")
    current = gr.State(None)

    def work(request: gr.Request, bars: float, *fields: Any) -> Iterator[tuple[object, ...]]:
        edit, count = read_edit(*fields), int(bars)
        code = code_of("extend", edit, {"bars": count}, {"--bars": count}, stage.source)
        yield from work_on(stage, request, lambda count_step: extend(stage, edit, count, count_step), code)

    start(stage, [go.click, prompt.submit], work, [bars, sound, prompt, seed, *more], [status, result, current], stop)
