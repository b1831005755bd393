"""The tab "Inpaint": a stretch of a recording, chosen on its spectrogram, is played anew."""

from typing import Any

import gradio as gr

from riff.playground.edit import edit_tab
from riff.playground.stage import Stage


def build(stage: Stage) -> None:
    """Lay the tab out."""
    edit_tab(
        stage,
        "inpaint",
        stage.pipe.inpaint,
        button="Play it anew",
        prompt="drum fill",
        question="What should be there instead?",
        own=_stretch,
        told=_told,
        region=True,
    )


def _stretch() -> list[gr.Number]:
    with gr.Row():
        first = gr.Number(0.0, label="From, seconds", minimum=0, step=0.01, elem_id="riff-from", min_width=120)
        last = gr.Number(2.0, label="To, seconds", minimum=0, step=0.01, elem_id="riff-to", min_width=120)
    gr.Markdown("Drag across the spectrogram to choose the stretch, or type it here.")
    return [first, last]


def _told(first: float | None, last: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    seconds = float(first or 0.0), float(last or 0.0)
    return {"mask_start_seconds": seconds[0], "mask_end_seconds": seconds[1]}, {"--seconds": seconds}
