"""The tab "Extend": a recording goes on."""

import gradio as gr

from riff.playground.edit import edit_tab
from riff.playground.stage import Stage


def build(stage: Stage) -> None:
    """Lay the tab out."""
    edit_tab(
        stage,
        "extend",
        stage.pipe.extend,
        button="Extend",
        prompt="funk with a guitar solo",
        question="How should it go on?",
        own=lambda: [gr.Slider(1, 32, 4, step=1, label="Bars to add")],
        told=lambda bars: ({"bars": int(bars)}, {"--bars": int(bars)}),
    )
