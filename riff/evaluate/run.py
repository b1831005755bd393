"""The evaluation of a folder: finds the files, has them measured on all cores, and collects what came of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

from riff.errors import RiffError
from riff.evaluate.asked import read_asked
from riff.evaluate.choices import check_embeddings
from riff.evaluate.collect import collect
from riff.evaluate.crew import cores, run_all
from riff.evaluate.measure import Measured, Plan, Role, Task, make_meter
from riff.evaluate.report import Evaluation
from riff.evaluate.sounds import find_sounds

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be evaluated.

    Attributes:
        generated: folder or file; None if there is only a round trip.
        reference: music that it should be like.
        prompts: list of what was asked; None is what riff wrote into the files.
        training: music that is searched for copies.
        round_trip: music that goes down the ladder and back.
        embeddings: by which sets are compared; default those that need no weights of others.
        checkpoint: whose latents are meant; None is riff-mini.
        download: whether weights of others may be fetched.
    """

    generated: str | Path | None = None
    reference: str | Path | None = None
    prompts: str | Path | None = None
    training: str | Path | None = None
    round_trip: str | Path | None = None
    embeddings: tuple[str, ...] = ()
    checkpoint: str | None = None
    download: bool = False


def evaluate(request: Request, *, workers: int | None = None, progress: bool = False) -> Evaluation:
    """Evaluate a folder of music.

    Args:
        request: what, against what, and by what.
        workers: processes; None is one a core. Few files are measured in this one.
        progress: whether a terminal is shown a bar.

    Returns:
        Figures, clips and files that could not be used.

    Raises:
        RiffError: a folder is missing or without sound, two folders are the same, no file can be read, the list of
            prompts does not fit, or an embedding is unknown.
        ModelError: weights are missing or damaged.
        SystemProblem: a worker process was killed.
    """
    began = time.monotonic()
    _check_different(request)
    names = check_embeddings(request.embeddings)
    tasks, problems = _tasks(request)
    plan = Plan(
        # Without a reference one is enough, to say how various the clips are.
        embeddings=names if request.reference is not None else names[:1] if request.generated is not None else (),
        checkpoint=request.checkpoint,
        download=request.download,
        clap=next((name.partition("=")[2] for name in names if name.partition("=")[0] == "clap"), None),
        trips=request.round_trip is not None,
    )
    done = _measure(plan, tasks, workers, progress)
    by_role: dict[Role, list[Measured]] = {"generated": [], "reference": [], "training": [], "round trip": []}
    for measured in done:
        if measured.problem:
            problems.append(measured.problem)
        else:
            by_role[measured.role].append(measured)
    for task in tasks:
        if not by_role[task.role]:
            raise RiffError(f"no file of {_folder(request, task.role)} can be used: {problems[0]}")
    result = collect(by_role, plan, _root(request.generated))
    result.title = Path(request.generated or request.round_trip or "").resolve().name or "evaluation"
    result.problems = problems
    given = dataclasses.asdict(request) | {"embeddings": list(plan.embeddings)}
    result.settings = {
        name: value if isinstance(value, list | bool) else str(value)
        for name, value in given.items()
        if value not in (None, [], False)
    }
    result.seconds = time.monotonic() - began
    return result


def _check_different(request: Request) -> None:
    given = {"GENERATED": request.generated, "--reference": request.reference, "--training": request.training}
    seen: dict[Path, str] = {}
    for name, value in given.items():
        if value is None or (name == "--training" and value == request.reference):
            continue
        place = Path(value).resolve()
        if place in seen:
            raise RiffError(f"{name} and {seen[place]} are the same folder, {value}; a distance to itself says nothing")
        seen[place] = name


def _tasks(request: Request) -> tuple[list[Task], list[str]]:
    """Every file once for each reason to measure it, and lines of the list that fit none."""
    tasks: list[Task] = []
    problems: list[str] = []
    if request.generated is not None:
        files, asked = find_sounds(request.generated), None
        if request.prompts is not None:
            asked, problems = read_asked(request.prompts, files, Path(request.generated))
        tasks += [Task(file, "generated", None if asked is None else asked.get(file, {})) for file in files]
    others: list[tuple[str | Path | None, Role]] = [
        (request.reference, "reference"),
        (request.training, "training"),
        (request.round_trip, "round trip"),
    ]
    for source, role in others:
        if source is not None:
            tasks += [Task(file, role) for file in find_sounds(source)]
    return tasks, problems


def _measure(plan: Plan, tasks: Sequence[Task], workers: int | None, progress: bool) -> list[Measured]:
    from tqdm import tqdm

    # A process needs some seconds to begin, which a few files are not worth.
    count = workers or min(cores(), max(1, len(tasks) // 4))
    if count > 1:
        make_meter(plan)  # so that missing weights are said here, in one line, and not by each process
    with tqdm(total=len(tasks), unit="file", desc="eval", leave=False, disable=None if progress else True) as bar:
        return run_all(make_meter, plan, tasks, workers=count, bar=bar)


def _folder(request: Request, role: Role) -> str | Path | None:
    return {
        "generated": request.generated,
        "reference": request.reference,
        "training": request.training,
        "round trip": request.round_trip,
    }[role]


def _root(generated: str | Path | None) -> Path:
    path = Path(generated or ".")
    return path if path.is_dir() else path.parent
