"""The tab "Remix": a recording is played anew as a sentence says."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.playground.edit import Edit, code_of, read_edit, work_on
from riff.playground.recording import NOTHING, field
from riff.playground.stage import Stage
from riff.playground.widgets import buttons, more_settings, seed_row, start


def remix(stage: Stage, edit: Edit, strength: float, count_step: StepCallback | None = None) -> Clip:
    """Make a remix.

    Raises:
        RiffError: a value is out of its range, or the recording cannot be read.
    """
    return stage.pipe.remix(edit.path, **edit.arguments(), strength=strength, callback_on_step_end=count_step)


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(NOTHING, elem_id="remix-before", render=False)
            sound = field(stage, "remix", shown)
            prompt = gr.Textbox("church organ", label="What should it become?", lines=2, max_length=1000,
                                elem_id="remix-prompt")  # fmt: skip
            strength = gr.Slider(0, 1, 0.6, step=0.05, label="Strength: 0 leaves it as it is, 1 keeps only the beat")
            seed = seed_row("remix")
            more = more_settings(stage)
            go, stop, status = buttons("Remix", "remix")
        with gr.Column(scale=6, min_width=320):
            shown.render()
            result = gr.HTML("", elem_id="remix-result")
    current = gr.State(None)

    def work(request: gr.Request, strength: float, *fields: Any) -> Iterator[tuple[object, ...]]:
        edit = read_edit(*fields)
        code = code_of("remix", edit, {"strength": strength}, {"--strength": strength}, stage.source)
        yield from work_on(stage, request, lambda count: remix(stage, edit, strength, count), code)

    start(
        stage, [go.click, prompt.submit], work, [strength, sound, prompt, seed, *more], [status, result, current], stop
    )
