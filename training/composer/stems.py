"""Every part of a score by itself, dry: FluidSynth plays those of the soundfont, riff the rest."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.composer.effects import SAMPLE_RATE, Sound
from training.composer.machines import KITS, available, play_machine
from training.composer.voices import VOICES, play_voice

if TYPE_CHECKING:
    from training.composer.score import Part, Score

# FluidR3 (MIT) and MuseScore General (MIT), where Debian and Fedora put them; a piece takes the one or the other.
SOUNDFONTS = (
    (
        "/usr/share/sounds/sf2/FluidR3_GM.sf2",
        "/usr/share/soundfonts/FluidR3_GM.sf2",
        "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    ),
    ("/usr/share/sounds/sf3/MuseScore_General_Full.sf3", "/usr/share/sounds/sf3/MuseScore_General.sf3"),
)
DRUM_CHANNEL = 9
_BLOCK = 64  # FluidSynth starts and ends notes on blocks of this many samples
_OUTPUTS = 16
_CLEAN_GUITAR = 27


def find_soundfonts() -> list[Path]:
    """The soundfont named by ``RIFF_SOUNDFONT``, else one of each kind that this machine has."""
    named = os.environ.get("RIFF_SOUNDFONT")
    if named:
        return [Path(named)] if Path(named).is_file() else []
    found = (next((Path(path) for path in paths if Path(path).is_file()), None) for paths in SOUNDFONTS)
    return [path for path in found if path]


def _fresh(channels: int) -> Any:
    import fluidsynth  # type: ignore[import-not-found, import-untyped, unused-ignore]

    settings = {"polyphony": 256, "dynamic-sample-loading": 1, "chorus.active": 0, "reverb.active": 0}
    settings |= {"audio-channels": _OUTPUTS, "audio-groups": _OUTPUTS}
    named: dict[str, Any] = {f"synth.{name}": value for name, value in settings.items()}
    return fluidsynth.Synth(gain=0.5, samplerate=float(SAMPLE_RATE), channels=channels, **named)


class Soundfont:
    """A soundfont whose programs stay loaded once they were used: MuseScore General takes a second to unpack some.

    Every piece is played by a fresh synthesizer, since a voice that is used again keeps something of its last note.
    """

    def __init__(self, path: str):
        import fluidsynth  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self.library = fluidsynth._fl
        self.library.fluid_synth_get_sfont.restype = ctypes.c_void_p
        self.library.fluid_synth_nwrite_float.argtypes = [ctypes.c_void_p, ctypes.c_int] + [ctypes.c_void_p] * 4
        # A synthesizer that gives its soundfont back warns that its channels have no instruments now.
        self.library.fluid_set_log_function(2, None, None)
        self.keeper = _fresh(256)
        self.handle = self.keeper.sfload(path)
        if self.handle == -1:
            raise OSError(f"FluidSynth cannot read the soundfont {path}")
        self.font = ctypes.c_void_p(self.library.fluid_synth_get_sfont(ctypes.c_void_p(self.keeper.synth), 0))
        self.kept: set[tuple[int, int]] = set()

    def play(
        self, programs: dict[int, tuple[int, int]], events: list[tuple[int, int, int, int, int]], length: int
    ) -> list[Sound]:
        """Play events.

        Args:
            programs: bank and program of every channel in use.
            events: (sample, on, channel, pitch, velocity) in order of time.
            length: T.

        Returns:
            (2, T) for each of 16 channels.
        """
        for program in programs.values():
            if program not in self.kept and len(self.kept) < 256:
                self.keeper.program_select(len(self.kept), self.handle, *program)
                self.kept.add(program)
        synth = _fresh(16)
        raw = ctypes.c_void_p(synth.synth)
        handle = self.library.fluid_synth_add_sfont(raw, self.font)
        try:
            for channel, program in programs.items():
                synth.program_select(channel, handle, *program)
                for control, value in ((7, 127), (10, 64), (11, 127)):
                    synth.cc(channel, control, value)
            return self._run(synth, events, length)
        finally:
            self.library.fluid_synth_remove_sfont(raw, self.font)
            synth.delete()

    def _run(self, synth: Any, events: list[tuple[int, int, int, int, int]], length: int) -> list[Sound]:
        out = np.zeros((_OUTPUTS, 2, -(-length // _BLOCK) * _BLOCK), np.float32)

        def write(start: int, stop: int) -> None:
            sides = (
                (ctypes.c_void_p * _OUTPUTS)(*(out[n, side, start:].ctypes.data for n in range(_OUTPUTS)))
                for side in (0, 1)
            )
            self.library.fluid_synth_nwrite_float(synth.synth, stop - start, *sides, None, None)

        now = 0
        for sample, on, channel, pitch, velocity in events:
            if sample >= length:
                break
            block = sample // _BLOCK * _BLOCK
            if block > now:
                write(now, block)
                now = block
            if on:
                synth.noteon(channel, pitch, velocity)
            else:
                synth.noteoff(channel, pitch)
        if now < out.shape[2]:
            write(now, out.shape[2])
        return [np.ascontiguousarray(stem[:, :length]) for stem in out]


@lru_cache(maxsize=4)
def _soundfont(path: str) -> Soundfont:
    return Soundfont(path)


def events_of(score: Score, channels: list[int]) -> Iterator[tuple[int, int, int, int, int]]:
    """What to tell a synthesizer, in time order; at one instant a note ends before the next starts.

    Yields:
        (sample, on, channel, pitch, velocity); parts whose channel is negative are left out.
    """
    events = []
    for part, channel in zip(score.parts, channels, strict=True):
        for start, hold, pitch, velocity in notes_of(part, score.bpm) if channel >= 0 else ():
            events.append((start, 1, channel, pitch, velocity))
            events.append((start + hold, 0, channel, pitch, 0))
    return iter(sorted(events))


def notes_of(part: Part, bpm: float) -> list[tuple[int, int, int, int]]:
    """A part's notes as (first sample, samples held, pitch, velocity), in order of time."""
    beat = 60.0 * SAMPLE_RATE / bpm
    notes = []
    for note in part.notes:
        start = max(0, round(note.start * beat))
        notes.append((start, max(64, round((note.start + note.duration) * beat) - start), note.pitch, note.velocity))
    return sorted(notes)


