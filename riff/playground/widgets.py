"""Fields that several tabs have."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from riff.playground.stage import Stage

_NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = ("open", *(f"{note} {mode}" for mode in ("major", "minor") for note in _NOTES))


def roll() -> int:
    """A seed that is easy to read out."""
    return secrets.randbelow(1_000_000)


def seed_row(tab: str) -> gr.Number:
    """A seed and a dice."""
    with gr.Row(elem_classes="riff-row"):
        seed = gr.Number(roll, label="Seed: same seed, same music", precision=0, minimum=0, elem_id=f"{tab}-seed",
                         min_width=140, scale=4)  # fmt: skip
        dice = gr.Button("Roll", elem_classes="riff-dice", elem_id=f"{tab}-dice", min_width=80, scale=1)
    dice.click(roll, None, seed, queue=False, api_visibility="private")
    return seed


def more_settings(stage: Stage, *, steps: int = 20) -> tuple[gr.Slider, gr.Slider, gr.Textbox, gr.Dropdown]:
    """Steps, guidance, negative prompt and key, folded away."""
    usual = stage.pipe.model.default_guidance
    with gr.Accordion("More settings", open=False):
        with gr.Row():
            count = gr.Slider(1, 100, steps, step=1, label="Steps: more is slower, and cleaner", min_width=160)
            guidance = gr.Slider(0, 15, usual, step=0.1, label="Guidance: how strictly it obeys", min_width=160)
        with gr.Row():
            negative = gr.Textbox(
                label="Stay away from", placeholder="drums, distortion", max_length=1000, min_width=160
            )
            key = gr.Dropdown(list(KEYS), value=KEYS[0], label="Key", min_width=120)
    return count, guidance, negative, key


def buttons(text: str, tab: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The one that begins, the one that stops, and how far it is."""
    with gr.Row():
        go = gr.Button(text, variant="primary", size="lg", elem_id=f"{tab}-go", scale=3, min_width=140)
        stop = gr.Button("Stop", size="lg", elem_id=f"{tab}-stop", scale=1, min_width=80)
    return go, stop, gr.HTML("", elem_classes="riff-status", elem_id=f"{tab}-status")


def start(
    stage: Stage,
    events: Sequence[Any],
    work: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    stop: gr.Button,
) -> None:
    """Let events begin a piece of work, whose status is the first output, and a button stop it."""
    gr.on(
        events, work, list(inputs), list(outputs), show_progress="minimal", show_progress_on=outputs[0],
        concurrency_limit=1, concurrency_id="model", trigger_mode="once", api_visibility="private",
    )  # fmt: skip
    stop.click(stage.stop, None, None, queue=False, api_visibility="private")
