"""What every tab works with: the model, the shelf, and the one way in which work is followed, stopped and reported."""

import dataclasses
import html
from collections.abc import Callable, Iterator

import gradio as gr

from riff.clip import Clip
from riff.diffusion import StepCallback
from riff.errors import RiffError
from riff.pipeline import RiffPipeline
from riff.playground.code import Source
from riff.playground.shelf import Shelf
from riff.playground.work import Part, Progress, Stopped, Works, human

EMPTY = '<div class="riff-empty"><span>{}</span></div>'


@dataclasses.dataclass(frozen=True)
class Stage:
    """One page's model and clips.

    Attributes:
        pipe: what makes music.
        source: what the pipeline was loaded from.
        shelf: the clips that were made.
        works: what is being made.
        parts: what is heard of a walk or of endless music while it is made.
    """

    pipe: RiffPipeline
    source: Source
    shelf: Shelf
    works: Works
    parts: Shelf

    def perform(
        self,
        session: str,
        make: Callable[[StepCallback], Iterator[Clip]],
        show: Callable[[Clip, str, tuple[str, ...]], str],
    ) -> Iterator[tuple[object, object, object]]:
        """Make clips and tell a tab about it.

        Args:
            session: whose work it is.
            make: what makes them.
            show: from a clip, its id and what was warned of, what the page shows.

        Yields:
            Status, result and the clip's id, each for its component.

        Raises:
            gr.Error: the one line that says what is wrong.
        """
        kept = gr.skip()
        notes: tuple[str, ...] = ()
        yield bar(Progress(0, 0)), kept, kept
        try:
            for found in self.works.run(session, make):
                if isinstance(found, Part):
                    name = self.shelf.put(found.value)
                    yield kept, show(found.value, name, notes), name
                else:
                    notes = found.notes
                    yield bar(found), kept, kept
            yield "", kept, kept
        except Stopped:
            yield '<p class="riff-progress" role="status">Stopped.</p>', kept, kept
        except Exception as error:
            yield problem(error), kept, kept
            raise failure(error) from error

    def stop(self, request: gr.Request) -> None:
        """Stop what is done for a session."""
        self.works.stop(str(request.session_hash))


def failure(error: BaseException) -> gr.Error:
    """What Gradio shows of an error; a traceback only where it is a defect."""
    return gr.Error(html.escape(human(error)), duration=8, title="That did not work",
                    print_exception=not isinstance(error, RiffError))  # fmt: skip


def problem(error: BaseException) -> str:
    """An error as one line of the page."""
    return f'<p class="riff-error" role="alert">{html.escape(human(error))}</p>'


def bar(progress: Progress) -> str:
    """How far it is, and when it will be done."""
    share = progress.done / progress.total if progress.total else 0.0
    if 0.0 < share < 1.0:
        said = f"Drawing: step {progress.done} of {progress.total}"
        if progress.left is not None:
            said += f", about {max(1, round(progress.left))} s left"
    else:
        said = "Turning the picture into sound" if share else "Getting ready"
    busy = "" if 0.0 < share < 1.0 else " busy"
    width = f' style="width:{100 * share:.0f}%"' if not busy else ""
    return (
        f'<div class="riff-progress{busy}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{said}"><div><i{width}></i></div><span>{said}</span></div>'
    )
