"""From picture to sound: riff's qualities against Riffusion's algorithm, on one thread, in one process, in pairs.

    python -m training.measure.inversion --clips 24
    python -m training.measure.inversion --own
    python -m training.measure.inversion --audio MUSIC/
    python -m training.measure.inversion --drawn 8 --model riff/models/riff-mini
    python -m training.measure.inversion --memory
    python -m training.measure.inversion --parameters --clips 8
    python -m training.measure.inversion --pictures docs/pictures

Clips of 5.12 s go through Riffusion's picture (512 mels, 8 bits). Riffusion's algorithm is what it is in torchaudio:
least squares inverse mel, then 32 Griffin-Lim iterations with momentum 0.99 on transforms of 17,640 samples.
Decibels: less is better. ``mel`` is the spectral convergence of the mel against the one that was drawn, ``linear``
that of the sound's own magnitudes up to 10 kHz, ``onsets`` the correlation of onset strengths, and ``pre-echo`` the
energy in the 10 to 60 ms before strong onsets over that in the original.

``--own`` leaves out Riffusion's algorithm, which takes nine tenths of the time, and with it the speeds.
``--drawn`` measures images of a model. ``--memory`` gives every way a process of its own and prints its peak.
``--parameters`` compares images like riff-mini's, and ``--pictures`` draws those of the docs.
``python -m training.measure.inversion_librosa`` compares with librosa's ``mel_to_audio``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.baselines import riffusions_algorithm
from riff.audio.io import load_audio
from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel

CONFIG = SpectrogramConfig.riffusion()
COLUMNS = 512
SAMPLES = COLUMNS * CONFIG.hop_length
FIRST_SEED = 10_050_000  # held out
QUALITIES: tuple[Quality, ...] = ("fast", "default", "high", "best")
Figures = dict[str, float]


def composed_clips(count: int) -> list[Tensor]:
    """``count`` composed clips (SAMPLES,) from held-out seeds, every genre in turn."""
    from training.composer.arrange import compose
    from training.composer.genres import GENRES
    from training.composer.render import render

    names = sorted(GENRES)
    clips = []
    for number in range(count):
        sound = torch.from_numpy(render(compose(FIRST_SEED + number, genre=names[number % len(names)]))).mean(0)
        clips.append(_cut(sound))
    return clips


def recorded_clips(folder: Path) -> list[Tensor]:
    """The first 5.12 s of every sound file under ``folder``."""
    suffixes = {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return [_cut(load_audio(path, sample_rate=CONFIG.sample_rate, channels=1, duration=6)[0][0]) for path in paths]


def _cut(sound: Tensor) -> Tensor:
    return torch.nn.functional.pad(sound, (0, max(0, SAMPLES - len(sound))))[:SAMPLES].clone()


def convergence(estimate: Tensor, target: Tensor) -> float:
    """Spectral convergence in decibels, after the best gain."""
    gain = (estimate * target).sum() / estimate.square().sum().clamp(min=1e-20)
    return 20.0 * math.log10(float((gain * estimate - target).norm() / target.norm().clamp(min=1e-20)) + 1e-9)


def _magnitudes(sound: Tensor, n_fft: int, hop: int) -> Tensor:
    return torch.stft(sound, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True).abs()


def onset_strength(sound: Tensor) -> Tensor:
    """(frames,) rise of the log-magnitudes from one 5 ms frame to the next, summed over frequency."""
    magnitudes = _magnitudes(sound, 1024, 220)
    log = (magnitudes + 1e-3 * magnitudes.max()).log()
    return log.diff(dim=1).clamp(min=0).sum(0)


def pre_echo(sound: Tensor, original: Tensor) -> float:
    """Decibels of energy in the 10 to 60 ms before strong onsets over the original's; NaN without such onsets."""
    strength = onset_strength(original)
    strong = strength > strength.mean() + 3.0 * strength.std()
    peak = torch.nn.functional.max_pool1d(strength[None, None], 41, 1, 20)[0, 0] == strength
    excess = []
    for frame in torch.nonzero(strong & peak).flatten().tolist():
        start, stop = frame * 220 - 2646, frame * 220 - 441
        if start >= 0:
            after = original[frame * 220 : frame * 220 + 2646].square().sum()
            before = [float(x[start:stop].square().sum() + 1e-4 * after) for x in (sound, original)]
            excess.append(10.0 * math.log10(before[0] / before[1]))
    return sum(excess) / len(excess) if excess else math.nan


