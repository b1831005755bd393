"""Why FluidSynth plays the music: its speed and TinySoundFont's on the same scores, and whether the notes sound alike.

    python -m pip install --no-deps tinysoundfont
    python -m training.measure.synths --pieces 20

TinySoundFont needs no system library, but has no reverb and reads no SF3 in some builds; ``--soundfont`` takes an SF2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from training.composer.arrange import compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import find_soundfont, render
from training.composer.score import Score
from training.composer.stems import events_of

FIRST_SEED = 10_060_000  # held out


def render_with_tiny_soundfont(score: Score, synth: Any, handle: int) -> np.ndarray:
    """(2, T) float32, dry; parts have channels of their own, as in :func:`training.composer.render.render`."""
    channels = [number + (number >= 9) for number in range(len(score.parts))]
    for part, channel in zip(score.parts, channels, strict=True):
        synth.program_select(channel, handle, 128 if part.is_drum else 0, part.program, part.is_drum)
        synth.control_change(channel, 7, round(127 * part.volume))
    total = round(score.beats * 60.0 * SAMPLE_RATE / score.bpm)
    pieces, now = [], 0
    for sample, on, channel, pitch, velocity in events_of(score, channels):
        if sample >= total:
            break
        if sample > now:
            pieces.append(np.frombuffer(bytes(synth.generate(sample - now)), np.float32))
            now = sample
        if on:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    pieces.append(np.frombuffer(bytes(synth.generate(total - now)), np.float32))
    synth.notes_off()
    return np.concatenate(pieces).reshape(-1, 2).T


def main(argv: list[str] | None = None) -> None:
    import tinysoundfont  # type: ignore[import-not-found, import-untyped, unused-ignore]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=20)
    parser.add_argument("--soundfont", type=Path, default=find_soundfont())
    arguments = parser.parse_args(argv)
    start = time.perf_counter()
    synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
    handle = synth.sfload(str(arguments.soundfont))
    load = time.perf_counter() - start
    times: dict[str, list[float]] = {"FluidSynth": [], "TinySoundFont": []}
    music, silent = 0.0, 0
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.pieces):
        score = compose(seed)
        music += score.beats * 60.0 / score.bpm
        start = time.perf_counter()
        render(score, arguments.soundfont)
        times["FluidSynth"].append(time.perf_counter() - start)
        start = time.perf_counter()
        silent += float(np.abs(render_with_tiny_soundfont(score, synth, handle)).max()) < 1e-4
        times["TinySoundFont"].append(time.perf_counter() - start)
    print("| synthesizer | s a piece | times real time |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {statistics.median(seconds):.3f} | {music / sum(seconds):.0f} |")
    print(
        f"TinySoundFont loads {arguments.soundfont.name} in {load:.2f} s; {silent} of {arguments.pieces} pieces silent"
    )


if __name__ == "__main__":
    main()
