"""A recording that somebody brings: the field for it, and how it looks and sounds before anything is done to it."""

import dataclasses
from pathlib import Path

import gradio as gr
from torch import Tensor

from riff.audio import load_audio, resample, save_audio
from riff.clip import Clip
from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.image import mel_to_image
from riff.playground.card import player_of, result_card
from riff.playground.shelf import Shelf
from riff.playground.stage import Stage, failure, problem
from riff.show import data_uri, paint
from riff.spectrogram import waveform_to_mel

MAX_SECONDS = 300.0
NOTHING = '<div class="riff-empty"><span>Bring a sound, then say what is to become of it</span></div>'


def sound_picture(waveform: Tensor, sample_rate: int) -> str:
    """A sound ``(C, T)`` as the eye likes it, column by column in seconds: the address of its picture."""
    config = dataclasses.replace(SpectrogramConfig(), grid="seconds")
    mono = resample(waveform.mean(0, keepdim=True), sample_rate, config.sample_rate)
    loudest = float(mono.abs().max())
    if loudest > 0.0:  # quiet ones are brought up, so that there is something to see
        mono = mono * min(0.7 / loudest, 30.0)
    image = mel_to_image(waveform_to_mel(mono, config), config)
    return data_uri(paint(image, width=1200, height=256), "WEBP", quality=80)


def read_upload(path: str | None) -> tuple[Tensor, int]:
    """The sound ``(1|2, T)`` and its rate.

    Raises:
        RiffError: there is none, it cannot be read, or it is longer than :data:`MAX_SECONDS`.
    """
    if not path:
        raise RiffError("there is no sound yet; upload one or record one")
    try:
        waveform, rate = load_audio(path, max_seconds=MAX_SECONDS)
    except RiffError as error:  # the file lies in a folder of the page's, whose name tells nobody anything
        raise RiffError(str(error).replace(str(path), Path(path).name)) from error
    return (waveform if len(waveform) <= 2 else waveform.mean(0, keepdim=True)), rate


def before(shelf: Shelf, path: str | None, *, region: bool = False) -> str:
    """The player of what was brought."""
    if not path:
        return NOTHING
    waveform, rate = read_upload(path)
    name = shelf.put_files({"wav": lambda target: save_audio(target, waveform, rate)})
    seconds = waveform.shape[-1] / rate
    shown = player_of(f"clips/{name}.wav", sound_picture(waveform, rate), seconds, label=Path(path).name, region=region)
    return f'<article class="riff-card"><h4>Before</h4>{shown}</article>'


def after(clip: Clip, name: str, *, python: str, shell: str, notes: tuple[str, ...]) -> str:
    """The card of what became of it, with a picture of the whole sound."""
    picture = sound_picture(clip.waveform, clip.sample_rate)
    shown = player_of(f"clips/{name}.wav", picture, clip.duration, label=clip.prompt)
    return result_card(clip, name, python=python, shell=shell, notes=notes, shown=f"<h4>After</h4>{shown}")


def field(stage: Stage, tab: str, shown: gr.HTML, *, region: bool = False) -> gr.Audio:
    """Where a recording is brought; what it was is shown in ``shown``."""
    sound = gr.Audio(
        sources=["upload", "microphone"], type="filepath", label="Your sound: a file, or record one",
        elem_id=f"{tab}-sound", buttons=[],
    )  # fmt: skip

    def look(path: str | None) -> object:
        try:
            return before(stage.shelf, path, region=region)
        except RiffError as error:
            return problem(error)

    sound.change(look, sound, shown, show_progress="hidden", api_visibility="private")
    return sound


def check_sound(path: str | None) -> str:
    """The path of a recording that can be read.

    Raises:
        gr.Error: it cannot.
    """
    try:
        read_upload(path)
    except RiffError as error:
        raise failure(error) from error
    return str(path)
