"""What a sound file that riff wrote says of its tempo, so that it need not be measured."""

import dataclasses
from pathlib import Path

from riff.audio.io import audio_seconds
from riff.music.beats import Beats
from riff.music.theory import parse_time_signature
from riff.tasks.provenance import read_made
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, positive_number

_EDITS = ("remix", "extend", "inpaint")  # of a recording, whose beats may lie anywhere


@dataclasses.dataclass(frozen=True)
class StatedMusic:
    """What a file says of its music.

    Attributes:
        prompt: it was made from.
        key: such as ``"F# minor"``, or None.
        bpm: its tempo, or None.
        beats_per_bar: 3 or 4.
        exact: whether the beats are at every ``60 / bpm`` seconds from the first sample on.
    """

    prompt: str
    key: str | None
    bpm: float | None
    beats_per_bar: int
    exact: bool

    def beats_from(self, start: float, seconds: float) -> Beats | None:
        """The beats of ``seconds`` of the sound from ``start`` on, counted from there; None where they are not exact."""
        if self.bpm is None or not self.exact:
            return None
        length = 60.0 / self.bpm
        first = int(start / length + 1e-6)
        times = tuple(number * length - start for number in range(first, int((start + seconds) / length + 1e-6) + 2))
        return Beats(times, -first % self.beats_per_bar, self.bpm, 1.0)


def read_stated(path: Path) -> StatedMusic | None:
    """What a file says; None where riff did not write it, or what it says is damaged."""
    try:
        made = read_made(path)
        seconds = audio_seconds(path)
    except (RiffError, OSError):
        return None
    if "software" not in made or "prompt" not in made:
        return None
    prompt = str(made["prompt"])
    bpm = positive_number(made.get("bpm"))
    bpm = bpm if bpm is not None and BPM_RANGE[0] <= bpm <= BPM_RANGE[1] else None
    metre = str(made.get("time_signature") or made.get("timesignature") or "")
    beats_per_bar = {"3/4": 3, "4/4": 4}.get(metre) or parse_time_signature(prompt)
    exact = bpm is not None and made.get("task") not in _EDITS and "timeline" not in made
    if exact and bpm is not None:
        # A file that was cut since has neither whole bars nor the requested length.
        beats, requested = seconds * bpm / 60.0, positive_number(made.get("duration"))
        whole = abs(beats - round(beats)) < 0.02 and round(beats) % beats_per_bar == 0
        exact = whole or (requested is not None and abs(requested - seconds) < 0.01)
    key = made.get("key") or made.get("keyscale")
    return StatedMusic(prompt, None if key is None else str(key), bpm, beats_per_bar, exact)
