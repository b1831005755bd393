"""What remixing, extending and inpainting have in common: a recording, a sentence and the usual settings."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.playground.code import Source, python_code, shell_code
from riff.playground.recording import NOTHING, after, check_sound, field
from riff.playground.stage import Stage
from riff.playground.widgets import KEYS, buttons, more_settings, roll, seed_row, start


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
            "guidance_scale": self.guidance, "negative_prompt": self.negative, "keyscale": self.key,
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
