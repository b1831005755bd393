"""Accompaniment: a layer's pattern turned into bass notes, chords and arpeggios."""

from __future__ import annotations

import random

from training.composer.genres.model import Layer
from training.composer.harmony import ladder, voice
from training.composer.rhythm import Feel, Step, unroll
from training.composer.score import Note
from training.composer.theory import Chord, Instrument, into_range, nearest_pitch

_ACCENTS = {"C": 14, "X": 14, "P": 10, "o": -26, "p": -16, "R": 5}


class Player:
    """Plays one layer's patterns over a piece's chords, remembering its last voicing and bass note."""

    def __init__(self, layer: Layer, instrument: Instrument, *, centre: int, feel: Feel, rng: random.Random):
        self.layer, self.instrument, self.feel, self.rng = layer, instrument, feel, rng
        self.centre = centre
        self.voicing: tuple[int, ...] = ()
        self.chord: Chord | None = None
        self.walked = float(centre)

    def play(self, pattern: str, chords: list[Chord], *, start: int, stop: int, beats_per_bar: int) -> list[Note]:
        """Return the notes of `pattern` from beat `start` to `stop` (straight pattern, swung notes)."""
        notes: list[Note] = []
        for step in unroll(pattern, start=start, stop=stop, beats_per_bar=beats_per_bar):
            chord = chords[int(step.start + 1e-6)]
            if chord is not self.chord:
                self.voicing = voice(chord, self.voicing, centre=self.centre, voices=self.layer.voices)
                self.chord = chord
            notes.extend(self._sound(step, chords, chord))
        return notes

    def _sound(self, step: Step, chords: list[Chord], chord: Chord) -> list[Note]:
        pitches = self._pitches(step, chords, chord)
        begin = self.feel.place(step.start, triplet=step.triplet)
        end = self.feel.place(step.start + step.length, triplet=step.triplet)
        short = 0.6 if step.letter == "p" else 1.0  # muted by the palm
        duration = max(0.06, (end - begin) * self.layer.gate * short)
        velocity = self.layer.velocity + _ACCENTS.get(step.letter, 0) + (4 if step.start % 1 < 1e-6 else 0)
        notes = []
        for index, pitch in enumerate(pitches):
            delay = index * self.layer.strum
            place = into_range(pitch, self.instrument.low, self.instrument.high)
            notes.append(Note(begin + delay, max(0.05, duration - delay), place, velocity))
        return notes

    def _pitches(self, step: Step, chords: list[Chord], chord: Chord) -> tuple[int, ...]:
        letter = step.letter
        if letter in "cCxXo":
            return self.voicing
        if letter in "Pp":
            low = nearest_pitch(chord.root, self.centre)
            return (low, low + 7, low + 12) if letter == "P" else (low, low + 7)
        if letter.isdigit():
            rungs = ladder(chord, low=max(self.instrument.low, self.centre - 8), high=self.instrument.high)
            return (rungs[min(int(letter) - 1, len(rungs) - 1)],)
        if letter == "W":
            return (self._walk(step, chords, chord),)
        return (self._bass(letter, step, chords, chord),)

    def _bass(self, letter: str, step: Step, chords: list[Chord], chord: Chord) -> int:
        # Roots sit an octave below the layer's chords when a hand plays both.
        base = self.centre if self.layer.role in ("bass", "percussion") else self.centre - 17
        root = nearest_pitch(chord.root, base)
        if letter == "O":
            return root + 12
        if letter == "A":
            following = nearest_pitch(self._next_chord(step, chords).root, base)
            return following + (self.rng.choice((-1, -2, 1)) if following != root else -5)
        index = {"R": 0, "T": 1, "F": min(2, len(chord.tones) - 1), "S": 3}[letter]
        if letter == "F":
            fifth = (chord.tones[index] - chord.root) % 12
            return root + fifth - (12 if root + fifth > base + 6 else 0)
        return root + (chord.tones[index] - chord.root) % 12 if index < len(chord.tones) else root + 9

    def _next_chord(self, step: Step, chords: list[Chord]) -> Chord:
        return chords[min(int(step.start + step.length + 1e-6), len(chords) - 1)]

    def _walk(self, step: Step, chords: list[Chord], chord: Chord) -> int:
        beat = int(step.start + 1e-6)
        following = self._next_chord(step, chords)
        if beat == 0 or chords[beat - 1] is not chord or step.start % 4 < 0.5:
            target = nearest_pitch(chord.root, 0.6 * self.walked + 0.4 * self.centre)
        elif following is not chord:
            target = nearest_pitch(following.root, self.walked) + self.rng.choice((-1, 1, -2, 2, 7, -5))
        else:
            rungs = ladder(chord, low=self.centre - 9, high=self.centre + 11)
            near = sorted(rungs, key=lambda pitch: abs(pitch - self.walked))
            target = self.rng.choice([pitch for pitch in near if pitch != self.walked][:3])
        self.walked = float(into_range(target, self.centre - 10, self.centre + 12))
        return int(self.walked)