def play_parts(score: Score, length: int, soundfont: Path) -> list[tuple[Sound, Sound | None]]:
    """Play every part dry.

    Args:
        score: what to play.
        length: T, in samples from the score's beginning.
        soundfont: an SF2 or SF3 file.

    Returns:
        For each part its sound (2, T) and, of a drum machine, the kick apart (2, T), else None.
    """
    programs: dict[int, tuple[int, int]] = {}
    melodic = iter(channel for channel in range(16) if channel != DRUM_CHANNEL)
    channels = []
    for part in score.parts:
        if part.voice in VOICES and not part.is_drum:
            channels.append(-1)
            continue
        channel = DRUM_CHANNEL if part.is_drum else next(melodic)
        program = _CLEAN_GUITAR if _rhythm_guitar(part) else part.program
        programs[channel] = (128 if part.is_drum else 0, program)
        channels.append(channel)
    events = list(events_of(_without_machines(score), channels))
    stems = (
        _soundfont(str(soundfont)).play(programs, events, length)
        if events
        else [np.zeros((2, length), np.float32)] * 16
    )
    found: list[tuple[Sound, Sound | None]] = []
    for number, (part, channel) in enumerate(zip(score.parts, channels, strict=True)):
        if channel < 0:
            rng = np.random.default_rng((abs(score.seed), number))
            notes = notes_of(part, score.bpm)
            found.append((play_voice(part.voice, notes, length=length, bpm=score.bpm, rng=rng), None))
        elif part.is_drum and part.voice in KITS and available(part.voice):
            kick, rest = play_machine(part.voice, notes_of(part, score.bpm), length=length)
            level = np.float32(2.0)  # the soundfont's percussion beside the machine's
            found.append((rest + level * stems[channel], kick))
        else:
            found.append((stems[channel], None))
    return found


def _rhythm_guitar(part: Part) -> bool:
    """Chords that an amplifier is to distort are played clean: it is the amplifier that ties their notes together."""
    return part.instrument in ("distorted guitar", "overdriven guitar") and part.role not in ("lead", "counter")


def _without_machines(score: Score) -> Score:
    """The score without the drum notes that a machine plays."""
    import dataclasses

    parts = []
    for part in score.parts:
        if part.is_drum and part.voice in KITS and available(part.voice):
            part = dataclasses.replace(
                part, notes=tuple(note for note in part.notes if note.pitch not in KITS[part.voice])
            )
        parts.append(part)
    return dataclasses.replace(score, parts=tuple(parts))
