"""The tab "Spectrogram": a sound becomes an image, the image is painted on and played."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from torch import Tensor

from riff.apps.playground.cards import result_card
from riff.apps.playground.stage import Stage, problem
from riff.apps.playground.widgets import buttons, columns, empty, slider_range, start
from riff.audio.io import load_audio, save_audio
from riff.audio.tags import MACHINE_MADE
from riff.diffusion.sampling import StepCallback
from riff.spectrogram.codec import Encoded, SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_pil, pil_to_image
from riff.spectrogram.png import read_png, write_png
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip
from riff.tasks.provenance import handed_on, read_made, sound_tags
from riff.tasks.requests import Bpm
from riff.utils.errors import RiffError
from riff.utils.schema import check_value

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Canvas:
    """An image and what it means.

    Attributes:
        image: ``(C, M, N)`` in [0, 1], row 0 the highest frequency.
        config: of the image.
        bpm: tempo or tempo map; None where columns are seconds.
        max_value: mel magnitude of black on the power scale, if it is known.
        name: of the file that it came from.
        made: how that was made, by its own account; empty if no machine made it.
    """

    image: Tensor
    config: SpectrogramConfig
    bpm: float | TempoMap | None
    max_value: float | None
    name: str
    made: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def loud_is_white(self) -> bool:
        """Whether white is loud, as on riff's images; on Riffusion's, black is."""
        return self.config.amplitude == "decibel"


def draw(path: str, *, riffusion: bool = False, bpm: float | None = None) -> Canvas:
    """A sound as an image.

    Args:
        path: of the sound, of which the first :data:`MAX_SECONDS` are taken.
        riffusion: as Riffusion's model wants it; else as riff's does.
        bpm: cut riff's columns on the beat at this tempo; None cuts them in seconds.

    Raises:
        RiffError: it cannot be read.
    """
    config = SpectrogramConfig.riffusion(stereo=False) if riffusion else SpectrogramConfig()
    if not riffusion and bpm is None:
        config = dataclasses.replace(config, grid="seconds")
    sound, _ = load_audio(path, sample_rate=config.sample_rate, channels=config.channels, duration=MAX_SECONDS)
    encoded = SpectrogramCodec(config).encode(sound, bpm=None if riffusion else bpm)
    return Canvas(encoded.image, config, encoded.bpm, encoded.max_value, Path(path).name, read_made(path))


def open_image(path: str, *, bpm: float | None = None) -> Canvas:
    """A spectrogram of riff's or of Riffusion's.

    Args:
        path: of the image.
        bpm: its tempo where it does not say one itself.

    Raises:
        RiffError: it is no image, or lies on the beats grid without a tempo.
    """
    image, config, made = read_png(path)
    found = Encoded.read(image, config, made)
    tempo = found.bpm
    if config.grid == "beats":
        tempo = bpm if tempo is None else tempo
        if tempo is None:
            raise RiffError("this image lies on the beats grid and does not say its tempo; switch the tempo on")
        if not isinstance(tempo, TempoMap):
            tempo = check_value(tempo, Bpm, "bpm")
    seconds = _seconds(image.shape[-1], config, tempo)
    if seconds > MAX_SECONDS:
        raise RiffError(f"the image lasts {seconds:.0f} s; use one of at most {MAX_SECONDS:g} s")
    origin = made if made.get("origin") == MACHINE_MADE else {}
    return Canvas(image, config, tempo, found.max_value, Path(path).name, origin)


def painted(canvas: Canvas, picture: "Image | None") -> Canvas:
    """The canvas with what was painted on it; where it was not touched it stays as it was."""
    if picture is None:
        return canvas
    size = canvas.image.shape[-1], canvas.image.shape[-2]
    if picture.mode == "RGBA":
        from PIL import Image

        ground = Image.new("RGBA", picture.size, "black" if canvas.loud_is_white else "white")
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    if picture.size != size:
        picture = picture.resize(size)
    if canvas.config.channels == 1:
        picture = picture.convert("L")
    new = pil_to_image(picture, canvas.config)
    same = (new - canvas.image).abs() < 1.5 / 255.0
    return dataclasses.replace(canvas, image=canvas.image.where(same, new))


@dataclasses.dataclass
class Painted(Clip):
    """The sound of a canvas; its files say that a machine made them only where one did."""

    canvas: Canvas | None = None

    def save(
        self, path: str | Path, *, overwrite: bool = False, metadata: bool = True, force: bool | None = None
    ) -> Path:
        """Write the sound, or the image if ``path`` ends in .png."""
        canvas = self.canvas
        if canvas is None:
            return super().save(path, overwrite=overwrite, metadata=metadata)
        if Path(path).suffix.lower() == ".png":
            encoded = Encoded(canvas.image, canvas.max_value, canvas.bpm)
            made = handed_on(canvas.made, "encode") | encoded.metadata | {"source": canvas.name}
            return write_png(path, canvas.image, canvas.config, metadata=made, force=overwrite)
        tags = sound_tags(handed_on(canvas.made, "decode")) if canvas.made else None
        return save_audio(path, self.waveform, self.sample_rate, metadata=tags, force=overwrite)


def play(canvas: Canvas) -> Painted:
    """The sound of a canvas, as a clip."""
    waveform = SpectrogramCodec(canvas.config).decode(canvas.image, bpm=canvas.bpm, max_value=canvas.max_value)
    tempo = canvas.bpm if isinstance(canvas.bpm, TempoMap) else None
    return Painted(
        waveform=waveform,
        sample_rate=canvas.config.sample_rate,
        image=canvas.image,
        config=canvas.config,
        prompt=canvas.name,
        seed=0,
        bpm=float(tempo.bpm_at(0.0)) if tempo else float(canvas.bpm or 120.0),  # type: ignore[arg-type]
        tempo=tempo,
        settings={"beats_per_bar": 4 if canvas.config.grid == "beats" else 0},
        canvas=canvas,
    )


def editor_value(canvas: Canvas) -> dict[str, Any]:
    """The image as the painter takes it."""
    return {"background": image_to_pil(canvas.image, canvas.config).convert("RGB"), "layers": [], "composite": None}


def build(stage: Stage) -> None:
    """Lay the tab out."""
    ask, out, more = columns()
    with ask:
        sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="A sound", buttons=[],
                         elem_id="spectrogram-sound", elem_classes="riff-sound")  # fmt: skip
        image = gr.File(label="or an image, riff's or Riffusion's", file_types=[".png", ".jpg", ".webp"],
                        type="filepath", elem_id="spectrogram-picture", height=120)  # fmt: skip
        go, stop, status = buttons("Play it", "spectrogram")
    with out:
        editor = gr.ImageEditor(
            type="pil", image_mode="RGBA", format="png", sources=[], transforms=(), layers=False,
            label="Paint white for loud, black for silence", elem_id="spectrogram-editor", height=340,
            canvas_size=(1024, 256), buttons=["download"],
            brush=gr.Brush(colors=["#ffffff", "#a0a0a0", "#000000"], default_color="#000000", default_size=12),
        )  # fmt: skip
        result = gr.HTML(empty("Bring a sound or a spectrogram, paint on it, then press Play it"),
                         elem_id="spectrogram-result")  # fmt: skip
    with more:
        kind = gr.Radio(["riff", "Riffusion"], value="riff", label="The spectrogram of a sound is like that of")
        on_beat = gr.Checkbox(False, label="It has a steady tempo: columns on the beat")
        low, high, step = slider_range("bpm")
        bpm = gr.Slider(low, high, 120, step=step, label="Tempo, bpm")
    canvas = gr.State(None)

    def from_sound(path: str | None, kind: str, on_beat: bool, bpm: float) -> tuple[object, ...]:
        return _bring(path, lambda path: draw(path, riffusion=kind == "Riffusion", bpm=float(bpm) if on_beat else None))

    def from_image(path: str | None, on_beat: bool, bpm: float) -> tuple[object, ...]:
        return _bring(path, lambda path: open_image(path, bpm=float(bpm) if on_beat else None))

    def work(session: gr.Request, canvas: Canvas | None, value: Any) -> Iterator[tuple[object, ...]]:
        def read() -> Canvas:
            if canvas is None:
                raise RiffError("there is nothing to play yet; bring a sound or a spectrogram")
            return painted(canvas, (value or {}).get("composite"))

        def make(canvas: Canvas, callback: StepCallback) -> Iterator[Clip]:
            yield play(canvas)

        def show(canvas: Canvas, clip: Clip, name: str, notes: tuple[str, ...]) -> str:
            return result_card(clip, name, notes=notes, facts=_facts(clip))

        yield from stage.perform(str(session.session_hash), read, make, show)

    hidden: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": editor, "api_visibility": "private"}
    gr.on([sound.change, kind.change, on_beat.change, bpm.release], from_sound, [sound, kind, on_beat, bpm],
          [canvas, editor, status], **hidden)  # fmt: skip
    image.change(from_image, [image, on_beat, bpm], [canvas, editor, status], **hidden)
    start(stage, [go.click], work, [canvas, editor], [status, result], stop)


def _bring(path: str | None, read: Callable[[str], Canvas]) -> tuple[object, ...]:
    """Canvas, editor and status after a file was brought."""
    if not path:
        return gr.skip(), gr.skip(), gr.skip()
    try:
        found = read(path)
    except RiffError as error:
        return gr.skip(), gr.skip(), problem(error)
    loud, quiet = ("white", "black") if found.loud_is_white else ("black", "white")
    return found, gr.update(value=editor_value(found), label=f"Paint {loud} for loud, {quiet} for silence"), ""


def _facts(clip: Clip) -> list[str]:
    tempo = [f"{clip.bpm:.4g} bpm"] if clip.config.grid == "beats" else []
    rows, columns = clip.image.shape[-2:]
    return [f"{clip.duration:.1f} s", *tempo, f"{columns} by {rows} pixels", f"{clip.config.amplitude} scale"]


def _seconds(columns: int, config: SpectrogramConfig, tempo: float | TempoMap | None) -> float:
    if config.grid == "seconds" or tempo is None:
        return columns * config.hop_length / config.sample_rate
    beats = columns / config.frames_per_beat
    return float(tempo.seconds_at(beats)) if isinstance(tempo, TempoMap) else beats * 60.0 / tempo
