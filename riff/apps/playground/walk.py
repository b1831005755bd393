"""The tab "Walk": from sentence to sentence; what is done is heard while the rest is being made."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch

from riff.apps.playground.stage import EMPTY, Source, Stage, python_code, shell_code
from riff.apps.playground.widgets import bar_lines, buttons, feed, now, result_card, roll, seed_row, start
from riff.audio.splice import append
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.prompt.interpret import interpret_prompt
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError

MAX_STATIONS = 8
_OVERLAP = 0.03  # seconds of the crossfade where two parts meet
_HINT = "One sentence a line, then press <b>Walk</b>"
_EXAMPLE = (
    "lo-fi hip hop, mellow electric piano, 84 bpm\nbossa nova guitar, 100 bpm\nfunky disco with slap bass, 118 bpm"
)


@dataclasses.dataclass(frozen=True)
class Way:
    """What the tab asks for.

    Attributes:
        prompts: the stations.
        bars_per_step: from one station's first bar to the next one's.
        seed: of all stations.
        steps: of the denoising.
        loop: whether the last station leads back to the first.
    """

    prompts: tuple[str, ...]
    bars_per_step: int = 8
    seed: int = 0
    steps: int = 20
    loop: bool = False


def read_way(text: str, bars: float, seed: float | None, steps: float, loop: bool) -> Way:
    """The fields as they stand on the page.

    Raises:
        RiffError: fewer than two stations, or too many.
    """
    prompts = tuple(line.strip() for line in (text or "").splitlines() if line.strip())
    if not 2 <= len(prompts) <= MAX_STATIONS:
        raise RiffError(f"there are {len(prompts)} stations; write 2 to {MAX_STATIONS}, one sentence a line")
    return Way(prompts, int(bars), roll() if seed is None else int(seed), int(steps), bool(loop))


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


def walk(pipe: RiffPipeline, way: Way, count_step: StepCallback | None = None) -> Iterator[Leg]:
    """Go from station to station.

    The first leg is the first station's plain clip, with which the walk begins. Each later one is the walk between two
    stations, whose first window is bit for bit that of the walk before it, where they meet on a bar line.

    Args:
        pipe: what makes music.
        way: the stations.
        count_step: called at each step of the denoising.

    Yields:
        What is done.

    Raises:
        RiffError: a value is out of its range.
    """
    first = pipe(way.prompts[0], seed=way.seed, num_inference_steps=way.steps, callback_on_step_end=count_step)
    yield Leg(first.clips[0], 0, True, first.clips[0])
    stay = len(bar_lines(first.clips[0])) - 1
    stations = [*way.prompts, way.prompts[0]] if way.loop else list(way.prompts)
    if len({_metre(pipe, prompt) for prompt in stations}) > 1:  # bar lines of two metres do not meet
        whole = pipe.walk(
            list(way.prompts), way.seed, bars_per_step=way.bars_per_step, loop=way.loop,
            num_inference_steps=way.steps, callback_on_step_end=count_step,
        )  # fmt: skip
        yield Leg(whole, stay, False, whole)
        return
    legs: list[Clip] = []
    for number, pair in enumerate(itertools.pairwise(stations)):
        legs.append(
            pipe.walk(
                list(pair), way.seed, bars_per_step=way.bars_per_step, num_inference_steps=way.steps,
                callback_on_step_end=count_step,
            )
        )  # fmt: skip
        more = number < len(stations) - 2
        whole = join(legs, way.bars_per_step)
        yield Leg(legs[-1], stay if number == 0 else 0, more, whole)


def _metre(pipe: RiffPipeline, prompt: str) -> int:
    """Beats per bar that a sentence asks for."""
    return interpret_prompt(prompt, bpm=None, keyscale=None, parts=pipe.components, prior=pipe.prior).beats_per_bar


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
        part = leg.waveform[:, :samples]
        sound = append(sound, part, overlap_samples=overlap if number else 0)
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


def code_of(way: Way, source: Source) -> tuple[str, str]:
    """The same walk as Python and as a shell command, on one canvas."""
    arguments = {
        "prompts": list(way.prompts), "seeds": way.seed, "bars_per_step": way.bars_per_step,
        "loop": way.loop or None, "num_inference_steps": way.steps,
    }  # fmt: skip
    options = {"--step": way.bars_per_step, "--seed": way.seed, "--steps": way.steps, "--loop": way.loop}
    return python_code("walk", arguments, source=source), shell_code("walk", list(way.prompts), options, source=source)


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            text = gr.Textbox(_EXAMPLE, label="Stations, one sentence a line", lines=4, max_lines=MAX_STATIONS,
                              max_length=4000, elem_id="walk-stations")  # fmt: skip
            bars = gr.Slider(3, 32, 6, step=1, label="Bars from station to station")
            loop = gr.Checkbox(False, label="Go back to the first station at the end")
            listen = gr.Checkbox(True, label="Hear it while the rest is being made", elem_id="walk-listen")
            seed = seed_row("walk")
            steps = gr.Slider(1, 100, 20, step=1, label="Steps")
            go, stop, status = buttons("Walk", "walk")
        with gr.Column(scale=6, min_width=320):
            gr.HTML(now("What is done is heard here", stage.pipe.sample_rate), elem_id="walk-now")
            result = gr.HTML(EMPTY.format(_HINT), elem_id="walk-result")
    current, part = gr.State(None), gr.HTML("", elem_id="walk-feed")
    del listen  # the page's script reads it

    def work(request: gr.Request, *fields: Any) -> Iterator[tuple[object, ...]]:
        legs: list[Leg] = []

        def make(count_step: StepCallback) -> Iterator[Clip]:
            for leg in walk(stage.pipe, read_way(*fields), count_step):
                legs.append(leg)
                yield leg.whole

        def show(clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            python, shell = code_of(read_way(*fields), stage.source)
            if len(legs) > 2:
                notes = (*notes, "Drawn in parts to be heard early; the code draws one canvas, which differs a little.")
            return result_card(clip, name, python=python, shell=shell, notes=notes)

        told = 0
        for found in stage.perform(str(request.session_hash), make, show):
            fed: object = gr.skip()
            if len(legs) > told:
                told = len(legs)
                leg = legs[-1]
                name = stage.parts.put(leg.clip)
                fed = feed("walk", name, leg.clip, said=leg.clip.prompt, start=leg.start, more=leg.more)
            yield (*found, fed)

    start(stage, [go.click], work, [text, bars, seed, steps, loop], [status, result, current, part], stop)
