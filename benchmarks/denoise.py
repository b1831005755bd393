"""Section "denoise": from a prompt to an image, and on to sound, against diffusers' own pipeline at equal steps."""

from typing import TYPE_CHECKING, Any

from benchmarks.harness import Figures, Measured, Missing, Ratio, Side, Step, compare, memory_share, speed, timed
from benchmarks.history import Section
from benchmarks.render import PROMPT, draw, plain_noise, tempo_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from riff.pipeline import RiffPipeline


def denoise_section(
    *, model: str | None, device: str | None, steps: int, repeat: int, compile: bool = False
) -> Section:
    """Draw an image from the same noise both ways, then play it riff's way and Riffusion's.

    The same work is the same picture: riff then guides in all steps, as diffusers does, not where it suits the model.

    Args:
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini.
        device: "cpu", "cuda" or "mps"; None takes the fastest there is.
        steps: denoising steps; scheduler, weight of the prompt and precision are equal too.
        repeat: pairs that are measured once both are warm.
        compile: whether riff is measured with a compiled denoiser as well, which takes minutes to warm up.

    Raises:
        RiffError, ModelError, SystemProblem: whatever loading or compiling this model would raise.
    """
    arguments: dict[str, Any] = {"model": model, "device": device, "steps": steps}
    why = "its columns are further apart than torchaudio's windows reach"
    try:
        sides = _measure(arguments | {"sound": True}, repeat, compile)
    except Missing as missing:
        why = f"torchaudio cannot be imported ({missing})"
        sides = _measure(arguments | {"sound": False}, repeat, compile)
    ours, theirs = sides["riff"], sides["diffusers"]
    notes = [] if "sound_s" in theirs.first else [f"The way to sound is not compared: {why}."]
    meaning = "as fast as diffusers' own pipeline at the same work, prompt to image"
    ratios = [speed("denoise_speed", meaning, ours, theirs, "same_s")]
    meaning = "as fast as diffusers' own pipeline, both as they come at equal steps, prompt to image"
    ratios.append(speed("draw_speed", meaning, ours, theirs))
    if "sound_s" in theirs.first:
        meaning = "as fast as diffusers' pipeline with Riffusion's algorithm, both as they come, prompt to sound"
        ratios.append(speed("denoise_to_sound_speed", meaning, ours, theirs, "whole_s"))
        meaning = "of the memory that diffusers' pipeline takes with Riffusion's algorithm"
        ratios += memory_share("denoise_memory", meaning, ours, theirs)
    if compile:
        ratios += _compiled(sides)
    figures: Figures = {"steps": steps, "pictures_differ_by": _difference(ours, theirs)}
    for name, side in sides.items():
        figures |= {f"{name}_{key}": value for key, value in _medians(side).items()}
    return Section("denoise", ratios, figures, notes)


def draw_as_riff(*, model: str | None, device: str | None, steps: int, sound: bool, compile: bool = False) -> Step:
    """riff's side: ``seconds`` to the image, ``same_s`` for the same as diffusers', ``sound_s`` from there."""
    from riff.diffusion.sampling import ALWAYS
    from riff.spectrogram.image import image_to_mel
    from riff.spectrogram.inversion.waveform import mel_to_waveform

    pipe = _load(model, device)
    if compile:
        pipe.compile()
    usual = pipe.model.interval

    def step(number: int) -> Figures:
        found: Figures = {}
        noise = plain_noise(pipe, number)
        pipe.guidance_interval = usual
        with timed(found):
            draw(pipe, noise, steps, {})
        pipe.guidance_interval = ALWAYS
        with timed(found, "same_s"):
            image = draw(pipe, noise, steps, {})
        if sound:
            with timed(found, "sound_s"):
                mel_to_waveform(image_to_mel(image, pipe.config), pipe.config, bpm=tempo_of(pipe))
        return _told(found, image)

    return step


