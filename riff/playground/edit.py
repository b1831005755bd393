"""What remixing, extending and inpainting have in common: a recording, a sentence and the usual settings."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.playground.code import Source, python_code, shell_code
from riff.playground.recording import after, check_sound
from riff.playground.stage import Stage
from riff.playground.widgets import KEYS, roll


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


def work_on(
    stage: Stage, request: gr.Request, make: Callable[[StepCallback], Clip], code: tuple[str, str]
) -> Iterator[tuple[object, ...]]:
    """Do it, and show what became of it."""

    def made(count_step: StepCallback) -> Iterator[Clip]:
        yield make(count_step)

    yield from stage.perform(
        str(request.session_hash), made,
        lambda clip, name, notes: after(clip, name, python=code[0], shell=code[1], notes=notes),
    )  # fmt: skip
