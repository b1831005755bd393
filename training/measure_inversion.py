"""From picture to sound: riff's qualities against Riffusion's algorithm, on one thread, in one process, in pairs.

    python -m training.measure_inversion --clips 24
    python -m training.measure_inversion --own
    python -m training.measure_inversion --audio MUSIC/
    python -m training.measure_inversion --drawn 8 --model riff/models/riff-mini
    python -m training.measure_inversion --librosa
    python -m training.measure_inversion --memory
    python -m training.measure_inversion --parameters --clips 8
    python -m training.measure_inversion --pictures docs/pictures

Clips of 5.12 s go through Riffusion's picture (512 mels, 8 bits). Riffusion's algorithm is what it is in torchaudio:
least squares inverse mel, then 32 Griffin-Lim iterations with momentum 0.99 on transforms of 17,640 samples.
Decibels: less is better. ``mel`` is the spectral convergence of the mel against the one that was drawn, ``linear``
that of the sound's own magnitudes up to 10 kHz, ``onsets`` the correlation of onset strengths, and ``pre-echo`` the
energy in the 10 to 60 ms before strong onsets over that in the original.

``--own`` leaves out Riffusion's algorithm, which takes nine tenths of the time, and with it the speeds.
``--drawn`` measures pictures of a model (training/inversion_drawn.py), ``--librosa`` librosa's ``mel_to_audio``
(training/inversion_librosa.py). ``--memory`` gives every way a process of its own and prints its peak. ``--parameters``
compares pictures like riff-mini's (training/inversion_parameters.py), and ``--pictures`` draws those of the docs
(training/inversion_pictures.py).
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from riff.audio import load_audio
from riff.bench.rivals import riffusions_algorithm
from riff.config import SpectrogramConfig
from riff.image import image_to_mel, mel_to_image
from riff.inversion import Quality
from riff.spectrogram import mel_to_waveform, waveform_to_mel

CONFIG = SpectrogramConfig.riffusion()
COLUMNS = 512
SAMPLES = COLUMNS * CONFIG.hop_length
FIRST_SEED = 10_050_000  # held out
QUALITIES: tuple[Quality, ...] = ("fast", "default", "high", "best")
Figures = dict[str, float]


def composed_clips(count: int) -> list[Tensor]:
    """``count`` composed clips (SAMPLES,) from held-out seeds, every genre in turn."""
    from training.composer import GENRES, compose
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
from riff.bench.rivals import riffusions_algorithm
from training.measure_inversion import COLUMNS, CONFIG, mel_to_waveform
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
    parser.add_argument("--librosa", action="store_true", help="against librosa's mel_to_audio instead")
    parser.add_argument("--memory", action="store_true", help="peak memory instead")
    parser.add_argument("--parameters", action="store_true", help="pictures like riff-mini's instead")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the pictures of the docs instead")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.memory:
        print(memory_table())
    elif arguments.drawn:
        from training.inversion_drawn import measure_pictures, models_pictures, pictures_table

        pictures, config = models_pictures(arguments.model, arguments.drawn)
        print(pictures_table({kind: measure_pictures(images, config) for kind, images in pictures.items()}))
    elif arguments.parameters:
        from training.inversion_parameters import parameters_table

        print(parameters_table(composed_clips(arguments.clips)))
    elif arguments.pictures:
        from training.inversion_pictures import draw_pictures

        draw_pictures(composed_clips(4)[-1], arguments.pictures)
    else:
        clips = recorded_clips(arguments.audio) if arguments.audio else composed_clips(arguments.clips)
        if not clips:
            parser.error(f"there is no sound file in {arguments.audio}")
        report = functools.partial(print, file=sys.stderr, flush=True)
        if arguments.librosa:
            from training.inversion_librosa import librosa_table

            print(librosa_table(clips))
        else:
            results = measure(clips, own=arguments.own, report=report)
            print(table(results))
            if not arguments.own:
                print(worst_lead(results, "Riffusion"))


if __name__ == "__main__":
    main()
