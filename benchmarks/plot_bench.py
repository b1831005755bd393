"""Benchmarks over versions: a plot, and the figures in docs/speed.md.

    python -m benchmarks.plot_bench
    python -m benchmarks.plot_bench --check     is the page what the newest benchmark says? exit code 1 if not
    python -m benchmarks.plot_bench --print     the figures on stdout; nothing is written

Both are made of what ``python -m benchmarks --save`` keeps in benchmarks/results. The figures stand between the lines
``<!-- bench -->`` and ``<!-- /bench -->`` of the page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.history import RESULTS, describe, fair_ratios, load_history
from benchmarks.plot import picture, short
from riff.utils.errors import RiffError
from riff.utils.files import write_text

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PICTURE = Path("docs/pictures/bench.svg")
PAGE = Path("docs/speed.md")
# Figures of the page: section, name, words, unit, factor.
SHOWN = (
    ("render", "cold_start_to_file_s", "from a cold start to the file", "s", 1.0),
    ("render", "help_s", "`riff --help`", "s", 1.0),
    ("render", "render_s", "a clip with the model loaded", "s", 1.0),
    ("render", "real_time_factor", "work for each second of music", "s", 1.0),
    ("render", "live_work_s", "a bar of live music, which lasts 2 s", "s", 1.0),
    ("render", "step_s", "one denoising step", "ms", 1000.0),
    ("render", "phase_s", "from image to sound", "s", 1.0),
    ("render", "peak_memory_mib", "memory at the peak", "MiB", 1.0),
    ("encode", "file_to_file_music_per_second", "`riff encode`, music per second", "s", 1.0),
    ("prepare", "one_process_music_per_second", "`riff prepare`, music per second, one process", "s", 1.0),
    ("prepare", "all_cores_music_per_second", "`riff prepare`, music per second, all cores", "s", 1.0),
    ("train", "riff_steps_per_second", "training steps a second, whole UNet", "", 1.0),
    ("serve", "batched_requests_per_second", "`riff serve`, requests a second", "", 1.0),
    ("serve", "batched_wait_p95_s", "19 of 20 answers, with four clients at once, come within", "s", 1.0),
)


def newest(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The run that the page shows: riff-mini's newest, a whole quiet one before a noisy, quick or partial one.

    Raises:
        RiffError: there is none.
    """
    runs = [run for run in history if run["settings"].get("model") == "riff-mini"]
    if not runs:
        raise RiffError(f"there is no benchmark of riff-mini in {RESULTS}; run: python -m benchmarks --save")

    def rank(run: dict[str, Any]) -> tuple[bool, bool, bool, str]:
        whole = {section for section, *_ in SHOWN} <= set(run["sections"])
        return whole, not run["settings"].get("quick"), not run["machine"].get("noisy"), str(run["when"])

    version = runs[-1]["riff"]
    return max((run for run in runs if run["riff"] == version), key=rank)


def block(run: dict[str, Any]) -> str:
    """The page's figures, Markdown, with the marks around them."""
    machine, settings = run["machine"], run["settings"]
    packages = machine["packages"]
    noisy = ", while other programs used it as well, so these are ratios of processor time, and no seconds are given"
    where = describe({**machine, "noisy": False}) + noisy * bool(machine.get("noisy"))
    lines = [
        BEGIN,
        f"`python -m benchmarks`, riff {run['riff']}, {run['when'][:10]}: {where}; torch {packages.get('torch')}, diffusers "  # noqa: E501
        f"{packages.get('diffusers')}; {settings.get('steps')} denoising steps. Each side ran in a process of its own, "
        f"in turn; the range is that of the pairs. [Over versions](pictures/bench.svg)",
        "",
        "| riff is | | range |",
        "|---|---|---|",
        *[_ratio_row(ratio) for ratio in fair_ratios(run).values()],
    ]
    if not machine.get("noisy"):  # else its seconds say more of the other programs
        rows = [row for shown in SHOWN if (row := _figure_row(run, *shown))]
        lines += ["", "| it takes | |", "|---|---|", *rows]
    return "\n".join([*lines, END])


def insert(text: str, made: str) -> str:
    """A page with its figures replaced.

    Raises:
        RiffError: it has no marks, or has them twice.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise RiffError(f"the page needs one line {BEGIN} and, below it, one line {END}; the figures go between them")
    return before + made + after


def _ratio_row(ratio: dict[str, Any]) -> str:
    unit = "x" if ratio["times"] else ""
    spread = f"{short(ratio['low'])} to {short(ratio['high'])}" if ratio["pairs"] > 1 else ""
    return f"| {short(ratio['value'])}{unit} | {ratio['meaning']} | {spread} |"


def _figure_row(run: dict[str, Any], section: str, name: str, words: str, unit: str, factor: float) -> str:
    value = run["sections"].get(section, {"figures": {}})["figures"].get(name)
    return "" if value is None else f"| {words} | {short(value * factor)} {unit}".rstrip() + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--print", action="store_true", help="the block on stdout; write nothing")
    arguments = parser.parse_args(argv)
    try:
        history = load_history(arguments.results)
        made = block(newest(history))
        if arguments.print:
            print(made)
            return 0
        if arguments.check:
            return _check(arguments, made, picture(history))
        write_text(arguments.picture, picture(history))
        write_text(arguments.page, insert(arguments.page.read_text(encoding="utf-8"), made))
        return 0
    except RiffError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _check(arguments: argparse.Namespace, made: str, drawn: str) -> int:
    """0 if plot and page are what the history says, else 1."""
    text = arguments.page.read_text(encoding="utf-8")
    kept = arguments.picture.read_text(encoding="utf-8") if arguments.picture.is_file() else ""
    pairs = ((arguments.page, text, insert(text, made)), (arguments.picture, kept, drawn))
    stale = [str(path) for path, is_now, should_be in pairs if is_now != should_be]
    if stale:
        print(f"{', '.join(stale)}: not what the benchmarks say; run: python -m benchmarks.plot_bench", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
