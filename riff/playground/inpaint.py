"""The tab "Inpaint": a stretch of a recording, chosen on its spectrogram, is played anew."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.playground.edit import Edit, code_of, read_edit, work_on
from riff.playground.recording import NOTHING, field
from riff.playground.stage import Stage
from riff.playground.widgets import buttons, more_settings, seed_row, start


def inpaint(stage: Stage, edit: Edit, seconds: tuple[float, float], count_step: StepCallback | None = None) -> Clip:
    """Replace a stretch of a recording.

    Raises:
        RiffError: a value is out of its range, or the recording cannot be read.
    """
    return stage.pipe.inpaint(
        edit.path, **edit.arguments(), mask_start_seconds=seconds[0], mask_end_seconds=seconds[1],
        callback_on_step_end=count_step,
    )  # fmt: skip


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(NOTHING, elem_id="inpaint-before", render=False)
            sound = field(stage, "inpaint", shown, region=True)
            prompt = gr.Textbox("drum fill", label="What should be there instead?", lines=2, max_length=1000,
                                elem_id="inpaint-prompt")  # fmt: skip
            with gr.Row():
                first = gr.Number(0.0, label="From, seconds", minimum=0, step=0.01, elem_id="riff-from", min_width=120)
                last = gr.Number(2.0, label="To, seconds", minimum=0, step=0.01, elem_id="riff-to", min_width=120)
            gr.Markdown("Drag across the spectrogram to choose the stretch, or type it here.")
            seed = seed_row("inpaint")
            more = more_settings(stage)
            go, stop, status = buttons("Play it anew", "inpaint")
        with gr.Column(scale=6, min_width=320):
            shown.render()
            result = gr.HTML("", elem_id="inpaint-result")
    current = gr.State(None)

    def work(request: gr.Request, first: float, last: float, *fields: Any) -> Iterator[tuple[object, ...]]:
        edit, seconds = read_edit(*fields), (float(first or 0.0), float(last or 0.0))
        told = {"mask_start_seconds": seconds[0], "mask_end_seconds": seconds[1]}
        code = code_of("inpaint", edit, told, {"--seconds": seconds}, stage.source)
        yield from work_on(stage, request, lambda count: inpaint(stage, edit, seconds, count), code)

    fields = [first, last, sound, prompt, seed, *more]
    start(stage, [go.click, prompt.submit], work, fields, [status, result, current], stop)
