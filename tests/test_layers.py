"""The shape of the package: imports go down only, nothing heavy loads early, and extras stay optional."""

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import riff

ROOT = Path(__file__).parent.parent
LAYERS = {
    0: {"errors", "threads", "config", "files", "fields", "checks", "tempo"},
    1: {
        "audio",
        "containers",
        "tags",
        "loudness",
        "filterbank",
        "ring",
        "compiled",
        "iteration",
        "heap",
        "phase",
        "engine",
        "inversion",
        "blocks",
        "spectrogram",
        "exif",
        "image",
        "latents",
        "transpose",
        "level",
        "weighting",
        "prompt",
        "onsets",
        "rhythm",
        "barline",
        "beats",
        "splice",
    },
    2: {
        "diffusion",
        "compiling",
        "conditions",
        "canvas",
        "objective",
        "music",
        "prior",
        "request",
        "reading",
        "plan",
        "pace",
        "pictures",
        "parquet",
        "dataset",
        "provenance",
        "codec",
        "keyframe",
        "timeline",
    },
    3: {
        "hub",
        "weights",
        "components",
        "checkpoint",
        "clip",
        "fingerprint",
        "recipe",
        "replay",
        "show",
        "style",
        "cards",
        "sheet",
        "model",
        "journey",
        "edits",
        "laying",
        "job",
        "morph",
        "verified",
        "drawing",
        "trigger",
        "lora",
        "stems",
        "endless",
        "pipeline",
        "evaluate",
        "tagger_net",
        "tagger",
        "bench",
        "train",
        "prepare",
        "cluster",
    },
    4: {"cli", "server", "playground"},
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
HEAVY = {"torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "PIL", "diffusers",
         "transformers", "numba", "huggingface_hub", "safetensors", "tqdm", "torchaudio"}  # fmt: skip
EXTRAS = {
    "accelerate",
    "peft",
    "datasets",
    "pyarrow",
    "ray",
    "gradio",
    "fastapi",
    "demucs",
    "tensorboard",
    "fluidsynth",
    "pyloudnorm",
}
SOURCES = sorted((ROOT / "riff").rglob("*.py"))


def imports(path: Path, *, only_at_import: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, in functions too unless ``only_at_import``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _run_at_import(tree) if only_at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; write it in full"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        guard = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not guard and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _run_at_import(node)


def part_of(path: Path) -> str:
    """The top-level part of riff that a file belongs to: ``riff/cli/render.py`` to ``cli``."""
    return path.relative_to(ROOT / "riff").parts[0].removesuffix(".py")


@functools.cache
def uses() -> dict[str, set[str]]:
    """Each part of riff to the other parts it imports."""
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        part = part_of(path)
        if part.startswith("__"):
            continue
        names = [name.split(".") for name in imports(path) if name.startswith("riff.")]
        graph.setdefault(part, set()).update(name[1] for name in names if name[1] in LAYER_OF and name[1] != part)
    return graph


def test_every_module_has_a_layer() -> None:
    unplaced = {part for part in uses() if part not in LAYER_OF}
    assert not unplaced, f"give {unplaced} a place in LAYERS"


def test_imports_go_down_only() -> None:
    upward = [(part, used) for part, parts in uses().items() for used in parts if LAYER_OF[used] > LAYER_OF[part]]
    assert upward == []


def test_parts_do_not_import_each_other_in_a_circle() -> None:
    order = list(graphlib.TopologicalSorter(uses()).static_order())
    assert order.index("errors") < order.index("cli")


def test_the_rungs_know_no_training_and_no_product() -> None:
    """A rung knows its two neighbours and the config, so that it can be tested and used by itself."""
    for rung in ("audio", "spectrogram", "image", "latents", "prompt"):
        assert not uses().get(rung, set()) & (LAYERS[2] | LAYERS[3] | LAYERS[4])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_riff_never_imports_training_tests_or_torchaudio(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    # riff bench measures itself against torchaudio.
    assert not tops & {"training", "tests", *(() if part_of(path) == "bench" else ("torchaudio",))}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_are_imported_where_they_are_used_only(path: Path) -> None:
    if part_of(path) not in ("train", "server", "playground"):
        assert not {name.split(".")[0] for name in imports(path, only_at_import=True)} & EXTRAS


@pytest.mark.parametrize("path", [p for p in SOURCES if part_of(p) == "cli"], ids=lambda path: path.stem)
def test_the_command_line_imports_nothing_heavy_at_its_top(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, only_at_import=True)} & HEAVY


@pytest.mark.parametrize(
    "code",
    [
        "import riff; riff.__version__; riff.RiffError; riff.SpectrogramConfig; dir(riff)",
        "import riff.cli",
        "import riff.cli\nriff.cli.main(['render', '--help'])",
        "import riff.cli\nfor verb in riff.cli.VERBS: riff.cli.main([verb, '--help'])",
        "import riff.cli\nriff.cli.main(['render', '', '-o', 'x.wav', '--quiet'])",
        "import riff.cli\nriff.cli.main(['walk', 'jazz', '-o', 'x.wav', '--quiet'])",
        "import riff.cli\nriff.cli.main(['render', 'missing.yaml', '-o', 'x.wav', '--quiet'])",
        "import riff.music, riff.provenance, riff.files, riff.timeline, riff.tempo; riff.tempo.TempoMap.constant(90.0)",
    ],
    ids=["import", "command", "help", "help of each verb", "mistake", "walk", "timeline", "light modules"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    report = f"{code}\nimport sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """Measured as processor time, so that a busy machine does not fail it; the best of three."""
    resource = pytest.importorskip("resource")
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "riff", "--help"], capture_output=True, cwd=ROOT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("name", riff.__all__)
def test_every_exported_name_exists(name: str) -> None:
    assert getattr(riff, name).__name__ == name
    assert name in dir(riff)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RiffPipelin'"):
        _ = riff.RiffPipelin
