"""The evaluation of a folder: finds the files, has them measured on all cores, and collects what came of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riff.evaluate.distances import frechet, frechet_limit, kernel_distance, likeness, main_axes
from riff.evaluate.embeddings import check_embeddings
from riff.evaluate.figures import Figure, mean_figure
from riff.evaluate.form import Form, form
from riff.evaluate.hygiene import hygiene
from riff.evaluate.measure import Measured, Plan, Role, Task, make_meter
from riff.evaluate.obedience import obedience
from riff.evaluate.originality import Search, originality, search
from riff.evaluate.report import ClipRow, Evaluation, Section
from riff.evaluate.roundtrip import trip_figures
from riff.evaluate.sounds import find_sounds, read_requests
from riff.music.tempo_estimation import tempo_error
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.parallel import WorkerDied, run_all, usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """What is to be evaluated.

    Attributes:
        generated: folder or file; None if there is only a round trip.
        reference: music that it should be like.
        prompts: list of what was requested; None is what riff wrote into the files.
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


def evaluate(request: EvaluationRequest, *, workers: int | None = None, progress: bool = False) -> Evaluation:
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


def _check_different(request: EvaluationRequest) -> None:
    given = {"GENERATED": request.generated, "--reference": request.reference, "--training": request.training}
    seen: dict[Path, str] = {}
    for name, value in given.items():
        if value is None or (name == "--training" and value == request.reference):
            continue
        place = Path(value).resolve()
        if place in seen:
            raise RiffError(f"{name} and {seen[place]} are the same folder, {value}; a distance to itself says nothing")
        seen[place] = name


