"""python -m training.composer --seed 7 [--genre X] [--whole] [--json] [--out FILE.flac]: print a score, or play it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from training.composer.arrange import compose
from training.composer.genres import GENRES
from training.composer.genres.reserved import RESERVED
from training.composer.score import Score


def as_text(score: Score) -> str:
    """Return the score as lines a person can read."""
    lines = [f"seed {score.seed}: {score.beats} beats at {score.bpm:g} bpm"]
    for number, truth in enumerate(score.windows):
        lines.append(
            f"window {number}: {truth.genre} ({truth.family}), {truth.keyscale}, {truth.beats_per_bar}/4, "
            f"{truth.mood}, {truth.density}, {truth.section} {truth.place}, lead {truth.lead}; "
            f"{', '.join(truth.instruments)}"
        )
    for part in score.parts:
        lines.append(f"{part.role}: {part.instrument} ({part.voice or part.program}, volume {part.volume:g})")
        lines += [f"  {n.start:8.3f} {n.duration:6.3f} {n.pitch:4d} {n.velocity:4d}" for n in part.notes]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.composer", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--genre", choices=sorted([*GENRES, *RESERVED]))
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="a piece of 16 to 32 bars with a form")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", help="play it into this sound file")
    options = parser.parse_args(arguments)
    score = compose(options.seed, genre=options.genre, windows=None if options.whole else options.windows)
    if options.out:
        import soundfile

        from training.composer.effects import SAMPLE_RATE
        from training.composer.render import render

        soundfile.write(options.out, render(score).T, SAMPLE_RATE)
        return 0
    print(json.dumps(dataclasses.asdict(score)) if options.json else as_text(score))
    return 0


if __name__ == "__main__":
    sys.exit(main())
