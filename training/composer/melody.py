"""Melodies with phrases: a motif, its repetition or variation, an answer and a cadence."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.composer.rhythm import Feel, Step, unroll
from training.composer.score import Note
from training.composer.theory import SCALES, Chord, Instrument

_MOVES = (-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 3)


@dataclass(frozen=True)
class Line:
    """Where and how a melody lies: instrument, centre and reach (semitones), scale and tonic."""

    instrument: Instrument
    centre: int
    scale: str
    tonic: int
    velocity: int
    gate: float
    thirds: bool
    reach: int = 9


def _scale_pitches(line: Line) -> list[int]:
    degrees = {(line.tonic + step) % 12 for step in SCALES[line.scale]}
    low = max(line.instrument.low, line.centre - line.reach)
    high = min(line.instrument.high, line.centre + line.reach)
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in degrees]


def _chord_tone(pitch: int, chord: Chord, *, low: int, high: int, prefer: tuple[int, ...] = ()) -> int:
    tones = [tone for tone in prefer if tone in chord.tones] or list(chord.tones[:4])
    options = [value for value in range(low, high + 1) if value % 12 in tones]
    return min(options, key=lambda value: abs(value - pitch), default=pitch)


class Singer:
    """Sings one lead or counter line; keeps its motif so that later bars repeat and answer it."""

    def __init__(self, line: Line, *, feel: Feel, rng: random.Random):
        self.line, self.feel, self.rng = line, feel, rng
        self.scale = _scale_pitches(line)
        self.motifs: dict[str, list[int]] = {}
        self.index = len(self.scale) // 2

    def _contour(self, name: str, length: int) -> list[int]:
        contour = self.motifs.setdefault(name, [])
        while len(contour) < length:
            contour.append(self.rng.choice(_MOVES))
        return contour

    def sing(
        self, patterns: list[tuple[str, str]], chords: list[Chord], *, start: int, beats_per_bar: int
    ) -> list[Note]:
        """Sing bars in a row, each as (motif name, rhythm pattern); the last note is a cadence.

        Args:
            patterns: one pair per bar; the same name sings the same contour again over the new chords.
            chords: the chord under every beat of the piece.
            start: first beat.
            beats_per_bar: 3 or 4.

        Returns:
            The notes, swung.
        """
        notes: list[Note] = []
        for bar, (name, pattern) in enumerate(patterns):
            begin = start + bar * beats_per_bar
            steps = list(unroll(pattern, start=begin, stop=begin + beats_per_bar, beats_per_bar=beats_per_bar))
            contour = self._contour(name, len(steps))
            last_bar = bar == len(patterns) - 1
            for number, step in enumerate(steps):
                chord = chords[int(step.start + 1e-6)]
                cadence = last_bar and number == len(steps) - 1
                pitch = self._pitch(step, chord, contour[number], first=number == 0, cadence=cadence)
                notes.extend(self._sound(step, pitch))
        return notes

    def _pitch(self, step: Step, chord: Chord, move: int, *, first: bool, cadence: bool) -> int:
        if first:
            middle = len(self.scale) // 2
            self.index += (middle - self.index) // 2  # every bar leans back towards the centre
        self.index += move
        if self.index < 0 or self.index >= len(self.scale):
            self.index -= 2 * move
        self.index = max(0, min(len(self.scale) - 1, self.index))
        pitch = self.scale[self.index]
        strong = step.start % 2 < 1e-6 or step.length >= 1 or first
        if strong or cadence:
            tonic = self.line.tonic
            # Phrases begin on the tonic triad where the chord allows and end on the tonic itself.
            home = (tonic, (tonic + 7) % 12, (tonic + 4) % 12, (tonic + 3) % 12)
            prefer = home[:1] if cadence and tonic in chord.tones else home
            pitch = _chord_tone(pitch, chord, low=self.scale[0], high=self.scale[-1], prefer=prefer)
            self.index = min(range(len(self.scale)), key=lambda i: abs(self.scale[i] - pitch))
        leading = (self.line.tonic + 11) % 12
        if pitch % 12 == (self.line.tonic + 10) % 12 and leading in chord.tones:
            pitch += 1  # the harmonic minor's leading note over its dominant
        return pitch

    def _sound(self, step: Step, pitch: int) -> list[Note]:
        begin = self.feel.place(step.start, triplet=step.triplet)
        end = self.feel.place(step.start + step.length, triplet=step.triplet)
        velocity = self.line.velocity + (6 if step.start % 2 < 1e-6 else 0) + (8 if step.letter == "X" else 0)
        duration = max(0.06, (end - begin) * self.line.gate)
        notes = [Note(begin, duration, pitch, velocity)]
        if self.line.thirds and self.index >= 2:
            notes.append(Note(begin, duration, self.scale[self.index - 2], velocity - 10))
        return notes
