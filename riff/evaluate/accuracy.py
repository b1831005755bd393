"""How often the detectors behind the figures of an evaluation are right themselves, where that is known.

``python -m training.measure_detectors --ship`` measures it on composed music of held-out seeds and writes the file.
"""

import dataclasses
import functools
import json
from pathlib import Path

ACCURACY_FILE = Path(__file__).parent.parent / "models" / "detectors.json"
_ALL, _RHYTHMIC = {"all": "composed clips"}, {"rhythmic": "composed clips with drums"}
# What is shipped: a measure to the groups of clips that it is told of.
SHIPPED = {
    **{
        f"riff: tempo within {tolerance} %{octave}": _RHYTHMIC | _ALL
        for octave in ("", ", any octave")
        for tolerance in (1, 4)
    },
    "riff, by the tagger: key exact": _ALL,
    "riff's tagger: genre": _ALL,
    "riff's tagger: instruments that play": {"all": "instruments in composed clips"},
    "riff's tagger: all instruments that play": _ALL,
}
_OF_FIGURE = {
    "Tempo within 1 %": "riff: tempo within 1 %",
    "Tempo within 4 %": "riff: tempo within 4 %",
    "Tempo within 1 %, any octave": "riff: tempo within 1 %, any octave",
    "Tempo within 4 %, any octave": "riff: tempo within 4 %, any octave",
    "Key exact": "riff, by the tagger: key exact",
    "Genre (riff's tagger)": "riff's tagger: genre",
    "Instruments (riff's tagger)": "riff's tagger: instruments that play",
    "All instruments (riff's tagger)": "riff's tagger: all instruments that play",
}


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How often a detector was right where the truth is known.

    Attributes:
        value: share, 0..1.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        n: of how many.
        of: which, in words.
    """

    value: float
    low: float
    high: float
    n: int
    of: str

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % of {self.n} {self.of}"


def detector_accuracy(figure: str) -> tuple[Accuracy, ...]:
    """That of the detector on which a figure rests.

    Args:
        figure: its name.

    Returns:
        One or more groups of clips; none where nothing was measured.
    """
    return _shipped().get(_OF_FIGURE.get(figure, ""), ())


@functools.cache
def _shipped() -> dict[str, tuple[Accuracy, ...]]:
    if not ACCURACY_FILE.is_file():
        return {}
    found: dict[str, tuple[Accuracy, ...]] = {}
    for row in json.loads(ACCURACY_FILE.read_text(encoding="utf-8"))["shares"]:
        name = row.pop("name")
        found[name] = (*found.get(name, ()), Accuracy(**row))
    return found
