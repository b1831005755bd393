"""Prompts drawn on a Ray cluster: each worker loads the model once, this process writes the files."""

import argparse
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.cli.drawing import describe, load_pipeline
from riff.errors import RiffError, SystemProblem
from riff.files import write_bytes

if TYPE_CHECKING:
    from riff.cli.prompts import Job

Made = dict[str, Any] | BaseException


def draw_on_cluster(jobs: list["Job"], args: argparse.Namespace) -> Iterator[tuple["Job", Made]]:
    """Draw and save every clip.

    Args:
        jobs: what is drawn.
        args: the command's options.

    Yields:
        A job and its result's facts, or what went wrong, in the order in which they are done.

    Raises:
        ModelError: the model cannot be loaded.
        SystemProblem: there is no cluster, or the disk is full.
    """
    import torch
    from tqdm import tqdm

    from riff.cluster import connected, gpus, run_on_actors

    args = _with_whole_paths(args)
    with connected(args.address, workers=args.workers):
        gpu = args.device not in ("cpu", "mps") and gpus() > 0
        threads = torch.get_num_threads()
        drawer = functools.partial(Drawer, args, threads)
        found = run_on_actors(drawer, jobs, workers=args.workers, gpu=gpu, threads=threads)
        quiet = True if args.quiet else None
        with tqdm(total=len(jobs), unit="clip", leave=False, disable=quiet, dynamic_ncols=True) as bar:
            for number, result in found:
                yield jobs[number], _saved(jobs[number], result, args)
                bar.update()


class Drawer:
    """What a worker does: loads the model once, then draws.

    Args:
        args: the command's options.
        threads: as many as this machine would draw with, since a sum's last bits depend on their number.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, args: argparse.Namespace, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._args = args
        self._pipe = load_pipeline(args)

    def __call__(self, job: "Job") -> tuple[dict[str, Any], bytes]:
        """A clip's facts and the bytes of its file."""
        from riff.cli.prompts import draw

        clip = draw(self._pipe, job, self._args, None)
        with tempfile.TemporaryDirectory(prefix="riff-") as folder:
            path = Path(folder) / f"clip{job.output.suffix}"
            clip.save(path, metadata=not self._args.no_metadata)
            return describe(clip, job.output), path.read_bytes()


def _saved(job: "Job", result: Any, args: argparse.Namespace) -> Made:
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
    return facts


def _with_whole_paths(args: argparse.Namespace) -> argparse.Namespace:
    """Paths that mean the same in a worker's folder."""
    model = args.model
    if model is not None and Path(model).exists():
        model = str(Path(model).absolute())
    lora = [(str(Path(path).absolute()), weight) for path, weight in args.lora]
    return argparse.Namespace(**{**vars(args), "model": model, "lora": lora})
