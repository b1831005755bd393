"""The tab "Live": endless music that follows the fields.

The page's script asks for a bar as late as is safe, and plays it where the one before ends, to the sample. A bar that
is being drawn while a field changes is thrown away where there is time for another.
"""

import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from riff.apps.playground.compose import EXAMPLES
from riff.apps.playground.stage import Part, Shelf, Stage, Stopped, problem
from riff.apps.playground.widgets import KEYS, feed, nothing, now, roll
from riff.audio.io import save_audio
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.tasks.provenance import recorded, sound_tags
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import STEPS, MusicStream, fitting_steps
from riff.tasks.text_to_music import resolve


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
    pipe: RiffPipeline, before: Playing | None, asked: StreamRequest, count_step: StepCallback | None = None
) -> Playing:
    """The bar after ``before``, which walks to what is asked for; ``before`` stays as it was.

    Args:
        pipe: what makes music.
        before: what was; None begins.
        asked: what is to be.
        count_step: called at each step of the denoising.

    Raises:
        RiffError: a value is out of its range.
    """
    began = time.monotonic()
    if before is None:
        music = MusicStream(pipe.model, dataclasses.replace(asked, seed=roll(), num_inference_steps=STEPS[0]))
    else:
        music = copy.copy(before.music)
        music.steps = fitting_steps(music.bar_seconds, before.step_s)
        music.set_target(asked)
    bar = music.next(count_step)
    made = recorded(dataclasses.replace(resolve(pipe.model, asked), num_inference_steps=music.steps))
    clip = Clip(
        bar.waveform, music.sample_rate, bar.image, pipe.config, asked.prompt, music.seed, music.bpm,
        {**pipe.model.facts(), **made, "beats_per_bar": len(bar.beats) - 1, "task": "live"},
    )  # fmt: skip
    return Playing(music, clip, bar.beats, (time.monotonic() - began) / music.steps)


def keep(shelf: Shelf, clip: Clip) -> str:
    """Put a bar's sound on the shelf as it is, since a bar that were turned down would not join; its id."""
    tags = sound_tags(clip.provenance)

    def write(path: Path) -> None:
        save_audio(path, clip.waveform, clip.sample_rate, metadata=tags)

    return shelf.put_files({"wav": write})


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Column(elem_id="live-controls"):
        prompt = gr.Textbox(EXAMPLES[0].rpartition(",")[0], label="What is playing? Change it at any time", lines=2,
                            max_length=1000, elem_id="live-prompt")  # fmt: skip
        with gr.Row(elem_classes="riff-chips", elem_id="live-chips"):
            for text in ("lo-fi hip hop, mellow electric piano", "funky disco with slap bass", "techno", "bossa nova",
                         "church organ", "drum and bass"):  # fmt: skip
                chip = gr.Button(text, size="sm")
                chip.click(lambda text=text: text, None, prompt, queue=False, api_visibility="private")
        with gr.Row():
            bpm = gr.Slider(50, 180, 100, step=1, label="Tempo, bpm", min_width=200, elem_id="live-bpm")
            guidance = gr.Slider(0, 8, stage.pipe.model.default_guidance, step=0.1, label="Guidance", min_width=200)
            key = gr.Dropdown(list(KEYS), value=KEYS[0], label="Key", min_width=120)
    with gr.Row():
        gr.Button("Start", variant="primary", size="lg", elem_id="live-go", scale=3, min_width=140)
        stop = gr.Button("Stop", size="lg", elem_id="live-stop", scale=1, min_width=80)
    gr.HTML(now("Press Start. It plays until you stop it", stage.pipe.sample_rate), elem_id="live-now")
    following = gr.Button("next", visible="hidden", elem_id="live-next")
    cancel = gr.Button("cancel", visible="hidden", elem_id="live-cancel")
    part, before = gr.HTML("", elem_id="live-feed"), gr.State(None)

    def work(
        request: gr.Request, was: Playing | None, prompt: str, bpm: float, guidance: float, key: str
    ) -> tuple[object, object]:
        wanted = {"bpm": float(bpm), "key": None if key == KEYS[0] else key, "guidance_scale": float(guidance)}
        asked = StreamRequest(prompt=(prompt or "").strip(), **wanted)

        def make(count_step: StepCallback) -> Iterator[Playing]:
            yield next_bar(stage.pipe, was, asked, count_step)

        try:
            for found in stage.works.run(str(request.session_hash), make):
                if isinstance(found, Part):
                    playing: Playing = found.value
                    name, said = keep(stage.parts, playing.clip), f"{asked.prompt} · {bpm:g} bpm"
                    return feed("live", name, playing.clip, said=said, beats=playing.beats), playing
        except Stopped:
            return nothing("live"), gr.skip()
        except Exception as error:
            return problem(error), None
        return nothing("live"), gr.skip()

    following.click(
        work, [before, prompt, bpm, guidance, key], [part, before], show_progress="hidden", concurrency_limit=1,
        concurrency_id="model", trigger_mode="multiple", api_visibility="private",
    )  # fmt: skip
    cancel.click(stage.stop, None, None, queue=False, api_visibility="private")
    stop.click(stage.stop, None, None, queue=False, api_visibility="private")
    stop.click(lambda: None, None, before, queue=False, api_visibility="private")
