"""The tab "Spectrogram": a sound becomes a picture, a picture is painted on, and what is on it is heard."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from torch import Tensor

from riff.apps.playground.stage import EMPTY, Stage, failure
from riff.apps.playground.widgets import buttons, result_card, start
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
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, check_number

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SECONDS = 60.0
_HINT = "Bring a sound or a spectrogram, paint on it, then press <b>Hear it</b>"


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A picture and what it means.

    Attributes:
        image: ``(C, M, N)`` in [0, 1], row 0 the highest frequency.
        config: of the picture.
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
        """Whether white is loud, as on riff's pictures; on Riffusion's black is."""
        return self.config.amplitude == "decibel"


def draw(path: str, *, riffusion: bool = False, bpm: float | None = None) -> Sheet:
    """A sound as a picture.

    Args:
        path: of the sound, of which the first :data:`MAX_SECONDS` are taken.
        riffusion: draw it as Riffusion's model wants it; else as riff's does.
        bpm: cut riff's columns on the beat at this tempo; None cuts them in seconds.

    Raises:
        RiffError: it cannot be read.
    """
    config = SpectrogramConfig.riffusion(stereo=False) if riffusion else SpectrogramConfig()
    if not riffusion and bpm is None:
        config = dataclasses.replace(config, grid="seconds")
    sound, _ = load_audio(path, sample_rate=config.sample_rate, channels=config.channels, duration=MAX_SECONDS)
    encoded = SpectrogramCodec(config).encode(sound, bpm=None if riffusion else bpm)
    return Sheet(encoded.image, config, encoded.bpm, encoded.max_value, Path(path).name, read_made(path))


def open_picture(path: str, *, bpm: float | None = None) -> Sheet:
    """A spectrogram of riff's or of Riffusion's.

    Args:
        path: of the picture.
        bpm: its tempo where it does not say one itself.

    Raises:
        RiffError: it is no picture, or lies on the beats grid and nobody says its tempo.
    """
    image, config, made = read_png(path)
    found = Encoded.read(image, config, made)
    tempo = found.bpm
    if config.grid == "beats":
        tempo = bpm if tempo is None else tempo
        if tempo is None:
            raise RiffError("this picture lies on the beats grid and does not say its tempo; switch the tempo on")
        if not isinstance(tempo, TempoMap):
            check_number(tempo, "bpm", *BPM_RANGE)
    seconds = _seconds(image.shape[-1], config, tempo)
    if seconds > MAX_SECONDS:
        raise RiffError(f"the picture lasts {seconds:.0f} s; use one of at most {MAX_SECONDS:g} s")
    told = made if made.get("origin") == MACHINE_MADE else {}
    return Sheet(image, config, tempo, found.max_value, Path(path).name, told)


def painted(sheet: Sheet, picture: "Image | None") -> Sheet:
    """The sheet with what was painted on it; where it was not touched it stays as it was."""
    if picture is None:
        return sheet
    size = sheet.image.shape[-1], sheet.image.shape[-2]
    if picture.mode == "RGBA":
        from PIL import Image

        ground = Image.new("RGBA", picture.size, "black" if sheet.loud_is_white else "white")
        picture = Image.alpha_composite(ground, picture).convert("RGB")
    if picture.size != size:
        picture = picture.resize(size)
    if sheet.config.channels == 1:
        picture = picture.convert("L")
    new = pil_to_image(picture, sheet.config)
    same = (new - sheet.image).abs() < 1.5 / 255.0
    return dataclasses.replace(sheet, image=sheet.image.where(same, new))


@dataclasses.dataclass
class Heard(Clip):
    """What is on a sheet; its files say that a machine made them only where one did."""

    sheet: Sheet | None = None

    def save(
        self, path: str | Path, *, overwrite: bool = False, metadata: bool = True, force: bool | None = None
    ) -> Path:
        """Write the sound, or the picture if ``path`` ends in .png."""
        sheet = self.sheet
        if sheet is None:
            return super().save(path, overwrite=overwrite, metadata=metadata)
        if Path(path).suffix.lower() == ".png":
            encoded = Encoded(sheet.image, sheet.max_value, sheet.bpm)
            told = handed_on(sheet.made, "encode") | encoded.metadata | {"source": sheet.name}
            return write_png(path, sheet.image, sheet.config, metadata=told, force=overwrite)
        tags = sound_tags(handed_on(sheet.made, "decode")) if sheet.made else None
        return save_audio(path, self.waveform, self.sample_rate, metadata=tags, force=overwrite)


def hear(sheet: Sheet) -> Heard:
    """What is on a sheet, as a clip."""
    waveform = SpectrogramCodec(sheet.config).decode(sheet.image, bpm=sheet.bpm, max_value=sheet.max_value)
    tempo = sheet.bpm if isinstance(sheet.bpm, TempoMap) else None
    return Heard(
        waveform=waveform,
        sample_rate=sheet.config.sample_rate,
        image=sheet.image,
        config=sheet.config,
        prompt=sheet.name,
        seed=0,
        bpm=float(tempo.bpm_at(0.0)) if tempo else float(sheet.bpm or 120.0),  # type: ignore[arg-type]
        tempo=tempo,
        settings={"beats_per_bar": 4 if sheet.config.grid == "beats" else 0},
        sheet=sheet,
    )


def editor_value(sheet: Sheet) -> dict[str, Any]:
    """The picture as the painter takes it."""
    return {"background": image_to_pil(sheet.image, sheet.config).convert("RGB"), "layers": [], "composite": None}


def build(stage: Stage) -> None:
    """Lay the tab out."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="A sound", buttons=[],
                             elem_id="spectrogram-sound")  # fmt: skip
            picture = gr.File(label="or a picture, riff's or Riffusion's", file_types=[".png", ".jpg", ".webp"],
                              type="filepath", elem_id="spectrogram-picture", height=150)  # fmt: skip
            kind = gr.Radio(["riff", "Riffusion"], value="riff", label="Draw sounds as")
            on_beat = gr.Checkbox(False, label="It has a steady tempo: columns on the beat")
            bpm = gr.Slider(40, 200, 120, step=1, label="Tempo, bpm")
            go, stop, status = buttons("Hear it", "spectrogram")
        with gr.Column(scale=7, min_width=320):
            editor = gr.ImageEditor(
                type="pil", image_mode="RGBA", format="png", sources=[], transforms=(), layers=False,
                label="Paint white for loud, black for silence", elem_id="spectrogram-editor", height=420,
                canvas_size=(1024, 256), buttons=["download"],
                brush=gr.Brush(colors=["#ffffff", "#a0a0a0", "#000000"], default_color="#000000", default_size=12),
            )  # fmt: skip
            result = gr.HTML(EMPTY.format(_HINT), elem_id="spectrogram-result")
    sheet, current = gr.State(None), gr.State(None)

    def put(found: Sheet) -> tuple[object, object]:
        loud, quiet = ("white", "black") if found.loud_is_white else ("black", "white")
        return found, gr.update(value=editor_value(found), label=f"Paint {loud} for loud, {quiet} for silence")

    def from_sound(path: str | None, kind: str, on_beat: bool, bpm: float) -> tuple[object, object]:
        if not path:
            return gr.skip(), gr.skip()
        try:
            return put(draw(path, riffusion=kind == "Riffusion", bpm=float(bpm) if on_beat else None))
        except RiffError as error:
            raise failure(error) from error

    def from_picture(path: str | None, on_beat: bool, bpm: float) -> tuple[object, object]:
        if not path:
            return gr.skip(), gr.skip()
        try:
            return put(open_picture(path, bpm=float(bpm) if on_beat else None))
        except RiffError as error:
            raise failure(error) from error

    def work(request: gr.Request, sheet: Sheet | None, value: Any) -> Iterator[tuple[object, ...]]:
        if sheet is None:
            raise failure(RiffError("there is nothing to hear yet; bring a sound or a spectrogram"))

        def made(count_step: StepCallback) -> Iterator[Clip]:
            yield hear(painted(sheet, (value or {}).get("composite")))

        yield from stage.perform(
            str(request.session_hash), made, lambda c, n, notes: result_card(c, n, notes=notes, facts=_facts(c))
        )

    hidden: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": editor, "api_visibility": "private"}
    gr.on([sound.change, kind.change, on_beat.change, bpm.release], from_sound, [sound, kind, on_beat, bpm],
          [sheet, editor], **hidden)  # fmt: skip
    picture.change(from_picture, [picture, on_beat, bpm], [sheet, editor], **hidden)
    start(stage, [go.click], work, [sheet, editor], [status, result, current], stop)


def _facts(clip: Clip) -> list[str]:
    tempo = [f"{clip.bpm:.4g} bpm"] if clip.config.grid == "beats" else []
    rows, columns = clip.image.shape[-2:]
    return [f"{clip.duration:.1f} s", *tempo, f"{columns} by {rows} pixels", f"{clip.config.amplitude} scale"]


def _seconds(columns: int, config: SpectrogramConfig, tempo: float | TempoMap | None) -> float:
    if config.grid == "seconds" or tempo is None:
        return columns * config.hop_length / config.sample_rate
    beats = columns / config.frames_per_beat
    return float(tempo.seconds_at(beats)) if isinstance(tempo, TempoMap) else beats * 60.0 / tempo
