"""The tab "Compose": a sentence becomes a clip."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from riff.apps.playground.cards import result_card
from riff.apps.playground.stage import Stage
from riff.apps.playground.widgets import RequestForm, buttons, chips, columns, empty, python_code, shell_code, start
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.tasks.requests import RenderRequest
from riff.utils.schema import as_dict

EXAMPLES = (
    "lo-fi hip hop, mellow electric piano, 84 bpm",
    "funky disco with slap bass, 118 bpm",
    "techno, 128 bpm, F minor",
    "solo church organ, slow",
    "jazz trio, walking bass, 3/4",
    "bossa nova guitar, 100 bpm",
)
START = RenderRequest(prompt=EXAMPLES[0], bars=8)


def compose(pipe: RiffPipeline, request: RenderRequest, callback: StepCallback | None = None) -> Clip:
    """Make one clip."""
    return pipe(**as_dict(request), callback_on_step_end=callback).clips[0]


def code_of(stage: Stage, request: RenderRequest) -> list[tuple[str, str]]:
    """The same clip as Python and as a shell command."""
    shell = shell_code(stage, "render", [request.prompt], request)
    return [("Copy as Python", python_code(stage, "", request)), ("Copy as shell command", shell)]


def build(stage: Stage) -> None:
    """Lay the tab out."""
    form = RequestForm(stage, "compose", START, skip=["duration"])
    ask, out, more = columns()
    with ask:
        prompt = form.add(
            "prompt", label="What should it sound like?", info=None, lines=2, max_lines=6, autofocus=True,
            placeholder="style, instruments, mood, tempo, key", elem_classes="riff-prompt",
        )  # fmt: skip
        chips(EXAMPLES, prompt, "compose")
        go, stop, status = buttons("Make music", "compose")
    with more:
        with gr.Row(elem_classes="riff-row"):
            form.add("bars", info=None)
            form.add("loop", label="Loop: the end leads into the start", info=None)
        with gr.Row(elem_classes="riff-row"):
            form.add("bpm", label="Tempo, bpm", info=None)
            form.add("key", info=None)
        form.add_seed()
        form.add_rest()
    with out:
        result = gr.HTML(empty("Describe some music and press Make music"), elem_id="compose-result")

    def work(session: gr.Request, *values: Any) -> Iterator[tuple[object, ...]]:
        def make(request: RenderRequest, callback: StepCallback) -> Iterator[Clip]:
            yield compose(stage.pipe, request, callback)

        def show(request: RenderRequest, clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            return result_card(clip, name, code=code_of(stage, request), notes=notes)

        yield from stage.perform(str(session.session_hash), lambda: form.read(values), make, show)

    start(stage, [go.click, prompt.submit], work, form.inputs, [status, result], stop)
