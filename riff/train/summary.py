"""How a run stands, in a small file beside its checkpoints, and what its validation losses say."""

import dataclasses
import json
import math
import signal as signals
from pathlib import Path

from riff.utils.errors import RiffError
from riff.utils.files import write_json

SUMMARY = "summary.json"
_SAME = 0.005  # losses that differ by less, as a share, say nothing
History = list[tuple[int, float]]


def advice(history: History) -> str | None:
    """Advice on when to stop, from validation losses in the order of their steps; None while there are too few.

    The loop never stops by itself: the least loss is not always the best music.
    """
    if history and not math.isfinite(history[-1][1]):
        return f"the validation loss at step {history[-1][0]} is not finite; lower the learning rate"
    finite = [(step, loss) for step, loss in history if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    best_step, best = min(finite, key=lambda entry: entry[1])
    last_step, last = finite[-1]
    since = [loss for step, loss in finite if step > best_step]
    if not since:
        begun = finite[-3][1]
        if begun - last > _SAME * abs(begun):
            return f"validation loss still falls ({last:.4g} at step {last_step}); more steps may help"
        return f"validation loss hardly moves any more ({last:.4g} at step {last_step}); this is a good place to stop"
    if len(since) >= 2 and min(since[-2:]) > best + _SAME * abs(best):
        return (
            f"validation loss was least at step {best_step} ({best:.4g}) and has risen since ({last:.4g} at step "
            f"{last_step}); stop here and train {best_step} steps, or lower the learning rate"
        )
    return None


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
    """Write ``run/summary.json``; errors as in :func:`riff.utils.files.write_json`."""
    name = None if signal is None else signals.Signals(signal).name
    summary = RunSummary(step, steps, name, to_json(validation), advice(validation))
    write_json(run / SUMMARY, dataclasses.asdict(summary))


def read_summary(run: Path) -> RunSummary:
    """The summary of a run's last checkpoint.

    Raises:
        RiffError: ``run`` has none, or it is no summary.
    """
    path = run / SUMMARY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunSummary(**values | {"validation": from_json(values["validation"])})
    except FileNotFoundError as error:
        raise RiffError(f"{run} holds no {SUMMARY}; give the folder of a training run") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RiffError(f"{path} is no summary of a run ({error}); the next checkpoint replaces it") from error


def to_json(history: History) -> History:
    """A history that JSON can hold: what is not finite becomes None."""
    return [(step, loss if math.isfinite(loss) else None) for step, loss in history]  # type: ignore[misc]


def from_json(history: list[list[float | None]]) -> History:
    """The inverse of :func:`to_json`."""
    return [(int(step or 0), math.nan if loss is None else float(loss)) for step, loss in history]


def note_signal(run: Path, signal: int | None) -> None:
    """Record that a signal stopped a run between its steps: while it was prepared, or was prepared once more."""
    run.mkdir(parents=True, exist_ok=True)
    if (run / SUMMARY).is_file():
        found = read_summary(run)
        write_summary(run, step=found.step, steps=found.steps, signal=signal, validation=found.validation)
    else:
        write_summary(run, step=0, steps=0, signal=signal, validation=[])
