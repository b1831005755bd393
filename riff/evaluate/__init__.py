"""Measuring music and images of music: tempo, key, likeness of sets, obedience, form, hygiene, copies, fidelity."""

from riff.evaluate.figures import Figure, frechet_distance, wilson_interval
from riff.evaluate.image_metrics import NearCopies, mel_statistics, near_copies, psnr, sharpness
from riff.music.key import detect_key, measure_key, mirex_key_score
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS

__all__ = [
    "KEYS",
    "Figure",
    "NearCopies",
    "detect_key",
    "frechet_distance",
    "measure_key",
    "measure_tempo",
    "mel_statistics",
    "mirex_key_score",
    "near_copies",
    "psnr",
    "sharpness",
    "tempo_error",
    "wilson_interval",
]
