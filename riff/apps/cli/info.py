"""``riff info``: what a model, an image or a sound file is and how it was made."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import riff
from riff.apps.cli.files import IMAGES
from riff.apps.cli.generate import is_lora_folder, read_run
from riff.apps.cli.options import SOUND_SUFFIXES, add_command
from riff.diffusion.hub import locate
from riff.spectrogram.config import CONFIG_NAME, SpectrogramConfig
from riff.utils.errors import ModelError, RiffError
from riff.utils.files import read_json
from riff.utils.parallel import memory_gib, package_version, processor_name, usable_cores

MAX_LINES = 64  # of one group of facts, and
MAX_LINE = 20_000  # characters of each: more than riff itself writes, but for timelines, which are shown in short
_MARKED = "by a machine; how was left out"


def add_info(verbs: Any) -> None:
    """Add ``riff info``."""
    parser = add_command(
        verbs,
        "info",
        run_info,
        help="show what a model, image or sound is and how it was made",
        description="Show the configuration of a model, or how an image or sound was made and how to make it again.",
    )
    parser.add_argument(
        "target", nargs="?", default="riff-mini", metavar="MODEL|FILE",
        help="a checkpoint's folder or hub id, RUN/model of riff train, an image, a sound file; default riff-mini",
    )  # fmt: skip


def run_info(args: argparse.Namespace) -> None:
    """Print the facts, one per line."""
    facts = _facts(args.target)
    if args.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        fields = list(value.items()) if isinstance(value, dict) else [("", value)]
        for field, content in fields[:MAX_LINES]:
            text = _shorten(field, content) if name == "made" else content
            print(f"{name}{'.' if field else ''}{_line(field)}: {_line(text)}")
        if len(fields) > MAX_LINES:
            print(f"{name}: {len(fields) - MAX_LINES} more; --json shows all")


def _line(content: Any) -> str:
    """Untrusted metadata as one line of limited length, without line breaks and control codes."""
    text = str(content) if str(content).isprintable() else repr(content)
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}... ({len(text) - MAX_LINE} characters more)"


def _facts(target: str) -> dict[str, Any]:
    path = Path(target)
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return _image_facts(path)
    if suffix in SOUND_SUFFIXES or (path.exists() and not path.is_dir() and suffix != ".safetensors"):
        return _sound_facts(path)
    return _lora_facts(path) if is_lora_folder(path) else _model_facts(locate(target, local_files_only=True))


def _shorten(field: str, content: Any) -> Any:
    """A timeline or a tempo map on one line for people; --json has all of it."""
    from riff.spectrogram.tempo import TempoMap
    from riff.tasks.timeline import Timeline

    try:
        if field == "timeline":
            timeline = Timeline.from_dict(json.loads(content))
            length = f"{timeline.bars} bars" if timeline.bars is not None else f"{timeline.seconds:g} s"
            places = " -> ".join(f"{frame.where}: {frame.prompt}" for frame in timeline.keyframes)
            return f"{length}, {places}"
        if field == "tempo":
            tempi = TempoMap.from_dict(content).tempi
            return f"changes, {min(tempi):.4g} to {max(tempi):.4g} bpm"
        if field == "loras":
            loras = json.loads(content)
            return ", ".join(f"{each['name']} at {each['weight']:g} (hash {each['digest'][:16]}...)" for each in loras)
        if field == "regions":
            return ", ".join(f"{start:.4g} s to {end:.4g} s" for start, end in json.loads(content))
        if field == "band":
            return "{:g} Hz to {:g} Hz".format(*json.loads(content))
        if field == "config":
            config = SpectrogramConfig.from_dict(json.loads(content))
            grid = f"{config.frames_per_beat} columns a beat" if config.grid == "beats" else "columns in seconds"
            return f"{config.n_mels} mels up to {config.f_max:g} Hz, {grid}, {config.sample_rate} Hz"
    except (RiffError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        return content  # not as riff writes it
    return content


def _model_facts(path: Path) -> dict[str, Any]:
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    from riff.diffusion.fingerprint import CheckpointOrigin

    return {
        "model": str(path),
        "model_hash": CheckpointOrigin(path).model_hash or "none, since weights are missing",
        "parts": _parts(path) if path.is_dir() else "one file of Stable Diffusion",
        **_files(files, folder),
        "config_from": CONFIG_NAME if (folder / CONFIG_NAME).exists() else f"Riffusion v1's, without {CONFIG_NAME}",
        "config": SpectrogramConfig.load(folder).to_dict(),
        **_run_facts(folder),
    }


def _lora_facts(folder: Path) -> dict[str, Any]:
    """Of a LoRA or a learned word, as ``riff train`` writes them."""
    from riff.diffusion.fingerprint import lora_hash
    from riff.diffusion.lora import find_lora
    from riff.prompt.vocabulary import read_words

    weights, words = find_lora(folder)
    base = read_run(folder).get("pretrained_model_name_or_path")
    return {
        "model": str(folder),
        "parts": " and ".join(["a LoRA"] * bool(weights) + ["learned words"] * bool(words)),
        "base": base or "not recorded here",
        **({} if words is None else {"words": ", ".join(read_words(words))}),
        "lora_hash": lora_hash(folder),
        **_files(sorted(folder.glob("*.safetensors")), folder),
        **_run_facts(folder),
        "use": f'riff render "..." --model {shlex.quote(str(folder))} -o new.wav',
    }


def _files(files: list[Path], folder: Path) -> dict[str, Any]:
    return {
        "weights_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "files": {str(file.relative_to(folder)): f"{file.stat().st_size:,} bytes" for file in files},
    }


def _run_facts(folder: Path) -> dict[str, Any]:
    """How ``riff train`` made the model: the settings that were given or chosen, and what was measured."""
    settings = read_run(folder)
    if not settings:
        return {}
    facts = {"trained": {name: value for name, value in settings.items() if value not in (None, [], "")}}
    try:
        return facts | {"figures": read_json(folder.resolve().parent / "figures.json")}
    except ModelError:  # training has not ended yet
        return facts


def _parts(folder: Path) -> dict[str, str]:
    """The class of each component, as model_index.json lists them."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1]}
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is no checkpoint: it has no model_index.json") from error
    except (OSError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{folder} is no checkpoint: its model_index.json cannot be read ({error})") from error


def _image_facts(path: Path) -> dict[str, Any]:
    from riff.spectrogram.png import read_png

    image, config, made = read_png(path)
    channels, mels, frames = image.shape
    return {
        "image": str(path),
        "channels": channels,
        "mels": mels,
        "frames": frames,
        "made": made if len(made) != 1 or "origin" not in made else _MARKED,
        "config": config.to_dict(),
        **_again(path),
    }


def _sound_facts(path: Path) -> dict[str, Any]:
    from riff.audio.io import read_metadata
    from riff.audio.reader import open_sound
    from riff.tasks.provenance import read_made

    tags = read_metadata(path)
    with open_sound(path) as sound:
        container, codec, rate, channels = sound.container, sound.codec, sound.sample_rate, sound.channels
        frames, faults = sum(map(len, sound.blocks())), sound.faults  # only reading tells whether all of it is there
    made = read_made(path)
    marked = made and "software" not in made
    return {
        "sound": str(path),
        "format": f"{container} {codec}",
        "sample_rate": rate,
        "channels": channels,
        "duration_s": frames / rate,
        **({"damaged": "; ".join(faults)} if faults else {}),
        "made": _MARKED if marked else made or "not by riff, or its metadata was removed",
        **({"tags": tags} if not made else {}),
        **({"source_type": tags["source_type"]} if "source_type" in tags else {}),
        **_again(path),
    }


def _again(path: Path) -> dict[str, str]:
    """The command that makes a file again; nothing where riff cannot."""
    from riff.tasks.provenance import EDITS, read_recipe

    try:
        recipe = read_recipe(path)
    except RiffError:
        return {}
    words = ["riff", "replay", str(path)]
    words += ["--source", "RECORDING"] * (recipe.task in EDITS)
    words += ["--model", recipe.model] * (recipe.model != "riff-mini")
    for adapter in recipe.loras:
        words += ["--lora", adapter.name]
    line = shlex.join(words)
    return {"again": line} if line.isprintable() else {}


# ``riff doctor``: what riff finds on this machine.

PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "librosa", "soundfile", "numpy", "numba")


