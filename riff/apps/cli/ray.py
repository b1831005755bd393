"""``riff render --prompts --engine ray``: each process of a Ray cluster loads the model once, this one writes the files."""

import argparse
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riff.apps.cli.generate import ListJob, Made, describe, generate, load_pipeline
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_bytes


def render_on_cluster(jobs: list[ListJob], args: argparse.Namespace) -> Iterator[tuple[ListJob, Made]]:
    """Generate and save every clip.

    Args:
        jobs: what is generated.
        args: the command's options.

    Yields:
        A job and its result's facts, or what went wrong, in the order in which they are done.

    Raises:
        ModelError: the model cannot be loaded.
        SystemProblem: there is no cluster, or the disk is full.
    """
    import torch
    from tqdm import tqdm

    from riff.utils.cluster import connected, gpus, map_on_cluster

    options = {name: getattr(args, name) for name in _LOADED}
    with connected(args.address, workers=args.workers):
        gpu = args.device not in ("cpu", "mps") and gpus() > 0
        threads = torch.get_num_threads()
        renderer = functools.partial(Renderer, _with_whole_paths(options), threads)
        found = map_on_cluster(renderer, jobs, workers=args.workers, gpu=gpu, threads=threads)
        with tqdm(total=len(jobs), unit="clip", leave=False, disable=args.quiet or None, dynamic_ncols=True) as bar:
            for number, result in found:
                yield jobs[number], _saved(jobs[number], result, args)
                bar.update()


# The options that a worker needs: those of load_pipeline, and how a clip is saved.
_LOADED = ("model", "device", "scheduler", "guidance_interval", "lora", "compile", "no_metadata")


class Renderer:
    """What a worker does: loads the model once, then generates clips.

    Args:
        options: those of ``_LOADED``.
        threads: as many as this machine would use, since a sum's last bits depend on their number.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, options: dict[str, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._metadata = not options["no_metadata"]
        self._pipe = load_pipeline(argparse.Namespace(**options))

    def __call__(self, job: ListJob) -> tuple[dict[str, Any], bytes]:
        """A clip's facts and the bytes of its file."""
        clip = generate(self._pipe, job.request, None)
        with tempfile.TemporaryDirectory(prefix="riff-") as folder:
            path = Path(folder) / f"clip{job.output.suffix}"
            clip.save(path, overwrite=True, metadata=self._metadata)
            return describe(clip, job.output), path.read_bytes()


def _saved(job: ListJob, result: Any, args: argparse.Namespace) -> Made:
    """The facts of a clip once it is on the disk."""
    if isinstance(result, BaseException):
        return result
    facts, content = result
    try:
        write_bytes(job.output, content, force=args.force)
    except SystemProblem:
        raise
    except RiffError as error:
        return error
    return dict(facts)


def _with_whole_paths(options: dict[str, Any]) -> dict[str, Any]:
    """Paths that mean the same in a worker's folder."""
    model = options["model"]
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())
    return options | {
        "model": model,
        "lora": [(str(Path(path).absolute()), weight) for path, weight in options["lora"]],
    }