def draw_as_diffusers(*, model: str | None, device: str | None, steps: int, sound: bool) -> Step:
    """The other side: ``StableDiffusionPipeline`` as it comes, and torchaudio's transforms; figures as riff's."""
    import torch

    from benchmarks.baselines import riffusions_algorithm
    from riff.diffusion.latents import take_channels
    from riff.spectrogram.image import image_to_mel

    pipe = _load(model, device)
    config, guidance = pipe.config, pipe.model.default_guidance
    parts = _pipeline(model, pipe.components)
    parts.set_progress_bar_config(disable=True)
    bpm = tempo_of(pipe)
    hop = config.hop_length if bpm is None else round(config.column_samples(bpm=bpm))
    invert = riffusions_algorithm(config, hop) if sound and hop <= config.win_length else None

    def step(number: int) -> Figures:
        found: Figures = {}
        noise = plain_noise(pipe, number).to(parts.unet.device, parts.unet.dtype)
        with torch.no_grad():
            with timed(found):
                pixels = parts(
                    PROMPT,
                    height=config.n_mels,
                    width=config.width,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=torch.Generator().manual_seed(0),
                    latents=noise,
                    output_type="pt",
                ).images
                image = take_channels(pixels.float(), config.channels)[0].cpu()
            if invert is not None:
                with timed(found, "sound_s"):
                    invert(image_to_mel(image, config))
        return _told(found, image)

    return step


def _load(model: str | None, device: str | None) -> "RiffPipeline":
    from riff.pipeline import RiffPipeline

    return RiffPipeline.from_pretrained(model, device=device)


def _pipeline(model: str | None, ours: Any) -> Any:
    """diffusers' pipeline, loaded by diffusers where the checkpoint is a folder; of a single file, the parts."""
    from riff.diffusion.hub import locate

    folder = locate(model)
    if not folder.is_dir():
        return ours
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    place, dtype = ours.unet.device, ours.unet.dtype
    loaded = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    return loaded.to(place)


def _told(found: Figures, image: "Tensor") -> Figures:
    for work in ("", "processor_"):
        found.setdefault(f"{work}same_s", found[f"{work}seconds"])
        found[f"{work}whole_s"] = float(found[f"{work}seconds"] or 0.0) + float(found.get(f"{work}sound_s") or 0.0)
    return found | {f"pixel_{number}": float(value) for number, value in enumerate(_small(image).flatten())}


def _small(image: "Tensor") -> "torch.Tensor":
    """The image in 8 x 8, to be told from one process to the other."""
    import torch

    return torch.nn.functional.adaptive_avg_pool2d(image[:1], (8, 8))


def _measure(arguments: dict[str, Any], repeat: int, compile: bool) -> dict[str, Measured]:
    place = "benchmarks.denoise:draw_as_"
    sides = {name: Side(place + name, arguments) for name in ("riff", "diffusers")}
    if compile:
        sides["compiled"] = Side(place + "riff", arguments | {"compile": True})
    return compare(sides, repeat)


def _compiled(sides: dict[str, Measured]) -> list[Ratio]:
    """What compiling gains: against riff as it comes, and against the other side to the sound."""
    compiled = sides["compiled"]
    meaning = "as fast as riff as it comes, with a compiled denoiser, prompt to image"
    ratios = [speed("compiled_speed", meaning, compiled, sides["riff"])]
    if "sound_s" in sides["diffusers"].first:
        meaning = "as fast as diffusers' pipeline with Riffusion's algorithm, with a compiled denoiser, prompt to sound"
        ratios.append(speed("compiled_to_sound_speed", meaning, compiled, sides["diffusers"], "whole_s"))
    return ratios


def _difference(ours: Measured, theirs: Measured) -> float:
    """By how much the two images of the same noise differ at most, of 1, in patches."""
    pixels = [name for name in ours.first if name.startswith("pixel_")]
    return max(abs(float(ours.first[name] or 0.0) - float(theirs.first[name] or 0.0)) for name in pixels)


def _medians(side: Measured) -> Figures:
    from statistics import median

    names = {"seconds": "picture_s", "processor_seconds": "picture_processor_s", "sound_s": "sound_s"}
    found: Figures = {new: median(side.values(name)) for name, new in names.items() if name in side.first}
    found["first_picture_s"] = side.first["seconds"]
    return found | {"ready_s": side.ready_s, "peak_memory_mib": side.peak_memory_mib}
