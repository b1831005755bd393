"""What remixing, extending and inpainting have in common: a recording, a sentence and the usual settings."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from riff.apps.playground.stage import Source, Stage, python_code, shell_code
from riff.apps.playground.widgets import (
    KEYS,
    NOTHING,
    after,
    buttons,
    check_sound,
    field,
    more_settings,
    roll,
    seed_row,
    start,
)
from riff.diffusion.sampling import StepCallback
from riff.tasks.clip import Clip


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is asked for.

    Attributes:
        path: of the recording.
        prompt: what is new.
        seed: of the noise.
        steps: of the denoising.
        guidance: weight of the prompt.
        negative: what to stay away from.
        key: None leaves it open.
    """

    path: str
    prompt: str
    seed: int
    steps: int = 20
    guidance: float | None = None
    negative: str | None = None
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        """As the pipeline takes them, without the recording."""
        return {
            "prompt": self.prompt, "seed": self.seed, "num_inference_steps": self.steps,
            "guidance_scale": self.guidance, "negative_prompt": self.negative, "key": self.key,
        }  # fmt: skip


def read_edit(
    path: str | None, prompt: str, seed: float | None, steps: float, guidance: float, negative: str, key: str
) -> Edit:
    """The fields as they stand on the page.

    Raises:
        gr.Error: there is no recording that can be read.
    """
    return Edit(
        path=check_sound(path),
        prompt=(prompt or "").strip(),
        seed=roll() if seed is None else int(seed),
        steps=int(steps),
        guidance=float(guidance),
        negative=(negative or "").strip() or None,
        key=None if key == KEYS[0] else key,
    )


def code_of(verb: str, edit: Edit, told: dict[str, Any], options: dict[str, Any], source: Source) -> tuple[str, str]:
    """The same edit as Python and as a shell command.

    Args:
        verb: remix, extend or inpaint.
        edit: what they share.
        told: the verb's own arguments.
        options: the same at the shell.
        source: what it is made with.
    """
    name = Path(edit.path).name
    python = python_code(verb, {"audio": name, **edit.arguments(), **told}, source=source)
    words = {
        **options, "--seed": edit.seed, "--steps": edit.steps, "--guidance": edit.guidance,
        "--negative": edit.negative, "--key": edit.key,
    }  # fmt: skip
    return python, shell_code(verb, [name, edit.prompt], words, source=source)


def change(call: Callable[..., Clip], edit: Edit, told: dict[str, Any], count_step: StepCallback | None = None) -> Clip:
    """What becomes of a recording.

    Args:
        call: the pipeline's remix, extend or inpaint.
        edit: what they share.
        told: the call's own arguments.
        count_step: called at each step of the denoising.

    Raises:
        RiffError: a value is out of its range, or the recording cannot be read.
    """
    return call(edit.path, **edit.arguments(), **told, callback_on_step_end=count_step)


def edit_tab(
    stage: Stage,
    verb: str,
    call: Callable[..., Clip],
    *,
    button: str,
    prompt: str,
    question: str,
    own: Callable[[], Sequence[gr.components.Component]],
    told: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
    region: bool = False,
) -> None:
    """Lay a tab out: on the left the recording and the fields, on the right what it was and what becomes of it.

    Args:
        stage: what the page works with.
        verb: remix, extend or inpaint.
        call: the pipeline's.
        button: what starts it.
        prompt: to begin with.
        question: that the prompt answers.
        own: lays out the fields that only this tab has, and gives those that are read.
        told: from their values to the call's own arguments, and the same as options at the shell.
        region: whether a stretch of the recording can be chosen.
    """
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(NOTHING, elem_id=f"{verb}-before", render=False)
            sound = field(stage, verb, shown, region=region)
            text = gr.Textbox(prompt, label=question, lines=2, max_length=1000, elem_id=f"{verb}-prompt")
            fields = [*own()]
            seed = seed_row(verb)
            more = more_settings(stage)
            go, stop, status = buttons(button, verb)
        with gr.Column(scale=6, min_width=320):
            shown.render()
            result = gr.HTML("", elem_id=f"{verb}-result")
    current = gr.State(None)

    def work(request: gr.Request, *values: Any) -> Iterator[tuple[object, ...]]:
        arguments, options = told(*values[: len(fields)])
        edit = read_edit(*values[len(fields) :])
        python, shell = code_of(verb, edit, arguments, options, stage.source)

        def made(count_step: StepCallback) -> Iterator[Clip]:
            yield change(call, edit, arguments, count_step)

        yield from stage.perform(
            str(request.session_hash), made,
            lambda clip, name, notes: after(clip, name, python=python, shell=shell, notes=notes),
        )  # fmt: skip

    start(stage, [go.click, text.submit], work, [*fields, sound, text, seed, *more], [status, result, current], stop)


# WAS riff/playground/extend.py: The tab "Extend": a recording goes on.


def build_extend(stage: Stage) -> None:
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


# WAS riff/playground/inpaint.py: The tab "Inpaint": a stretch of a recording, chosen on its spectrogram, is
# played anew.


def build_inpaint(stage: Stage) -> None:
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


# WAS riff/playground/remix.py: The tab "Remix": a recording is played anew as a sentence says.


def build_remix(stage: Stage) -> None:
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
