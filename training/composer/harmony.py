"""Progressions laid out on the beats, and voicings that move as little as possible."""

from __future__ import annotations

from training.composer.theory import Chord, nearest_pitch, parse_chord


def lay_out(progression: str, *, bars: int, beats_per_bar: int, tonic: int, minor: bool) -> list[Chord]:
    """Return the chord under every beat of a piece.

    Args:
        progression: one word per bar, a comma splits a bar ("I vi ii7,V7 I"); repeated to fill `bars`.
        bars: number of bars.
        beats_per_bar: 3 or 4.
        tonic: pitch class of the key, 0-11.
        minor: whether the key is minor.

    Returns:
        A list of bars * beats_per_bar chords.
    """
    words = progression.split()
    chords: list[Chord] = []
    for bar in range(bars):
        names = words[bar % len(words)].split(",")
        for beat in range(beats_per_bar):
            name = names[min(len(names) - 1, beat * len(names) // beats_per_bar)]
            chords.append(parse_chord(name, tonic=tonic, minor=minor))
    return chords


def _reduced(chord: Chord, voices: int) -> list[int]:
    tones = list(dict.fromkeys(chord.tones))
    while len(tones) > voices and len(tones) > 2:
        del tones[2 if len(tones) > 3 else -1]  # the fifth says least about a seventh chord
    return tones


def voice(chord: Chord, previous: tuple[int, ...], *, centre: float, voices: int) -> tuple[int, ...]:
    """Voice a chord near `centre` with the least motion from the previous voicing.

    Args:
        chord: the chord.
        previous: the voicing before it, empty at the start.
        centre: MIDI pitch the voicing should lie around.
        voices: number of notes.

    Returns:
        Ascending MIDI pitches.
    """
    tones = _reduced(chord, voices)
    best: tuple[int, ...] = ()
    best_cost = float("inf")
    for shift in range(len(tones)):
        rotated = tones[shift:] + tones[:shift]
        low = nearest_pitch(rotated[0], centre - 5)
        pitches = [low]
        for index in range(1, voices):
            tone = rotated[index % len(rotated)]
            pitches.append(pitches[-1] + ((tone - pitches[-1] - 1) % 12) + 1)
        motion = sum(min(abs(pitch - other) for other in previous) for pitch in pitches) if previous else 0
        cost = motion + 0.6 * abs(sum(pitches) / len(pitches) - centre)
        if cost < best_cost:
            best, best_cost = tuple(pitches), cost
    return best


def ladder(chord: Chord, *, low: int, high: int) -> list[int]:
    """Return all pitches of a chord's tones between low and high, ascending."""
    tones = set(chord.tones)
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in tones]
