"""The tabs "Remix", "Extend" and "Inpaint": a recording, a sentence, and what becomes of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from riff.apps.playground.cards import after, read_upload, sound_field
from riff.apps.playground.stage import Stage
from riff.apps.playground.widgets import RequestForm, buttons, columns, empty, python_code, shell_code, start
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.tasks.requests import EditRequest, ExtendRequest, InpaintRequest, RemixRequest
from riff.utils.errors import RiffError
from riff.utils.schema import as_dict

VERBS = {
    "remix": (RemixRequest(prompt="church organ"), "What should it become?", "Remix"),
    "extend": (ExtendRequest(prompt="funk with a guitar solo"), "How should it go on?", "Extend"),
    "inpaint": (InpaintRequest(prompt="drum fill"), "What should be there instead?", "Replace it"),
}
UNITS = ("seconds", "bars")


def change(
    pipe: RiffPipeline, verb: str, path: str, request: EditRequest, callback: StepCallback | None = None
) -> Clip:
    """What becomes of a recording.

    Args:
        pipe: the model.
        verb: remix, extend or inpaint.
        path: of the recording.
        request: of the verb.
        callback: called at each step of the denoising.
    """
    made: Clip = getattr(pipe, verb)(path, **as_dict(request), callback_on_step_end=callback)
    return made


def code_of(stage: Stage, verb: str, path: str, request: EditRequest) -> list[tuple[str, str]]:
    """The same edit as Python and as a shell command."""
    name = Path(path).name
    shell = shell_code(stage, verb, [name, request.prompt], request, more=_place(request))
    return [("Copy as Python", python_code(stage, verb, request, audio=name)), ("Copy as shell command", shell)]


def mask_of(first: float | None, last: float | None, unit: str) -> dict[str, float]:
    """The part to replace, as the request's fields.

    Raises:
        RiffError: it is empty.
    """
    begin, end = float(first or 0.0), float(last or 0.0)
    if end <= begin:
        raise RiffError(f"the part from {begin:g} to {end:g} {unit} is empty; let it end after it begins")
    if unit == "bars":
        return {"mask_start_bar": begin, "mask_end_bar": end}
    return {"mask_start_seconds": begin, "mask_end_seconds": end}


def build(stage: Stage, verb: str) -> gr.Audio:
    """Lay one of the tabs out; returns the field of its recording."""
    request, question, button = VERBS[verb]
    form = RequestForm(stage, verb, request)
    ask, out, more = columns()
    with ask:
        shown = gr.HTML(empty("Bring a sound, or send one here from another tab"), elem_id=f"{verb}-before",
                        render=False)  # fmt: skip
        sound = sound_field(stage, verb, shown, region=verb == "inpaint")
        text = form.add("prompt", label=question, info=None, lines=2, elem_classes="riff-prompt")
        place = _part() if verb == "inpaint" else []
        if verb == "remix":
            form.add("strength", label="Strength")
        elif verb == "extend":
            form.add("bars", label="Bars to add", info=None)
        go, stop, status = buttons(button, verb)
    with out:
        result = gr.HTML("", elem_id=f"{verb}-result")
        shown.render()
    with more:
        form.add_seed()
        form.add_rest()

    def work(session: gr.Request, path: str | None, *values: Any) -> Iterator[tuple[object, ...]]:
        def read() -> EditRequest:
            read_upload(path)
            mask = mask_of(*values[: len(place)]) if place else {}
            found: EditRequest = form.read(values[len(place) :], **mask)
            return found

        def make(request: EditRequest, callback: StepCallback) -> Iterator[Clip]:
            yield change(stage.pipe, verb, str(path), request, callback)

        def show(request: EditRequest, clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            return after(clip, name, code=code_of(stage, verb, str(path), request), notes=notes)

        yield from stage.perform(str(session.session_hash), read, make, show)

    start(stage, [go.click, text.submit], work, [sound, *place, *form.inputs], [status, result], stop)
    return sound


def _part() -> list[Any]:
    """Which part of the recording is replaced: by hand, or by the page's script when it is dragged."""
    with gr.Row(elem_classes="riff-row"):
        first = gr.Number(0.0, label="From", step=0.01, elem_id="riff-from", min_width=64)
        last = gr.Number(2.0, label="To", step=0.01, elem_id="riff-to", min_width=64)
        unit = gr.Radio(list(UNITS), value=UNITS[0], label="in", elem_id="riff-unit", min_width=170)
    gr.HTML("Drag across the spectrogram to choose the part, or type it.", elem_classes="riff-hint")
    return [first, last, unit]


def _place(request: EditRequest) -> Sequence[str]:
    if not isinstance(request, InpaintRequest):
        return ()
    if request.mask_start_bar is not None:
        return ("--bars", f"{request.mask_start_bar:g}", f"{request.mask_end_bar:g}")
    return ("--seconds", f"{request.mask_start_seconds:g}", f"{request.mask_end_seconds:g}")
