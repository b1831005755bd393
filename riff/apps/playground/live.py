"""The tab "Live": endless music that follows the fields.

The page's script requests a bar as late as is safe, and plays it where the one before ends, to the sample. A bar
that is
being made while a field changes is thrown away where there is time for another.
"""

import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from riff.apps.playground.cards import feed, nothing, now
from riff.apps.playground.stage import Part, Shelf, Stage, Stopped, problem
from riff.apps.playground.widgets import PRIVATE, RequestForm, chips, columns
from riff.audio.io import save_audio
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.tasks.provenance import recorded, sound_tags
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import STEPS, MusicStream, fitting_steps
from riff.tasks.text_to_music import resolve

EXAMPLES = ("lo-fi hip hop, mellow electric piano", "funky disco with slap bass", "techno", "bossa nova",
            "church organ", "drum and bass")  # fmt: skip
START = StreamRequest(prompt=EXAMPLES[0], bpm=100.0)


@dataclasses.dataclass(frozen=True)
class Playing:
    """Music up to a bar that was handed out.

    Attributes:
        music: as it is after that bar.
        clip: the bar.
        beats: as :class:`riff.tasks.stream.Bar` has them.
        step_s: that a denoising step of it took, with its share of all the rest.
    """

    music: MusicStream
    clip: Clip
    beats: tuple[float, ...]
    step_s: float


def next_bar(
    pipe: RiffPipeline, before: Playing | None, request: StreamRequest, callback: StepCallback | None = None
) -> Playing:
    """The bar after ``before``, which walks to what is requested; ``before`` stays as it was.

    Args:
        pipe: the model.
        before: what was played; None begins.
        request: what is to come.
        callback: called at each step of the denoising.

    Raises:
        RiffError: a value is out of its range.
    """
    began = time.monotonic()
    if before is None:
        music = MusicStream(pipe.model, request)
        music.steps = STEPS[0]  # the first bar is to come soon
    else:
        music = copy.copy(before.music)
        music.steps = fitting_steps(music.bar_seconds, before.step_s)
        music.set_target(request)
    bar = music.next(callback)
    made = recorded(dataclasses.replace(resolve(pipe.model, request), num_inference_steps=music.steps))
    settings = {**pipe.model.facts(), **made, "beats_per_bar": len(bar.beats) - 1, "task": "live"}
    clip = Clip(bar.waveform, music.sample_rate, bar.image, pipe.config, request.prompt, music.seed, music.bpm,
                settings)  # fmt: skip
    return Playing(music, clip, bar.beats, (time.monotonic() - began) / music.steps)


def keep(shelf: Shelf, clip: Clip) -> str:
    """Put a bar's sound on the shelf as it is, since a bar that is turned down would not join; its id."""
    tags = sound_tags(clip.provenance)

    def write(path: Path) -> None:
        save_audio(path, clip.waveform, clip.sample_rate, metadata=tags)

    return shelf.put_files({"wav": write})


def build(stage: Stage) -> None:
    """Lay the tab out."""
    form = RequestForm(stage, "live", START, skip=["seed", "negative_prompt", "num_inference_steps", "quality"])
    ask, out, more = columns()
    with ask:
        prompt = form.add("prompt", label="What is playing? Change it at any time", info=None, lines=2,
                          elem_classes="riff-prompt")  # fmt: skip
        chips(EXAMPLES, prompt, "live")
        with gr.Row(elem_classes="riff-go"):
            gr.Button("Start", variant="primary", size="lg", elem_id="live-go", scale=3, min_width=140)
            stop = gr.Button("Stop", size="lg", elem_id="live-stop", scale=1, min_width=80)
    with out:
        gr.HTML(now("Press Start. It plays until you stop it", stage.pipe.config.sample_rate), elem_id="live-now")
        part, before = gr.HTML("", elem_id="live-feed"), gr.State(None)
    with more, gr.Row(elem_classes="riff-row", elem_id="live-controls"):
        form.add("bpm", label="Tempo, bpm", info=None, min_width=190)
        form.add("guidance_scale", label="Guidance", info=None, min_width=190)
        form.add("key", info=None)
    following = gr.Button("next", visible="hidden", elem_id="live-next")
    cancel = gr.Button("cancel", visible="hidden", elem_id="live-cancel")

    def work(session: gr.Request, was: Playing | None, *values: Any) -> tuple[object, object]:
        try:
            request: StreamRequest = form.read(values)

            def make(callback: StepCallback) -> Iterator[Playing]:
                yield next_bar(stage.pipe, was, request, callback)

            for found in stage.sessions.run(str(session.session_hash), make):
                if isinstance(found, Part):
                    playing: Playing = found.value
                    name, text = keep(stage.parts, playing.clip), f"{request.prompt} · {request.bpm:g} bpm"
                    return feed("live", name, playing.clip, text=text, beats=playing.beats), playing
        except Stopped:
            pass
        except Exception as error:
            return problem(error), None
        return nothing("live"), gr.skip()

    following.click(
        work, [before, *form.inputs], [part, before], show_progress="hidden", concurrency_limit=1,
        concurrency_id="model", trigger_mode="multiple", api_visibility="private",
    )  # fmt: skip
    cancel.click(stage.stop, None, None, **PRIVATE)
    stop.click(stage.stop, None, None, **PRIVATE)
    stop.click(lambda: None, None, before, **PRIVATE)
