"""What a client is told when something fails: one human line that holds no path, no prompt and no traceback."""

import re
from collections.abc import Iterable

from riff.errors import ModelError, RiffError, SystemProblem

_QUOTED = re.compile(r"'(?P<a>[^']*)'|\"(?P<b>[^\"]*)\"")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"]+){2,}[/\\]?")
_LONGEST = 400
_SHORT = 12  # riff's own examples hold words as short as this


class Refusal(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: one line for the client.
        headers: to send with it, such as Retry-After.
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}


def human(message: str, secrets: Iterable[str] = ()) -> str:
    """A message for a client: one line, without paths and without quotations from ``secrets``, the prompts."""
    texts = [text for text in secrets if text]

    def hide(found: re.Match[str]) -> str:
        quoted = (found["a"] if found["a"] is not None else found["b"]).rstrip(".…")
        said = len(quoted) > 1 and any(quoted in text or (len(text) > _SHORT and text in quoted) for text in texts)
        return "'…'" if said else found[0]

    line = " ".join(_PATH.sub("(a file)", _QUOTED.sub(hide, message)).split())
    for text in texts:
        if len(text) > _SHORT:
            line = line.replace(text, "…")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def refusal(error: BaseException, secrets: Iterable[str] = ()) -> Refusal | None:
    """How an exception of riff's or the machine's is answered; None is a defect, of which nothing is told."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ModelError):
        return Refusal(500, "the model could not draw this; try another seed or guidance_scale")
    if isinstance(error, SystemProblem):
        return Refusal(503, "the server is short of disk space or memory; try again later", retry_after=30)
    if isinstance(error, RiffError):
        return Refusal(422, human(str(error), secrets))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Refusal(503, "there is not enough memory for this request; ask for less at once", retry_after=5)
    if isinstance(error, OSError):
        return Refusal(503, "the server has a problem with its disk; try again later", retry_after=30)
    return None
