"""The tab "Walk": from sentence to sentence; what is done is played while the rest is being made."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import torch

from riff.apps.playground.cards import bar_lines, feed, now, result_card
from riff.apps.playground.stage import Stage
from riff.apps.playground.widgets import RequestForm, buttons, columns, empty, python_code, shell_code, start
from riff.audio.splice import append
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.spectrogram.tempo import TempoMap
from riff.tasks import walk as tasks
from riff.tasks.clip import Clip
from riff.tasks.requests import RenderRequest, WalkRequest, each_of

_OVERLAP = 0.03  # seconds of the crossfade where two parts meet
EXAMPLE = ["lo-fi hip hop, mellow electric piano, 84 bpm", "bossa nova guitar, 100 bpm",
           "funky disco with slap bass, 118 bpm"]  # fmt: skip
START = WalkRequest(prompts=EXAMPLE, bars_per_step=6)
_IN_PARTS = "Made in parts, to be played early; the code makes it on one canvas, which differs a little."


@dataclasses.dataclass(frozen=True)
class Leg:
    """A part of a walk that is done.

    Attributes:
        clip: the part.
        start: bar of it from which it goes on where the one before ends.
        more: whether others follow.
        whole: the walk up to here.
    """

    clip: Clip
    start: int
    more: bool
    whole: Clip


def prompts_of(text: str) -> list[str]:
    """One prompt a line."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def walk(pipe: RiffPipeline, request: WalkRequest, callback: StepCallback | None = None) -> Iterator[Leg]:
    """Go from prompt to prompt.

    The first leg is the first prompt's plain clip, with which the walk begins. Each later one is the walk between two
    prompts, whose first window is bit for bit that of the walk before it, where they meet on a bar line.

    Args:
        pipe: the model.
        request: with a seed.
        callback: called at each step of the denoising.

    Yields:
        What is done.
    """
    clip = pipe(**_first(request), callback_on_step_end=callback).clips[0]
    yield Leg(clip, 0, True, clip)
    stay = len(bar_lines(clip)) - 1
    places = list(range(len(request.prompts))) + [0] * request.loop
    metres = {pipe.model.interpret(prompt, bpm=None, key=None).beats_per_bar for prompt in request.prompts}
    if len(metres) > 1:  # bar lines of two metres do not meet
        whole = tasks.walk(pipe.model, request, callback)
        yield Leg(whole, stay, False, whole)
        return
    legs: list[Clip] = []
    for number, pair in enumerate(itertools.pairwise(places)):
        legs.append(tasks.walk(pipe.model, _between(request, pair), callback))
        whole = join(legs, request.bars_per_step or tasks.BARS_PER_STEP)
        yield Leg(legs[-1], stay if number == 0 else 0, number < len(places) - 2, whole)


def _first(request: WalkRequest) -> dict[str, Any]:
    """The options of the first prompt's plain clip."""
    shared = {field.name for field in dataclasses.fields(RenderRequest)} - {"bars", "loop"}
    values = {name: value for name, value in vars(request).items() if name in shared}
    for name in ("negative_prompt", "guidance_scale", "bpm", "key"):
        values[name] = each_of(values[name], len(request.prompts))[0]
    return {"prompt": request.prompts[0], **values}


def _between(request: WalkRequest, pair: Sequence[int]) -> WalkRequest:
    """The walk from one prompt to the next."""
    given: dict[str, Any] = vars(request)
    lists: dict[str, Any] = {
        name: [value[place] for place in pair] for name, value in given.items() if isinstance(value, list)
    }
    return dataclasses.replace(request, loop=False, **lists)


