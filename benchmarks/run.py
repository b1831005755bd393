"""The benchmark as a whole: the sections that were asked for, one after the other."""

import dataclasses
import datetime
import difflib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.history import Bench, Section
from riff.utils.errors import RiffError, SystemProblem
from riff.version import __version__

SECTIONS = ("render", "denoise", "sound", "encode", "prepare", "train", "serve")


def bench(
    sections: Sequence[str] = (),
    *,
    model: str | None = None,
    device: str | None = None,
    steps: int = 20,
    repeat: int | None = None,
    quick: bool = False,
    compile: bool = False,
    progress: bool = False,
) -> Bench:
    """Measure riff on this machine, and the tools that do the same, each in a process of its own, in turn.

    Args:
        sections: of :data:`SECTIONS`; none is all of them, and then one that cannot be measured here, for example for
            want of an extra, becomes a note.
        model: as for :meth:`riff.pipeline.RiffPipeline.from_pretrained`; None is riff-mini. Sections "sound", "encode"
            and "prepare" need no model.
        device: "cpu", "cuda" or "mps"; None takes the fastest there is.
        steps: denoising steps.
        repeat: measurements of each side, of which the median is reported; default 3, with ``quick`` 1.
        quick: as little of everything as says something, below five minutes on two cores.
        compile: measure a compiled denoiser as well, in section "denoise": minutes more.
        progress: whether a terminal is shown a bar.

    Raises:
        RiffError: an unknown section; the nearest one is suggested.
        RiffError, ModelError: whatever a render of this model would raise.
        SystemProblem: there is no such device, or a section that was asked for cannot be measured here.
    """
    from benchmarks.history import describe_machine
    from riff.diffusion.model import find_device

    names = check_sections(sections)
    find_device(device)
    repeat = repeat or (1 if quick else 3)
    began, machine = time.monotonic(), describe_machine()
    settings = {"model": model or "riff-mini", "device": device, "steps": steps, "repeat": repeat, "quick": quick}
    settings["compile"] = compile
    ways = _ways(model, device, steps, repeat, quick, compile)
    return Bench(
        version=__version__,
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine,
        settings=settings,
        sections=_measure([(name, ways[name]) for name in names], strict=bool(sections), progress=progress),
        seconds=time.monotonic() - began,
    )


def check_sections(names: Sequence[str]) -> tuple[str, ...]:
    """The sections in their own order, each once; all of them for none.

    Raises:
        RiffError: an unknown one.
    """
    for name in names:
        if name not in SECTIONS:
            near = difflib.get_close_matches(name, SECTIONS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise RiffError(f"there is no section {name!r} to measure{hint} known are {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if not names or name in names)


def _measure(ways: list[tuple[str, Callable[[], Section]]], *, strict: bool, progress: bool) -> list[Section]:
    from tqdm import tqdm

    measured = []
    with tqdm(total=len(ways), unit="section", leave=False, disable=None if progress else True) as bar:
        for name, way in ways:
            bar.set_description(name)
            began = time.monotonic()
            try:
                section = way()
            except SystemProblem as problem:
                if strict:
                    raise
                section = Section(name, notes=[f"Not measured: {problem}."])
            measured.append(dataclasses.replace(section, seconds=time.monotonic() - began))
            bar.update()
    return measured


def _ways(
    model: str | None, device: str | None, steps: int, repeat: int, quick: bool, compile: bool
) -> dict[str, Callable[[], Section]]:
    from benchmarks.denoise import denoise_section
    from benchmarks.encode import encode_section
    from benchmarks.preparing import prepare_section
    from benchmarks.render import render_section
    from benchmarks.serving import serve_section
    from benchmarks.sound import sound_section
    from benchmarks.training import train_section

    drawing: dict[str, Any] = {"model": model, "device": device, "steps": steps, "repeat": repeat}
    asking: dict[str, Any] = {"clients": 4, "each": 1 if quick else 2}
    qualities = ("default",) if quick else ("default", "fast", "high", "best")
    return {
        "render": partial(render_section, **drawing),
        "denoise": partial(denoise_section, **drawing, compile=compile),
        "sound": partial(sound_section, repeat=repeat, qualities=qualities),
        "encode": partial(encode_section, repeat=repeat, seconds=10.0 if quick else 60.0),
        "prepare": partial(prepare_section, files=2 if quick else 8, seconds=30.0 if quick else 60.0),
        "train": partial(train_section, model=model, device=device, steps=4 if quick else 20, rounds=repeat),
        "serve": partial(serve_section, **drawing, **asking),
    }