def _tasks(request: EvaluationRequest) -> tuple[list[Task], list[str]]:
    """Every file once for each reason to measure it, and lines of the list that fit none."""
    tasks: list[Task] = []
    problems: list[str] = []
    if request.generated is not None:
        files, requested = find_sounds(request.generated), None
        if request.prompts is not None:
            requested, problems = read_requests(request.prompts, files, Path(request.generated))
        tasks += [Task(file, "generated", None if requested is None else requested.get(file, {})) for file in files]
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
    count = workers or min(usable_cores(), max(1, len(tasks) // 4))
    if count > 1:
        make_meter(plan)  # so that missing weights are said here, in one line, and not by each process
    make = functools.partial(make_meter, plan)
    with tqdm(total=len(tasks), unit="file", desc="eval", leave=False, disable=None if progress else True) as bar:
        return measure_all(make, [(task,) for task in tasks], count if count > 1 else 0, bar.update)


def measure_all(
    make: Callable[[], Callable[..., Any]], tasks: list[tuple[Any, ...]], workers: int, done: Callable[[], object]
) -> list[Any]:
    """The results of :func:`riff.utils.parallel.run_all` in order; ``done`` is called after each.

    Raises:
        SystemProblem: a process was killed, mostly for want of memory.
    """
    results: list[Any] = [None] * len(tasks)
    for number, result in run_all(make, tasks, workers=workers):
        if isinstance(result, WorkerDied):
            message = "a worker process was killed, as happens when memory runs out; use fewer --workers"
            raise SystemProblem(message) from result
        if isinstance(result, Exception):
            raise result
        results[number] = result
        done()
    return results


def _folder(request: EvaluationRequest, role: Role) -> str | Path | None:
    return {
        "generated": request.generated,
        "reference": request.reference,
        "training": request.training,
        "round trip": request.round_trip,
    }[role]


def _root(generated: str | Path | None) -> Path:
    path = Path(generated or ".")
    return path if path.is_dir() else path.parent


# From measured files to figures: the sections of an evaluation, and its clips with the best first.

FEWEST = 20  # clips on each side, below which a distance says nothing
FIRM = (
    50  # below which a Fréchet distance is mostly bias, and from which a kernel distance is stable (Chung et al. 2025)
)
DETECTORS = (
    "A detector errs itself, and no figure can be expected above its own; it was measured on composed music, whose "
    "truth is known, and not on recordings (python -m training.measure.detectors)."
)


def collect(by_role: dict[Role, list[Measured]], plan: Plan, root: Path) -> Evaluation:
    """The evaluation, without title, settings and problems.

    Args:
        by_role: what was measured.
        plan: by what.
        root: the folder that clips are named in.
    """
    ours, theirs = by_role["generated"], by_role["reference"]
    result = Evaluation("")
    if theirs:
        result.sections.append(_distribution(ours, theirs, result))
    if ours:
        result.sections.append(_obedience(ours))
        result.sections.append(_told("Form", form(_forms(ours), _forms(theirs))))
        result.sections.append(_told("Hygiene", hygiene([one.hygiene for one in ours if one.hygiene])))
        found = search(ours, by_role["training"], theirs)
        figures, notes = originality(ours, found, _features(ours), _features(theirs))
        result.sections.append(_told("Originality", figures, *notes))
        result.clips = _ranked(ours, theirs, root, found)
    if trips := [measured.trips for measured in by_role["round trip"]]:
        result.sections.append(_told("Round trip", trip_figures(trips)))
    result.reference = [_values(measured) for measured in theirs]
    return result


def _told(title: str, figures: list[Figure], *notes: str) -> Section:
    """A section of the figures that stand on something; the others are named below."""
    empty = [figure.name for figure in figures if not figure.n]
    if empty and len(empty) < len(figures):
        notes = (*notes, f"Not measurable on these clips: {'; '.join(empty)}.")
    return Section(title, [figure for figure in figures if figure.n], notes)


def _forms(side: list[Measured]) -> list[Form]:
    return [measured.form for measured in side if measured.form]


def _distribution(ours: list[Measured], theirs: list[Measured], result: Evaluation) -> Section:
    figures: list[Figure] = []
    generated, reference = _features(ours), _features(theirs)
    smallest = min(len(next(iter(side.values()), ())) for side in (generated, reference))
    notes = [
        f"{len(left)} of the {name} are too short or silent to be compared: {left[0]}"
        for name, side in (("clips", ours), ("reference", theirs))
        if (left := [measured.unembedded for measured in side if measured.unembedded])
    ]
    for name in (name for name in generated if name in reference):
        a, b = generated[name], reference[name]
        ours_at, theirs_at = main_axes(a, b)
        result.maps[name] = {"generated": ours_at.round(4).tolist(), "reference": theirs_at.round(4).tolist()}
    if smallest < FEWEST:
        return Section("Distribution", figures, (*notes, _too_few(len(ours), len(theirs))))
    for name in (name for name in generated if name in reference):
        a, b = generated[name], reference[name]
        figures.append(kernel_distance(a, b, name))
        if smallest >= FIRM:
            figures += [frechet(a, b, name), frechet_limit(a, b, name)]
    counts = f"{len(ours)} clips against {len(theirs)}"
    notes.append(f"{counts}; an MMD whose interval holds 0 tells no difference.")
    if smallest < FIRM:
        notes.append(
            f"Fréchet distances grow as clips get fewer, and are not given below {FIRM} on each side; the kernel "
            "distance has no such bias, but trust its interval rather than its value."
        )
    return Section("Distribution", figures, tuple(notes))


def _too_few(ours: int, theirs: int) -> str:
    return (
        f"No distance is given: a kernel distance needs {FEWEST} clips on each side to mean anything, a Fréchet "
        f"distance {FIRM}, and there are {ours} clips and {theirs} of the reference."
    )


def _features(side: list[Measured]) -> dict[str, np.ndarray]:
    embedded = [measured for measured in side if measured.vectors]
    names = embedded[0].vectors if embedded else ()
    return {name: np.stack([measured.vectors[name] for measured in embedded]) for name in names}


def _obedience(ours: list[Measured]) -> Section:
    pairs = [(measured.requested, measured.detected) for measured in ours if measured.requested and measured.detected]
    figures = obedience([requested for requested, _ in pairs], [detected for _, detected in pairs])
    scores = [measured.text_score for measured in ours if measured.text_score is not None]
    if scores:
        figures.append(mean_figure(scores[0].name, [score.value for score in scores], "", scores[0].definition))
    if not any(figure.n for figure in figures):
        return Section("Obedience", [], ("Nobody said what was requested: give --prompts, or files that riff wrote.",))
    return _told("Obedience", figures, *([DETECTORS] if any(figure.detector for figure in figures) else []))


def _values(measured: Measured) -> dict[str, float]:
    """What is plotted and listed of a clip."""
    values: dict[str, float] = {}
    if measured.requested and measured.detected and measured.requested.bpm and measured.detected.bpm:
        values["tempo error, any octave (%)"] = 100.0 * tempo_error(measured.detected.bpm, measured.requested.bpm)
    if measured.hygiene:
        found = measured.hygiene
        values |= {
            "loudness (LUFS)": found.loudness,
            "true peak (dBTP)": found.true_peak,
            "bandwidth (kHz)": found.bandwidth / 1000.0,
            "silence (%)": 100.0 * found.silent,
            "clipped samples (%)": 100.0 * found.clipped,
            "DC offset": found.offset,
            "stereo correlation": found.correlation,
        }
    if measured.form:
        values |= {
            "onset sharpness (dB)": measured.form.sharpness,
            "roughness": measured.form.roughness,
            "largest level step (LU)": measured.form.level_step,
            "loop seam, flux": measured.form.seam_flux,
        }
    return values


def _ranked(ours: list[Measured], theirs: list[Measured], root: Path, found: Search) -> list[ClipRow]:
    """The clips, best first: by the mean of what was obeyed, of hygiene, and of how usual it is in the reference."""
    near = _likeness(ours, theirs)
    rows = []
    for number, measured in enumerate(ours):
        points, reasons = _points(measured)
        values = _values(measured)
        if found.names:
            values["landmarks shared with training (%)"] = 100.0 * found.landmarks[number].share
            values["likeness to training"] = found.sketches[number].similarity
        if source := found.copied(number):
            points.append(0.0)
            reasons.append(f"a copy of {source}")
        name = measured.path.relative_to(root).as_posix()
        if measured.path in near:
            points.append(near[measured.path])
            reasons.append(f"more usual than {100 * near[measured.path]:.0f} % of the reference")
        score = float(np.mean(points)) if points else math.nan
        requested = {field: measured.metadata[field] for field in _REQUESTED if measured.metadata.get(field)}
        rows.append(ClipRow(name, str(measured.path), requested, values, score, tuple(reasons)))
    return sorted(rows, key=lambda row: (-row.score if math.isfinite(row.score) else math.inf, row.name))


_REQUESTED = ("prompt", "bpm", "keyscale", "genre")


def _points(measured: Measured) -> tuple[list[float], list[str]]:
    """0..1 for each thing that was requested and 0 for each fault, and in words what was detected."""
    points: list[float] = []
    reasons: list[str] = []
    if measured.hygiene and measured.hygiene.clipped > 0:
        points.append(0.0)
        reasons.append("clips")
    if measured.hygiene and measured.hygiene.silent > 0.5:
        points.append(0.0)
        reasons.append("mostly silent")
    if measured.requested is None or measured.detected is None:
        return points, reasons
    requested, detected = measured.requested, measured.detected
    if requested.bpm:
        points.append(float(detected.bpm is not None and tempo_error(detected.bpm, requested.bpm) <= 0.04))
        reasons.append(f"{_tempo(detected.bpm)}, requested {requested.bpm:.4g}")
    if requested.keyscale:
        points.append(float(detected.keyscale == requested.keyscale))
        reasons.append(f"{detected.keyscale or 'no key'}, requested {requested.keyscale}")
    if requested.genres and detected.genre:
        points.append(float(detected.genre in requested.genres))
        reasons.append(f"detected as {detected.genre.replace('_', ' ')}")
    if requested.instruments and detected.genre:
        found = [bool(detected.instruments & set(names)) for names in requested.instruments]
        points.append(sum(found) / len(found))
        reasons.append(f"{sum(found)} of {len(found)} instruments detected")
    return points, reasons


def _tempo(bpm: float | None) -> str:
    return "no tempo" if bpm is None else f"{bpm:.1f} bpm"


def _likeness(ours: list[Measured], theirs: list[Measured]) -> dict[Path, float]:
    """By the first embedding, for each embedded clip; empty with fewer than 20 of the reference."""
    embedded = [measured for measured in ours if measured.vectors]
    reference = _features(theirs)
    if not embedded or not reference or len(theirs) < FEWEST:
        return {}
    name = next(iter(reference))
    shares = likeness(np.stack([measured.vectors[name] for measured in embedded]), reference[name])
    return {measured.path: float(share) for measured, share in zip(embedded, shares, strict=True)}
