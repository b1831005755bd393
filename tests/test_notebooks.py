"""The notebooks run from top to bottom as they stand: with a tiny model here, with riff-mini under ``-m slow``."""

import ast
import json
import time
from pathlib import Path
from typing import Any

import pytest

import riff

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = ["01_first_sounds", "02_spectrograms", "03_walks_loops_timelines"]
TRAINING = "04_train_on_your_music"
SECONDS = 180.0  # of work, over all cores, that a notebook may cost with riff-mini


def run_notebook(name: str, instead: dict[str, str] | None = None) -> list[Any]:
    """Run the cells in the current folder as Jupyter does, without Jupyter; returns what they show, in order.

    ``instead`` holds pieces of the source that must be there and what stands in their place.
    """
    shown: list[Any] = []
    unused = dict(instead or {})
    names: dict[str, Any] = {"display": lambda *things: shown.extend(things), "__name__": "__main__"}
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for piece in [piece for piece in unused if piece in source]:
            source = source.replace(piece, unused.pop(piece))
        tree = ast.parse(source, filename=f"{name}, cell {number}")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"{name}, cell {number}", "eval"), names)
            shown.extend([] if value is None else [value])
    assert not unused
    return shown


def check_shown(shown: list[Any]) -> None:
    """Every notebook shows players, pictures and plots."""
    pages = [thing._repr_html_() for thing in shown if hasattr(thing, "_repr_html_")]
    assert sum("<audio" in page for page in pages) >= 2
    assert sum("<svg" in page for page in pages) >= 1
    assert sum(hasattr(thing, "_repr_png_") for thing in shown) >= 1  # Pillow's pictures


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = riff.RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    monkeypatch.setattr(riff.RiffPipeline, "from_pretrained", lambda: loaded)
    for method in ("__call__", "walk", "render"):
        monkeypatch.setattr(riff.RiffPipeline, method, _with_two_steps(getattr(riff.RiffPipeline, method)))
    monkeypatch.chdir(tmp_path)
    check_shown(run_notebook(name))


def test_the_notebook_on_training_runs(mini_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("peft")
    monkeypatch.setattr(riff.RiffPipeline, "__call__", _with_two_steps(riff.RiffPipeline.__call__))
    monkeypatch.chdir(tmp_path)
    instead = {
        'MODEL = "riff-mini"': f"MODEL = {str(mini_checkpoint)!r}",
        "max_train_steps=60, num_class_images=8, validation_steps=20": "max_train_steps=2, num_class_images=2",
    }
    check_shown(run_notebook(TRAINING, instead))


def _with_two_steps(method: Any) -> Any:
    return lambda self, *arguments, **options: method(self, *arguments, **{"num_inference_steps": 2, **options})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NOTEBOOKS, TRAINING])
def test_a_notebook_runs_with_the_real_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    check_shown(run_notebook(name))
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_small_says_what_it_shows_and_links_to_files_that_exist(path: Path) -> None:
    assert path.stat().st_size < 100_000
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and "".join(notebook["cells"][0]["source"]).startswith("# ")
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    for target in [part.split(")")[0] for part in text.split("](")[1:]]:
        assert (FOLDER / target).exists()
