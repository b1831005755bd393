"""The server's log: one JSON object per line, told by request id, with nothing of what people asked for."""

import json
import logging
import time
import traceback
import warnings
from typing import Any, TextIO

LOGGER = logging.getLogger("riff.server")


class JsonLines(logging.Formatter):
    """One line per record; newlines from outside are escaped, so nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        return json.dumps(line, default=str)


def note(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one event with its fields."""
    LOGGER.log(level, event, extra={"fields": fields})


def note_defect(error: BaseException, **fields: Any) -> None:
    """Write where an unexpected exception came from. Its text stays out: it may quote a prompt."""
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in _frames(error)]
    note("defect", level=logging.ERROR, kind=type(error).__name__, at=places[-6:], **fields)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _note_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    place = filename.replace("\\", "/").rpartition("/")[2]
    note("warning", level=logging.WARNING, kind=category.__name__, at=f"{place}:{lineno}")


def start_log(target: TextIO) -> None:
    """Send the server's events, and uvicorn's warnings, to ``target``."""
    # Riff's warnings quote prompts, so only where they arose is told.
    warnings.showwarning = _note_warning
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonLines())
    for name, level in (("riff.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
