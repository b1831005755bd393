"""The tab "Compose": a sentence becomes a clip; clips are kept and compared."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import gradio as gr

from riff.apps.playground.stage import EMPTY, Source, Stage, failure, python_code, shell_code
from riff.apps.playground.widgets import KEYS, buttons, kept_list, more_settings, result_card, roll, seed_row, start
from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip

EXAMPLES = (
    "lo-fi hip hop, mellow electric piano, 84 bpm",
    "funky disco with slap bass, 118 bpm",
    "techno, 128 bpm, F minor",
    "solo church organ, slow",
    "jazz trio, walking bass, 3/4",
    "bossa nova guitar, 100 bpm",
)
_HINT = "Say what you want to hear, then press <b>Make music</b>"


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the tab asks for.

    Attributes:
        prompt: what to play.
        bpm: beats per minute; None takes what suits.
        bars: length.
        loop: whether the end leads back into the start.
        seed: of the noise.
        steps: of the denoising.
        guidance: weight of the prompt; None is the model's own.
        negative: what to stay away from.
        key: None leaves it open.
    """

    prompt: str
    bpm: float | None = None
    bars: int = 4
    loop: bool = False
    seed: int = 0
    steps: int = 20
    guidance: float | None = None
    negative: str | None = None
    key: str | None = None

    def arguments(self) -> dict[str, Any]:
        """As the pipeline takes them."""
        return {
            "prompt": self.prompt, "bpm": self.bpm, "bars": self.bars, "loop": self.loop or None, "seed": self.seed,
            "num_inference_steps": self.steps, "guidance_scale": self.guidance, "negative_prompt": self.negative,
            "key": self.key,
        }  # fmt: skip


def compose(pipe: RiffPipeline, wish: Wish, count_step: StepCallback | None = None) -> Clip:
    """Make one clip.

    Raises:
        RiffError: a value is out of its range.
    """
    given = {name: value for name, value in wish.arguments().items() if value is not None}
    return pipe(**given, callback_on_step_end=count_step).clips[0]


def code_of(wish: Wish, source: Source) -> tuple[str, str]:
    """The same wish as Python and as a shell command."""
    python = python_code("", wish.arguments(), source=source, result=".clips[0]")
    options = {
        "--bpm": wish.bpm, "--bars": wish.bars, "--loop": wish.loop, "--seed": wish.seed, "--steps": wish.steps,
        "--guidance": wish.guidance, "--negative": wish.negative, "--key": wish.key,
    }  # fmt: skip
    return python, shell_code("render", [wish.prompt], options, source=source)


def read_wish(
    prompt: str,
    auto: bool,
    bpm: float,
    bars: float,
    loop: bool,
    seed: float | None,
    steps: float,
    guidance: float,
    negative: str,
    key: str,
) -> Wish:
    """The fields as they stand on the page."""
    return Wish(
        prompt=(prompt or "").strip(),
        bpm=None if auto else float(bpm),
        bars=int(bars),
        loop=bool(loop),
        seed=roll() if seed is None else int(seed),
        steps=int(steps),
        guidance=float(guidance),
        negative=(negative or "").strip() or None,
        key=None if key == KEYS[0] else key,
    )


def keep(name: str | None, names: list[str]) -> list[str]:
    """The ids of the kept clips, with one more at their end."""
    return [*names, name] if name and name not in names else names


def show_kept(stage: Stage, names: list[str]) -> str:
    """The kept clips, those that the shelf still has."""
    return kept_list([(name, stage.shelf.get(name)) for name in names if name in stage.shelf])


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            prompt = gr.Textbox(
                label="What should it sound like?", lines=2, max_lines=6, max_length=1000, value=EXAMPLES[0],
                placeholder="style, instruments, mood, tempo, key", autofocus=True, elem_id="compose-prompt",
            )  # fmt: skip
            with gr.Row(elem_classes="riff-chips"):
                for text in EXAMPLES:
                    gr.Button(text, size="sm").click(
                        lambda text=text: text, None, prompt, queue=False, api_visibility="private"
                    )
            with gr.Row(elem_classes="riff-row"):
                auto = gr.Checkbox(True, label="Tempo that suits", min_width=120)
                bpm = gr.Slider(40, 200, 120, step=1, label="Tempo, bpm", interactive=False, min_width=160)
            auto.change(lambda on: gr.update(interactive=not on), auto, bpm, queue=False, api_visibility="private")
            with gr.Row(elem_classes="riff-row"):
                bars = gr.Slider(1, 64, 4, step=1, label="Bars", min_width=160)
                loop = gr.Checkbox(False, label="Loop, end to start", min_width=120)
            seed = seed_row("compose")
            steps, guidance, negative, key = more_settings(stage)
            go, stop, status = buttons("Make music", "compose")
        with gr.Column(scale=6, min_width=320):
            result = gr.HTML(EMPTY.format(_HINT), elem_id="compose-result")
            keeper = gr.Button("Keep this clip", visible=False, elem_id="compose-keep")
    current, names = gr.State(None), gr.State([])
    kept = gr.HTML("", elem_id="compose-kept")
    fields = [prompt, auto, bpm, bars, loop, seed, steps, guidance, negative, key]

    def work(request: gr.Request, *asked: Any) -> Iterator[tuple[object, ...]]:
        try:
            wish = read_wish(*asked)
        except (TypeError, ValueError) as error:
            raise failure(error) from error
        python, shell = code_of(wish, stage.source)

        def make(count_step: StepCallback) -> Iterator[Clip]:
            yield compose(stage.pipe, wish, count_step)

        yield from stage.perform(
            str(request.session_hash), make,
            lambda clip, name, notes: result_card(clip, name, python=python, shell=shell, notes=notes),
        )  # fmt: skip

    start(stage, [go.click, prompt.submit], work, fields, [status, result, current], stop)
    current.change(lambda name: gr.update(visible=bool(name)), current, keeper, queue=False, api_visibility="private")
    keeper.click(keep, [current, names], names, queue=False, api_visibility="private").then(
        lambda names: show_kept(stage, names), names, kept, queue=False, api_visibility="private"
    )
