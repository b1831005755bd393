"""Score to sound: FluidSynth plays a score with a General MIDI soundfont, in stereo, with its reverb.

TinySoundFont is four times as fast (``training.measure.synths``) but dry, and its package asks for PyAudio, which does
not build without PortAudio; drawing the picture takes a third of a clip's time in any case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from training.composer.score import Part, Score

SAMPLE_RATE = 44100
SOUNDFONTS = (
    "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/soundfonts/FluidR3_GM.sf2",
)
DRUM_CHANNEL = 9
LEVEL = 0.11  # target of the loudest half of the 0.4 s blocks, RMS of full scale (about -19 dBFS)
PEAK = 0.97


def find_soundfont() -> Path | None:
    """The soundfont named by ``RIFF_SOUNDFONT``, else FluidR3 where Debian and Fedora put it, else None."""
    named = os.environ.get("RIFF_SOUNDFONT")
    for path in [named] if named else SOUNDFONTS:
        if Path(path).is_file():
            return Path(path)
    return None


def _synthesizer(soundfont: str) -> tuple[Any, int]:
    """A fresh synthesizer for every piece: its reverb carries tails and modulation from one piece to the next.

    Only the samples of the programs in use are loaded, which makes that cheap (0.2 s against 2 s).
    """
    import fluidsynth  # type: ignore[import-not-found, import-untyped, unused-ignore]

    synth = fluidsynth.Synth(gain=0.35, samplerate=float(SAMPLE_RATE))
    synth.setting("synth.polyphony", 192)
    synth.setting("synth.dynamic-sample-loading", 1)
    # The chorus takes as long as all the notes together.
    synth.setting("synth.chorus.active", 0)
    handle = synth.sfload(soundfont)
    if handle == -1:
        raise OSError(f"FluidSynth cannot read the soundfont {soundfont}")
    return synth, handle


def _set_up_channels(synth: Any, handle: int, parts: tuple[Part, ...]) -> list[int]:
    melodic = iter(channel for channel in range(16) if channel != DRUM_CHANNEL)
    channels = []
    for part in parts:
        channel = DRUM_CHANNEL if part.is_drum else next(melodic)
        synth.program_select(channel, handle, 128 if part.is_drum else 0, part.program)
        synth.cc(channel, 7, round(127 * min(max(part.volume, 0.0), 1.0)))
        synth.cc(channel, 10, round(64 + 63 * min(max(part.pan, -1.0), 1.0)))
        synth.cc(channel, 91, round(127 * min(max(part.reverb, 0.0), 1.0)))
        channels.append(channel)
    return channels


def events_of(score: Score, channels: list[int]) -> Iterator[tuple[int, int, int, int, int]]:
    """What to tell a synthesizer, in time order; at one instant a note ends before the next starts.

    Yields:
        (sample, on, channel, pitch, velocity).
    """
    samples_per_beat = 60.0 * SAMPLE_RATE / score.bpm
    events = []
    for part, channel in zip(score.parts, channels, strict=True):
        for note in part.notes:
            start = max(0, round(note.start * samples_per_beat))
            end = max(start + 64, round((note.start + note.duration) * samples_per_beat))
            events.append((start, 1, channel, note.pitch, note.velocity))
            events.append((end, 0, channel, note.pitch, 0))
    return iter(sorted(events))


def _level(sound: np.ndarray) -> np.ndarray:
    """Bring the loud half of the piece to one level, so that a picture's brightness means loudness."""
    mono = sound.mean(0)
    blocks = mono[: len(mono) // 17640 * 17640].reshape(-1, 17640) if len(mono) >= 17640 else mono[None]
    power = np.sort((blocks.astype(np.float64) ** 2).mean(1))
    loud = float(np.sqrt(power[len(power) // 2 :].mean()))
    peak = float(np.abs(sound).max())
    if loud < 1e-6 or peak == 0.0:
        return sound
    return sound * min(LEVEL / loud, PEAK / peak)


def render(score: Score, soundfont: str | Path | None = None) -> np.ndarray:
    """Play a score.

    Args:
        score: what to play.
        soundfont: an SF2 or SF3 file; ``None`` looks for FluidR3.

    Returns:
        (2, T) float32 at 44.1 kHz, T = the score's beats at its tempo, rounded to a sample.

    Raises:
        FileNotFoundError: no soundfont was given or found.
    """
    found = Path(soundfont) if soundfont else find_soundfont()
    if found is None:
        raise FileNotFoundError("no soundfont found; apt-get install fluidr3mono-gm-soundfont or set RIFF_SOUNDFONT")
    synth, handle = _synthesizer(str(found))
    channels = _set_up_channels(synth, handle, score.parts)
    total = round(score.beats * 60.0 * SAMPLE_RATE / score.bpm)
    pieces, now = [], 0
    for sample, on, channel, pitch, velocity in events_of(score, channels):
        if sample >= total:
            break
        if sample > now:
            pieces.append(synth.get_samples(sample - now))
            now = sample
        if on:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    if total > now:
        pieces.append(synth.get_samples(total - now))
    synth.delete()
    sound = np.concatenate(pieces).reshape(-1, 2).T.astype(np.float32) / 32768.0
    return _level(sound)
