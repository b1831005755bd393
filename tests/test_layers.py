"""The shape of the package: imports go down only, nothing heavy loads early, and extras stay optional."""

import ast
import collections
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import riff

ROOT = Path(__file__).parent.parent
# The rooms of riff, low to high: a file imports only from its own room and from those before it.
ROOMS = (
    *("version", "utils", "audio", "spectrogram", "music", "prompt", "diffusion", "tasks", "pipeline"),
    *("evaluate", "train", "apps"),
)
HEAVY = {"torch", "numpy", "scipy", "librosa", "soundfile", "soxr", "PIL", "diffusers", "av", "jinja2",
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
    "matplotlib",
    "pyloudnorm",
}
# What a package is called where it is imported.
PACKAGES = {
    "pil": "pillow",
    "yaml": "pyyaml",
    "multipart": "python-multipart",
    "fluidsynth": "pyfluidsynth",
    "starlette": "fastapi",
    "h11": "uvicorn",
    "markupsafe": "jinja2",
    "pydantic": "fastapi",
    "torch": "torch",
}
# Imported where it is there, and named in the message where it is not.
OPTIONAL = {"bitsandbytes"}
SOURCES = sorted((ROOT / "riff").rglob("*.py"))
# `riff serve` and `riff play` start the other two apps.
STARTS = {("riff.apps.cli.serve", "server"), ("riff.apps.cli.serve", "playground")}
WIDE_FUNCTIONS = {"RiffPipeline.__call__", "RiffPipeline.from_pretrained"}


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


def room_of(path: Path) -> str:
    """The room of a file: ``riff/diffusion/model.py`` to ``diffusion``, ``riff/pipeline.py`` to ``pipeline``."""
    return path.relative_to(ROOT / "riff").parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    """``riff/diffusion/model.py`` to ``riff.diffusion.model``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def uses(top: str) -> dict[str, set[str]]:
    """Each module below a folder to the others there that it imports, in functions too."""
    paths = {module_of(path): path for path in sorted((ROOT / top).rglob("*.py")) if path.name != "__main__.py"}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = [name for name in imports(path) if name.startswith(f"{top}.")]
        found = {name if name in paths else name.rpartition(".")[0] for name in names} & set(paths)
        graph[module] = found - {module, top}
    return graph


def test_imports_go_down_the_rooms() -> None:
    upward = [
        (module, used)
        for module, modules in uses("riff").items()
        for used in modules
        if module != "riff" and ROOMS.index(used.split(".")[1]) > ROOMS.index(module.split(".")[1])
    ]
    assert upward == []


@pytest.mark.parametrize("top", ["riff", "training", "benchmarks"])
def test_no_files_import_each_other_in_a_circle(top: str) -> None:
    list(graphlib.TopologicalSorter(uses(top)).static_order())


def test_the_apps_do_not_import_each_other() -> None:
    def app(module: str) -> str:
        return module.removeprefix("riff.apps.").split(".")[0]

    assert not [
        (module, used)
        for module, modules in uses("riff").items()
        for used in modules
        if module.startswith("riff.apps.")
        and used.startswith("riff.apps.")
        and app(module) != app(used)
        and (module, app(used)) not in STARTS
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_riff_never_imports_training_benchmarks_or_tests(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"training", "benchmarks", "tests"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_are_imported_where_they_are_used_only(path: Path) -> None:
    if room_of(path) not in ("train", "apps"):
        assert not {name.split(".")[0] for name in imports(path, only_at_import=True)} & EXTRAS


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[^\w-]", line.lower())[0].replace("-", "_") for group in groups for line in group}
    imported = {name.split(".")[0].lower() for path in SOURCES for name in imports(path)}
    foreign = imported - {name.lower() for name in sys.stdlib_module_names} - {"riff"} - OPTIONAL
    assert {PACKAGES.get(name, name).replace("-", "_") for name in foreign} - declared == set()


def test_ranges_of_requests_stand_in_one_place() -> None:
    users = {module_of(path) for path in SOURCES if "annotated_types.Interval" in set(imports(path))}
    assert users == {"riff.tasks.requests", "riff.utils.schema"}
    doors = [path for path in SOURCES if room_of(path) in ("tasks", "pipeline", "apps")]
    assert not [path for path in doors if "riff.utils.validation.check_number" in set(imports(path))]


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Name and node of each function of a file; a method's name is ``Class.method``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{node.name}.{each.name}" if isinstance(node, ast.ClassDef) else each.name, each


def test_functions_are_short() -> None:
    def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        return node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())

    long = {f"{module_of(path)}.{name}" for path in SOURCES for name, node in functions(path) if lines(node) > 60}
    assert long == set()


def test_functions_have_at_most_eight_parameters() -> None:
    def wide(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return len([each for each in named if each.arg not in ("self", "cls")]) > 8

    assert {name for path in SOURCES for name, node in functions(path) if wide(node)} - WIDE_FUNCTIONS == set()


def test_public_classes_have_names_of_their_own() -> None:
    names = collections.Counter(
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if "cli" in path.relative_to(ROOT).parts], ids=lambda path: path.stem
)
def test_the_command_line_imports_nothing_heavy_at_its_top(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, only_at_import=True)} & HEAVY


@pytest.mark.parametrize(
    "code",
    [
        "import riff; riff.__version__; riff.RiffError; riff.SpectrogramConfig; dir(riff)",
        "import riff.apps.cli",
        "import riff.apps.cli\nriff.apps.cli.main(['render', '--help'])",
        "import riff.apps.cli\nfor verb in riff.apps.cli.VERBS: riff.apps.cli.main([verb, '--help'])",
        "import riff.apps.cli\nriff.apps.cli.main(['render', '', '-o', 'x.wav', '--quiet'])",
        "import riff.apps.cli\nriff.apps.cli.main(['walk', 'jazz', '-o', 'x.wav', '--quiet'])",
        "import riff.apps.cli\nriff.apps.cli.main(['render', 'missing.yaml', '-o', 'x.wav', '--quiet'])",
        "import riff.music.theory, riff.utils.files, riff.tasks.timeline, riff.spectrogram.tempo; riff.spectrogram.tempo.TempoMap.constant(90.0)",  # noqa: E501
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
    with pytest.raises(AttributeError, match="RiffPipelin"):
        _ = riff.RiffPipelin