def add_doctor(verbs: Any) -> None:
    """Add ``riff doctor``."""
    add_command(
        verbs,
        "doctor",
        run_doctor,
        help="show versions, devices, the model and what is missing",
        description="Show what riff finds on this machine: versions, devices, the model, the cache, free disk, and "
        "what each extra lacks. One line each, to be sent with a question or a report.",
    )


def run_doctor(args: argparse.Namespace) -> None:
    """Print the facts, one per line."""
    facts = dict(_facts_doctor())
    if args.json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name}: {value}")


def _facts_doctor() -> Iterator[tuple[str, str]]:
    yield "riff", f"{riff.__version__}, in {Path(riff.__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    versions = {name: package_version(name) for name in PACKAGES}
    yield "packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
    memory = memory_gib()
    yield "processor", f"{processor_name()}, {usable_cores()} cores, {memory or '?'} GiB of memory"
    yield from _devices()
    yield "model", _model()
    yield "cache", _cache()
    yield "disk", ", ".join(f"{_free(Path(place))} free in {place}" for place in (".", tempfile.gettempdir()))
    for extra, missing in _extras():
        yield f"extra {extra}", f"lacks {', '.join(missing)}" if missing else "complete"


def _devices() -> Iterator[tuple[str, str]]:
    """What PyTorch can run on. An installation of it that is broken is a fact too."""
    try:
        import torch
    except Exception as error:
        yield "device", f"none: torch cannot be imported ({str(error).splitlines()[0] if str(error) else error!r})"
        return
    found = ["cpu"]
    if torch.cuda.is_available():
        found = [f"cuda ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())] + found
    if torch.backends.mps.is_available():
        found = ["mps", *found]
    yield "device", f"{', '.join(found)}; the first is taken"
    limits = [f"{name}={value}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if (value := os.environ.get(name))]
    yield "threads", ", ".join([str(torch.get_num_threads()), *limits])


def _model() -> str:
    from riff.diffusion.hub import check_index, locate

    try:
        folder = locate(None)
        check_index(folder)
    except RiffError as error:
        return f"MISSING: {error}"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"riff-mini, {size / 1e6:.0f} MB, in {folder}"


def _cache() -> str:
    """Where downloaded models are, and how many."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    models = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    offline = ", offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
    return f"{models} models in {folder}{offline}"


def _free(place: Path) -> str:
    try:
        return f"{shutil.disk_usage(place).free / 2**30:.1f} GiB"
    except OSError as error:
        return f"unknown ({error.strerror})"


def _extras() -> Iterator[tuple[str, list[str]]]:
    """Each extra of the package, and which of its packages are not installed."""
    try:
        lines = importlib.metadata.requires("riff-music") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        lines = _project_extras()
    extras: dict[str, list[str]] = {}
    for line in lines:
        package, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        if package and extra and extra[1] not in ("test", "docs"):
            missing = extras.setdefault(extra[1], [])
            missing += [package[0]] * (package_version(package[0]) is None)
    yield from sorted(extras.items())


def _project_extras() -> list[str]:
    """The extras of pyproject.toml beside the package, in the form of an installed one."""
    import tomllib

    try:
        text = (Path(riff.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        extras = tomllib.loads(text)["project"]["optional-dependencies"]
    except (OSError, KeyError, ValueError):
        return []
    return [f'{line}; extra == "{name}"' for name, lines in extras.items() for line in lines if ";" not in line]