def figures_of(sound: Tensor, original: Tensor, mel: Tensor) -> Figures:
    """How near a sound (1, T) is to the original (T,) and its mel (1, M, N)."""
    top = int(10000 / CONFIG.sample_rate * 2048)
    sound = sound / sound.abs().max().clamp(min=1e-9) * original.abs().max()
    linear = [_magnitudes(x, 2048, 512)[:top] for x in (sound[0], original)]
    onsets = torch.stack([onset_strength(sound[0]), onset_strength(original)])
    return {
        "mel": convergence(waveform_to_mel(sound, CONFIG), mel),
        "linear": convergence(*linear),
        "onsets": float(torch.corrcoef(onsets)[0, 1]),
        "pre-echo": pre_echo(sound[0], original),
    }


def measure(clips: list[Tensor], *, own: bool = False, report: Callable[[str], None]) -> dict[str, list[Figures]]:
    """Figures of every way, or of riff's ``own`` alone, for every clip, with ``seconds``."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {}
    if not own:
        ways["Riffusion"] = riffusions_algorithm(CONFIG, CONFIG.hop_length)
    for quality in QUALITIES:
        ways[quality] = functools.partial(mel_to_waveform, config=CONFIG, quality=quality)
    warm = waveform_to_mel(clips[0][None], CONFIG)
    for quality in QUALITIES:  # compile, and build what is kept
        mel_to_waveform(warm[..., :64], CONFIG, quality=quality)
    results: dict[str, list[Figures]] = {name: [] for name in ways}
    for number, clip in enumerate(clips, 1):
        mel = waveform_to_mel(clip[None], CONFIG)
        picture = (mel_to_image(mel, CONFIG) * 255.0).round() / 255.0
        asked = image_to_mel(picture, CONFIG)
        for name, way in ways.items():
            start = time.perf_counter()
            sound = way(asked)
            seconds = time.perf_counter() - start
            results[name].append({"seconds": seconds, **figures_of(sound, clip, mel)})
        report(f"clip {number}/{len(clips)}")
    return results


def table(results: dict[str, list[Figures]]) -> str:
    """Means as a Markdown table; speeds are medians of the ratios to Riffusion's within each clip."""
    base = results.get("Riffusion")
    lines = [
        "| way | s a clip | speed | mel dB | linear dB | onsets | pre-echo dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        speed = "-"
        if base:
            speed = f"{statistics.median(b['seconds'] / r['seconds'] for b, r in zip(base, rows, strict=True)):.1f}x"
        means = {key: mean([row[key] for row in rows]) for key in ("mel", "linear", "onsets", "pre-echo")}
        seconds = statistics.median(row["seconds"] for row in rows)
        lines.append(
            f"| {name} | {seconds:.3f} | {speed} | {means['mel']:.2f} | {means['linear']:.2f} "
            f"| {means['onsets']:.3f} | {means['pre-echo']:.2f} |"
        )
    return "\n".join(lines)


def worst_lead(results: dict[str, list[Figures]], name: str) -> str:
    """By how much the default leads another way on the clip where it leads least."""
    pairs = list(zip(results[name], results["default"], strict=True))
    leads = {
        "mel": min(other["mel"] - own["mel"] for other, own in pairs),
        "linear": min(other["linear"] - own["linear"] for other, own in pairs),
        "onsets": min(own["onsets"] - other["onsets"] for other, own in pairs),
    }
    return (
        f"default against {name}, on its worst of {len(pairs)} clips: mel {leads['mel']:+.2f} dB, "
        f"linear {leads['linear']:+.2f} dB, onsets {leads['onsets']:+.3f} (above 0: better)"
    )


def peak_megabytes(name: str) -> tuple[int, int]:
    """Peak resident memory of a process that inverts one picture of noise, and what of it came after torch was there.

    ``name`` is a quality, or Riffusion.
    """
    script = f"""
import resource, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from benchmarks.baselines import riffusions_algorithm
from training.measure.inversion import COLUMNS, CONFIG, mel_to_waveform
torch.set_num_threads(1)
mel = torch.rand(1, CONFIG.n_mels, COLUMNS, generator=torch.Generator().manual_seed(0))
if {name!r} == "Riffusion":
    riffusions_algorithm(CONFIG, CONFIG.hop_length)(mel)
else:
    mel_to_waveform(mel, CONFIG, quality={name!r})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak // 1024, (peak - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    peak, added = done.stdout.split()
    return int(peak), int(added)


def memory_table() -> str:
    """Peaks of every way as a Markdown table."""
    peaks = {name: peak_megabytes(name) for name in ("Riffusion", *QUALITIES)}
    lines = ["| way | peak MB | of Riffusion's | without torch MB | of Riffusion's |", "|---|---|---|---|---|"]
    for name, own in peaks.items():
        shares = [mine / theirs for mine, theirs in zip(own, peaks["Riffusion"], strict=True)]
        lines.append(f"| {name} | {own[0]} | {shares[0]:.2f} | {own[1]} | {shares[1]:.2f} |")
    return "\n".join(lines)


def mean(values: list[float]) -> float:
    """Of those that are finite."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="composed clips; default 24")
    parser.add_argument("--own", action="store_true", help="riff's qualities alone, without Riffusion's algorithm")
    parser.add_argument("--audio", type=Path, help="a folder of recordings, in place of composed clips")
    parser.add_argument("--drawn", type=int, metavar="N", help="pictures of a model instead: N of each kind")
    parser.add_argument("--model", help="of --drawn; default riff-mini")
    parser.add_argument("--memory", action="store_true", help="peak memory instead")
    parser.add_argument("--parameters", action="store_true", help="pictures like riff-mini's instead")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the pictures of the docs instead")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.memory:
        print(memory_table())
    elif arguments.drawn:
        pictures, config = models_pictures(arguments.model, arguments.drawn)
        print(pictures_table({kind: measure_pictures(images, config) for kind, images in pictures.items()}))
    elif arguments.parameters:
        print(parameters_table(composed_clips(arguments.clips)))
    elif arguments.pictures:
        draw_pictures(composed_clips(4)[-1], arguments.pictures)
    else:
        clips = recorded_clips(arguments.audio) if arguments.audio else composed_clips(arguments.clips)
        if not clips:
            parser.error(f"there is no sound file in {arguments.audio}")
        report = functools.partial(print, file=sys.stderr, flush=True)
        results = measure(clips, own=arguments.own, report=report)
        print(table(results))
        if not arguments.own:
            print(worst_lead(results, "Riffusion"))


# Pictures of a model, composed ones through its autoencoder and ones that it drew, to sound and back to pictures.
#
# There is no original, so only the picture itself can be compared: ``mel`` as in training.measure.inversion, and
# ``codes``, the root mean square difference between the asked picture and one made anew from the sound, in steps of 8
# bits.


def models_pictures(model: str | None, count: int) -> tuple[dict[str, list[Tensor]], SpectrogramConfig]:
    """Pictures (1, M, N) by kind: ``count`` composed ones through a model's autoencoder, and as many that it drew."""
    from riff.diffusion.latents import image_to_latents, latents_to_image
    from riff.pipeline import RiffPipeline
    from training.composer.arrange import compose
    from training.composer.captions import eval_prompt
    from training.composer.genres import GENRES
    from training.recipes.dataset import score_to_image

    pipe = RiffPipeline.from_pretrained(model, device="cpu")
    names = sorted(GENRES)
    pictures: dict[str, list[Tensor]] = {"through the autoencoder": [], "drawn": []}
    for number in range(count):
        score = compose(FIRST_SEED + number, genre=names[number * 7 % len(names)], windows=1)
        prompt = eval_prompt(score.windows[0], random.Random(number), kind="plain")
        drawn = pipe(prompt, seed=number, quality="fast").clips[0].image
        composed = torch.from_numpy(score_to_image(score, pipe.config))[None, None].float() / 255.0
        with torch.inference_mode():
            latents = image_to_latents(composed, pipe.components.vae)
            rebuilt = latents_to_image(latents, pipe.components.vae, channels=1)[0].clone()
        pictures["through the autoencoder"].append(rebuilt)
        pictures["drawn"].append(drawn)
    return pictures, pipe.config


def measure_pictures(pictures: list[Tensor], config: SpectrogramConfig) -> dict[str, list[Figures]]:
    """How near each way's sound is to the picture that was asked for."""
    hop = 690  # a whole number of samples a column, as the textbook needs
    bpm = 60.0 * config.sample_rate / (config.frames_per_beat * hop)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"Riffusion": riffusions_algorithm(config, hop)}
    for quality in QUALITIES:
        ways[quality] = functools.partial(mel_to_waveform, config=config, bpm=bpm, quality=quality)
    results: dict[str, list[Figures]] = {name: [] for name in ways}
    for picture in pictures:
        asked = image_to_mel(picture, config)
        for name, way in ways.items():
            found = waveform_to_mel(way(asked), config, bpm=bpm)[..., : asked.shape[-1]]
            codes = float((mel_to_image(found, config) - picture).mul(255.0).square().mean().sqrt())
            results[name].append({"mel": convergence(found, asked), "codes": codes})
    return results


