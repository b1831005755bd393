"""Any request to its clip: the task is known by the request's type."""

from typing import Any

import torch

from riff.diffusion.model import DiffusionModel
from riff.diffusion.sampling import StepCallback
from riff.tasks import edit, walk
from riff.tasks.clip import Clip
from riff.tasks.recording import Audio
from riff.tasks.requests import (
    EditRequest,
    ExtendRequest,
    InpaintRequest,
    RenderRequest,
    Sampling,
    TimelineRequest,
    WalkRequest,
)
from riff.tasks.text_to_music import render


@torch.no_grad()
def run(
    model: DiffusionModel,
    request: Sampling,
    audio: Audio | None = None,
    *,
    sample_rate: int | None = None,
    callback: StepCallback | None = None,
) -> Clip:
    """Generate the clip of a request.

    Args:
        model: what generates.
        request: any but an interpolation or a stream.
        audio: the recording of an edit: a sound file, a clip, or ``(C, T)`` samples.
        sample_rate: of samples.
        callback: called as ``(step, steps, latents)``.

    Raises:
        RiffError: the request does not suit the model, or the recording cannot be read.
        ModelError: the model gave numbers that are not finite.
    """
    if isinstance(request, RenderRequest):
        return render(model, [request], callback=callback)[0]
    if isinstance(request, TimelineRequest):
        return walk.render_timeline(model, request, callback)
    if isinstance(request, WalkRequest):
        return walk.walk(model, request, callback)
    assert isinstance(request, EditRequest) and audio is not None
    task: Any = edit.remix
    if isinstance(request, (ExtendRequest, InpaintRequest)):
        task = edit.extend if isinstance(request, ExtendRequest) else edit.inpaint
    return task(model, request, audio, sample_rate=sample_rate, callback=callback)
