"""The tab "Live": endless music that follows the fields.

Each part begins as the one before was, and in its first bar walks to what is asked for now. The page's script asks for
the next one in time and joins it on a bar line. When a field changes it asks at once, and joins on a beat: from there
on the walk is heard, so that it ends with the bar.
"""

import dataclasses
from collections.abc import Iterator

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.keyframe import Keyframe
from riff.pipeline import RiffPipeline
from riff.playground.compose import EXAMPLES
from riff.playground.parts import feed, nothing, now
from riff.playground.stage import Stage, problem
from riff.playground.widgets import KEYS, roll
from riff.playground.work import Part, Stopped
from riff.timeline import Timeline

BARS = 3  # of a part, the first of which is the way
QUICK_BARS, QUICK_STEPS = 2, 6  # of one that is waited for, since something else is asked for


@dataclasses.dataclass(frozen=True)
class Station:
    """What the music is.

    Attributes:
        prompt: what is played.
        bpm: beats per minute; None is what suits.
        key: None leaves it open.
        guidance: weight of the prompt.
        seed: of the noise.
    """

    prompt: str
    bpm: float | None = None
    key: str | None = None
    guidance: float | None = None
    seed: int = 0


def next_part(
    pipe: RiffPipeline,
    before: Station | None,
    asked: Station,
    *,
    steps: int = 10,
    count_step: StepCallback | None = None,
) -> Clip:
    """Some bars: from what was to what is asked for within the first of them.

    Args:
        pipe: what makes music.
        before: what was; None begins with what is asked for.
        asked: what is to be.
        steps: of the denoising; at most :data:`QUICK_STEPS` where something else is asked for.
        count_step: called at each.

    Raises:
        RiffError: a value is out of its range.
    """
    frames = [_frame(asked if before is None else before, 0.0), _frame(asked, 1.0)]
    changed = before is not None and dataclasses.replace(before, seed=0) != dataclasses.replace(asked, seed=0)
    timeline = Timeline(tuple(frames), bars=QUICK_BARS if changed else BARS)
    count = min(steps, QUICK_STEPS) if changed else steps
    return pipe.render(timeline, num_inference_steps=count, quality="fast", callback_on_step_end=count_step)


def _frame(station: Station, bar: float) -> Keyframe:
    return Keyframe(
        station.prompt, bar=bar, bpm=station.bpm, keyscale=station.key, guidance_scale=station.guidance,
        seed=station.seed, easing="smooth",
    )  # fmt: skip


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
    gr.HTML(now("Press Start. It plays until you stop it"), elem_id="live-now")
    following = gr.Button("next", visible="hidden", elem_id="live-next")
    cancel = gr.Button("cancel", visible="hidden", elem_id="live-cancel")
    part, before = gr.HTML("", elem_id="live-feed"), gr.State(None)

    def work(
        request: gr.Request, was: Station | None, prompt: str, bpm: float, guidance: float, key: str
    ) -> tuple[object, object]:
        asked = Station((prompt or "").strip(), float(bpm), None if key == KEYS[0] else key, float(guidance), roll())

        def make(count_step: StepCallback) -> Iterator[Clip]:
            yield next_part(stage.pipe, was, asked, count_step=count_step)

        try:
            for found in stage.works.run(str(request.session_hash), make):
                if isinstance(found, Part):
                    name, clip = stage.parts.put(found.value), found.value
                    return feed("live", name, clip, said=f"{asked.prompt} · {bpm:g} bpm"), asked
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