def pictures_table(results: dict[str, dict[str, list[Figures]]]) -> str:
    """Means for every kind of picture as a Markdown table."""
    kinds = list(results)
    lines = [
        "| way | " + " | ".join(f"{kind}: mel dB | codes" for kind in kinds) + " |",
        "|---" * (1 + 2 * len(kinds)) + "|",
    ]
    for name in results[kinds[0]]:
        cells = [f"{mean([row[key] for row in results[kind][name]]):.2f}" for kind in kinds for key in ("mel", "codes")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Pictures like riff-mini's with one parameter changed, through 8 bits and the default inversion and back.
#
# Bins, columns and the band change what a model has to draw; the window and the transform change only what is in the
# picture. Figures do not depend on the picture's own geometry: ``linear`` and ``onsets`` are those of
# training.measure.inversion, up to 10 kHz; ``spectrum`` is the mean difference of log-spectra up to 20 kHz in
# decibels, in 23 ms frames, of what is within 60 dB of the loudest.

BPM = 112.0
OWN = SpectrogramConfig()
CHANGES: tuple[dict[str, float], ...] = (
    {},
    {"win_length": 2048, "hop_length": 256},
    {"win_length": 3072, "hop_length": 384},
    {"win_length": 6144, "hop_length": 512},
    {"hop_length": 384},
    {"hop_length": 1024},
    {"n_mels": 192},
    {"n_mels": 320},
    {"n_mels": 384, "n_fft": 16384},
    {"n_mels": 512, "n_fft": 16384},
    {"f_max": 10000.0},
    {"f_max": 12000.0},
    {"f_max": 20000.0},
    {"frames_per_beat": 16},
    {"frames_per_beat": 24},
    {"frames_per_beat": 48},
    {"db_range": 60.0},
    {"db_range": 90.0},
)


def round_trip(clip: Tensor, config: SpectrogramConfig) -> Figures:
    """How near the sound of a clip's picture is to the clip (T,)."""
    picture = (mel_to_image(waveform_to_mel(clip[None], config, bpm=BPM), config) * 255.0).round() / 255.0
    sound = mel_to_waveform(image_to_mel(picture, config), config, bpm=BPM)[0, : len(clip)]
    top = int(10000 / config.sample_rate * 2048)
    clip = clip[: len(sound)]
    linear = [_spectrum(x, 2048)[:top] for x in (sound, clip)]
    wide = [_spectrum(x, 1024)[: int(20000 / config.sample_rate * 1024)] for x in (sound, clip)]
    loudest = float(wide[1].max())
    logs = [20.0 * (x / loudest).clamp(min=1e-3).log10() for x in wide]
    return {
        "linear": convergence(*linear),
        "onsets": float(torch.corrcoef(torch.stack([onset_strength(sound), onset_strength(clip)]))[0, 1]),
        "spectrum": float((logs[0] - logs[1]).abs().mean()),
    }


def _spectrum(sound: Tensor, n_fft: int) -> Tensor:
    return torch.stft(sound, n_fft, n_fft // 4, window=torch.hann_window(n_fft), return_complex=True).abs()


def parameters_table(clips: list[Tensor]) -> str:
    """Means over the clips (T,) for every change, as a Markdown table; ``pixels`` is per beat, of riff-mini's."""
    lines = ["| changed | pixels | linear dB | onsets | spectrum dB |", "|---|---|---|---|---|"]
    for change in CHANGES:
        config = dataclasses.replace(OWN, **change)  # type: ignore[arg-type]
        rows = [round_trip(clip, config) for clip in clips]
        mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
        pixels = config.n_mels * config.frames_per_beat / (OWN.n_mels * OWN.frames_per_beat)
        name = ", ".join(f"{key} {value:g}" for key, value in change.items()) or "nothing"
        lines.append(
            f"| {name} | {pixels:.2f} | {mean['linear']:.2f} | {mean['onsets']:.3f} | {mean['spectrum']:.2f} |"
        )
    return "\n".join(lines)


# The pictures of docs/sound-from-pictures.md: what goes in, what comes out, and where the phase errs.
#
# In the pictures of phase, brightness is loudness and colour is the error of the phase, red where it is right and
# cyan where it is opposite. A note of one colour is right but for a constant, which cannot be heard.

SPAN = slice(60, 316)  # columns that are shown: 2.56 s
TOP = 256  # rows of 10 Hz that are shown of the phase: to 2.5 kHz


def draw_pictures(clip: Tensor, folder: Path) -> None:
    """Write ``rebuilt.png`` and ``phase.png`` for a clip (T,)."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = (mel_to_image(waveform_to_mel(clip[None], CONFIG), CONFIG) * 255.0).round() / 255.0
    asked = image_to_mel(picture, CONFIG)
    peak = float(waveform_to_mel(clip[None], CONFIG).max())
    sounds = {
        "first phase alone": mel_to_waveform(asked, CONFIG, n_iter=0),
        "riff, default": mel_to_waveform(asked, CONFIG),
        "Riffusion's algorithm": riffusions_algorithm(CONFIG, CONFIG.hop_length)(asked),
    }
    panels = {"asked": _grey(picture[0])}
    for name in ("riff, default", "Riffusion's algorithm"):
        mel = waveform_to_mel(sounds[name][:, : len(clip)], CONFIG)
        gain = (mel * asked[..., : mel.shape[-1]]).sum() / mel.square().sum()
        again = mel_to_image(mel * gain / asked.max() * peak, CONFIG)[0]
        panels[name] = _grey(again)
        panels[f"{name}: error x 4"] = _grey(1.0 - 4.0 * (again - picture[0]).abs())
    _save(panels, folder / "rebuilt.png")
    true = _frames(clip)
    _save(
        {name: _phase_error(_frames(sound[0, : len(clip)]), true) for name, sound in sounds.items()},
        folder / "phase.png",
    )


def _frames(sound: Tensor) -> Tensor:
    """(F, N) complex, in windows of the config."""
    size, hop = CONFIG.win_length, CONFIG.hop_length
    return torch.stft(sound, size, hop, window=torch.hann_window(size), return_complex=True)[:TOP, SPAN]


def _grey(picture: Tensor) -> np.ndarray:
    values = (picture[:, SPAN].clamp(0.0, 1.0) * 255.0).round().byte().numpy()
    return np.repeat(values[::2, :, None], 3, axis=2)


def _phase_error(found: Tensor, true: Tensor) -> np.ndarray:
    """Hue is the error of the phase, value the loudness within 50 dB."""
    loudness = (20.0 * (true.abs() / true.abs().max()).clamp(min=1e-9).log10() / 50.0 + 1.0).clamp(0.0, 1.0)
    hue = (found * true.conj()).angle().remainder(2.0 * torch.pi) / (2.0 * torch.pi)
    hsv = torch.stack([hue, torch.full_like(hue, 0.8), loudness], 2).flip(0)
    return np.asarray(Image.fromarray((hsv * 255.0).byte().numpy(), "HSV").convert("RGB"))


def _save(panels: dict[str, np.ndarray], path: Path) -> None:
    """Panels side by side, each under its name."""
    height, width = next(iter(panels.values())).shape[:2]
    sheet = Image.new("RGB", ((width + 8) * len(panels) - 8, height + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, pixels) in enumerate(panels.items()):
        draw.text((place * (width + 8), 2), name, fill="black")
        sheet.paste(Image.fromarray(pixels), (place * (width + 8), 16))
    sheet.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
