"""The tab "Remix": a recording is played anew as a sentence says."""

import gradio as gr

from riff.playground.edit import edit_tab
from riff.playground.stage import Stage


def build(stage: Stage) -> None:
    """Lay the tab out."""
    edit_tab(
        stage,
        "remix",
        stage.pipe.remix,
        button="Remix",
        prompt="church organ",
        question="What should it become?",
        own=lambda: [gr.Slider(0, 1, 0.6, step=0.05, label="Strength: 0 leaves it as it is, 1 keeps only the beat")],
        told=lambda strength: ({"strength": strength}, {"--strength": strength}),
    )
