"""How a run stands, in a small file beside its checkpoints: for the command that trains, and for people."""

import dataclasses
import json
import math
import signal as signals
from pathlib import Path

from riff.errors import RiffError
from riff.files import write_json
from riff.train.validation import History, advice

SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run stands.

    Attributes:
        step: steps done, all of them in a checkpoint.
        steps: steps in all.
        signal: ``"SIGINT"`` or ``"SIGTERM"`` where that stopped it, else None.
        validation: (step, loss) of every validation; a loss that was not finite is NaN.
        advice: what the validation losses say, or None.
    """

    step: int
    steps: int
    signal: str | None
    validation: History
    advice: str | None


def write_summary(run: Path, *, step: int, steps: int, signal: int | None, validation: History) -> None:
    """Write ``run/summary.json``; errors as in :func:`riff.files.write_json`."""
    name = None if signal is None else signals.Signals(signal).name
    summary = RunSummary(step, steps, name, plain(validation), advice(validation))
    write_json(run / SUMMARY, dataclasses.asdict(summary))


def read_summary(run: Path) -> RunSummary:
    """The summary of a run's last checkpoint.

    Raises:
        RiffError: ``run`` has none, or it is no summary.
    """
    path = run / SUMMARY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunSummary(**values | {"validation": lifted(values["validation"])})
    except FileNotFoundError as error:
        raise RiffError(f"{run} holds no {SUMMARY}; give the folder of a training run") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RiffError(f"{path} is no summary of a run ({error}); the next checkpoint writes it anew") from error


def plain(history: History) -> History:
    """A history that JSON can hold: what is not finite becomes None."""
    return [(step, loss if math.isfinite(loss) else None) for step, loss in history]  # type: ignore[misc]


def lifted(history: list[list[float | None]]) -> History:
    """The inverse of :func:`plain`."""
    return [(int(step or 0), math.nan if loss is None else float(loss)) for step, loss in history]