def join(legs: list[Clip], bars: int) -> Clip:
    """Legs of a walk as one clip: of each but the last ``bars`` bars, and a short crossfade into the next."""
    if len(legs) == 1:
        return legs[0]
    rate, overlap = legs[0].sample_rate, round(_OVERLAP * legs[0].sample_rate)
    sound, images = legs[0].waveform[:, :0], []
    for number, leg in enumerate(legs):
        last = number == len(legs) - 1
        lines = bar_lines(leg)
        samples = leg.waveform.shape[-1] if last else round(lines[bars] * rate) + overlap
        columns = leg.image.shape[-1] if last else round(leg.image.shape[-1] * bars / (len(lines) - 1))
        sound = append(sound, leg.waveform[:, :samples], overlap_samples=overlap if number else 0)
        images.append(leg.image[..., :columns])
    prompts = [legs[0].prompt.split(" -> ")[0], *(leg.prompt.split(" -> ")[-1] for leg in legs)]
    settings = {name: value for name, value in legs[0].settings.items() if name not in ("timeline", "ends_pinned")}
    return dataclasses.replace(
        legs[0], waveform=sound, image=torch.cat(images, -1), prompt=" -> ".join(prompts), tempo=_tempo(legs, bars),
        settings=settings | {"task": "walk in parts"},
    )  # fmt: skip


def _tempo(legs: list[Clip], bars: int) -> TempoMap | None:
    """The legs' tempo maps one after the other; None where there is one tempo."""
    if all(leg.tempo is None and leg.bpm == legs[0].bpm for leg in legs):
        return None
    rows: list[tuple[float, float, float, float]] = []
    beat = second = 0.0
    for number, leg in enumerate(legs):
        tempo = leg.tempo or TempoMap.constant(leg.bpm)
        length = bars * int(leg.settings.get("beats_per_bar") or 4)
        for row in zip(tempo.beats, tempo.seconds, tempo.tempi, tempo.slopes, strict=True):
            if row[0] < length or number == len(legs) - 1:
                rows.append((beat + row[0], second + row[1], *row[2:]))
        beat, second = beat + length, second + float(tempo.seconds_at(length))
    beats, seconds, tempi, slopes = zip(*rows, strict=True)
    return TempoMap(beats, seconds, tempi, slopes)


def code_of(stage: Stage, request: WalkRequest) -> list[tuple[str, str]]:
    """The same walk as Python and as a shell command, on one canvas."""
    shell = shell_code(stage, "walk", request.prompts, request)
    return [("Copy as Python", python_code(stage, "walk", request)), ("Copy as shell command", shell)]


def build(stage: Stage) -> None:
    """Lay the tab out."""
    form = RequestForm(stage, "walk", START, skip=["bars"])
    ask, out, more = columns()
    with ask:
        text = gr.Textbox("\n".join(EXAMPLE), label="From sentence to sentence, one a line", lines=4, max_lines=12,
                          elem_id="walk-prompts", elem_classes="riff-prompt")  # fmt: skip
        go, stop, status = buttons("Walk", "walk")
    with out:
        gr.HTML(now("What is done is played here", stage.pipe.config.sample_rate), elem_id="walk-now")
        result, part = gr.HTML(empty("One sentence a line, then press Walk"), elem_id="walk-result"), gr.HTML(
            "", elem_id="walk-feed")  # fmt: skip
    with more:
        with gr.Row(elem_classes="riff-row"):
            form.add("bars_per_step", label="Bars to the next", info=None)
            form.add("loop", label="Go back to the first", info=None)
        gr.Checkbox(True, label="Play it while the rest is being made", elem_id="walk-listen")  # the script reads it
        form.add_seed()
        form.add_rest()

    def work(session: gr.Request, text: str, *values: Any) -> Iterator[tuple[object, ...]]:
        legs: list[Leg] = []

        def read() -> WalkRequest:
            request: WalkRequest = form.read(values, prompts=prompts_of(text))
            return request

        def make(request: WalkRequest, callback: StepCallback) -> Iterator[Clip]:
            for leg in walk(stage.pipe, request, callback):
                legs.append(leg)
                yield leg.whole

        def show(request: WalkRequest, clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            notes = (*notes, _IN_PARTS) if len(legs) > 2 else notes
            return result_card(clip, name, code=code_of(stage, request), notes=notes)

        shown = 0
        for found in stage.perform(str(session.session_hash), read, make, show):
            fed: object = gr.skip()
            if len(legs) > shown:
                shown, leg = len(legs), legs[-1]
                fed = feed("walk", stage.parts.put(leg.clip), leg.clip, text=leg.clip.prompt, start=leg.start,
                           more=leg.more)  # fmt: skip
            yield (*found, fed)

    start(stage, [go.click], work, [text, *form.inputs], [status, result, part], stop)
