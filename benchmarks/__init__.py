"""How fast and how large riff is on this machine, against the tools that do the same: :func:`bench`."""

from benchmarks.harness import Ratio
from benchmarks.history import Bench, Section
from benchmarks.run import SECTIONS, bench

__all__ = ["SECTIONS", "Bench", "Ratio", "Section", "bench"]
