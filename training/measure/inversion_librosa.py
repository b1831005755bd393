"""riff's default against librosa's ``mel_to_audio`` at librosa's own parameters, clip by clip.

    python -m training.measure.inversion_librosa --clips 24

At Riffusion's parameters librosa cannot be compared: its least squares solver asks for 155 GiB at once, and takes 12 s
a column when columns are given one at a time. So these are ``librosa.feature.melspectrogram``'s defaults: 22.05 kHz,
128 bands, Slaney's scale and norm, windows of 2,048 samples and hops of 512, of magnitudes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.functional import resample

from benchmarks.baselines import LIBROSAS
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from training.measure.inversion import CONFIG, Figures, composed_clips, convergence, mean, onset_strength, worst_lead


def librosas_way(mel: Tensor) -> Tensor:
    """Mel (1, M, N) to waveform (1, T)."""
    import librosa

    sound = librosa.feature.inverse.mel_to_audio(mel[0].numpy(), sr=LIBROSAS.sample_rate, power=1.0)
    return torch.from_numpy(sound)[None]


def figures_of(sound: Tensor, original: Tensor, mel: Tensor) -> Figures:
    """How near a sound (T,) is to the original (T,) and its mel (1, M, N); linear is in windows of 46 ms."""
    length = min(len(sound), len(original))
    found = waveform_to_mel(sound[None, :length], LIBROSAS)
    window = torch.hann_window(1024)
    linear = [torch.stft(x[:length], 1024, 256, window=window, return_complex=True).abs() for x in (sound, original)]
    onsets = torch.stack([onset_strength(x[:length]) for x in (sound, original)])
    return {
        "mel": convergence(found, mel[..., : found.shape[-1]]),
        "linear": convergence(*linear),
        "onsets": float(torch.corrcoef(onsets)[0, 1]),
    }


def librosa_table(clips: list[Tensor]) -> str:
    """Means over clips (T,) at 44.1 kHz as a Markdown table, and the default's lead on its worst clip."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "librosa": librosas_way,
        "default": lambda mel: mel_to_waveform(mel, LIBROSAS),
    }
    results: dict[str, list[Figures]] = {name: [] for name in ways}
    for clip in clips:
        original = resample(clip, CONFIG.sample_rate, LIBROSAS.sample_rate)
        mel = waveform_to_mel(original[None], LIBROSAS)
        for name, way in ways.items():
            start = time.perf_counter()
            sound = way(mel)[0]
            seconds = time.perf_counter() - start
            results[name].append({"seconds": seconds, **figures_of(sound, original, mel)})
    lines = ["| way | s a clip | mel dB | linear dB | onsets |", "|---|---|---|---|---|"]
    for name, rows in results.items():
        means = {key: mean([row[key] for row in rows]) for key in rows[0]}
        seconds = statistics.median(row["seconds"] for row in rows)
        lines.append(f"| {name} | {seconds:.3f} | {means['mel']:.2f} | {means['linear']:.2f} | {means['onsets']:.3f} |")
    return "\n".join([*lines, worst_lead(results, "librosa")])


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="composed clips; default 24")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(librosa_table(composed_clips(arguments.clips)))


if __name__ == "__main__":
    main()
