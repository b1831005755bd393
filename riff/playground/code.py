"""What was asked for, as Python and as a shell command, to be copied."""

import dataclasses
import json
import shlex
from typing import Any


@dataclasses.dataclass(frozen=True)
class Source:
    """What makes the music, as it was asked for.

    Attributes:
        model: as ``from_pretrained`` takes it; None is riff-mini.
        loras: file or folder and weight of each LoRA on top.
    """

    model: str | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def python(self) -> str:
        """The lines that load it."""
        model = "" if self.model is None else _python(self.model)
        lines = [f"pipe = RiffPipeline.from_pretrained({model})"]
        lines += [f"pipe.load_lora({_python(path)}, weight={weight})" for path, weight in self.loras]
        return "\n".join(lines) + "\n"

    def shell(self) -> list[str]:
        """The options that load it."""
        words = [] if self.model is None else ["--model", self.model]
        # With its weight always, since a colon in a file's name would else be taken for one.
        return words + [word for path, weight in self.loras for word in ("--lora", f"{path}:{weight}")]


def python_code(call: str, arguments: dict[str, Any], *, source: Source, result: str = "") -> str:
    """A script that makes a clip again.

    Args:
        call: of the pipeline: "" is a plain clip, else "walk", "remix", ...
        arguments: by name; those that are None are left out, the first is given by place.
        source: what it is made with.
        result: of the call that is the clip, such as ``.clips[0]``.
    """
    given = [(name, value) for name, value in arguments.items() if value is not None]
    words = [_python(value) if index == 0 else f"{name}={_python(value)}" for index, (name, value) in enumerate(given)]
    line = f"clip = pipe{'.' if call else ''}{call}({', '.join(words)}){result}"
    if len(line) > 88:
        body = "".join(f"    {word},\n" for word in words)
        line = f"clip = pipe{'.' if call else ''}{call}(\n{body}){result}"
    return f'from riff import RiffPipeline\n\n{source.python()}{line}\nclip.save("clip.wav")\n'


def shell_code(verb: str, words: list[str], options: dict[str, Any], *, source: Source) -> str:
    """The command that makes a clip again.

    Args:
        verb: of ``riff``.
        words: prompts and files.
        options: with their dashes; None and False are left out, True is the option alone, a tuple several words.
        source: what it is made with.
    """
    line = ["riff", verb, *words]
    for option, value in options.items():
        if value is None or value is False:
            continue
        line.append(option)
        if value is not True:
            line += [_shell(each) for each in (value if isinstance(value, tuple) else (value,))]
    return shlex.join([*line, *source.shell(), "-o", "clip.wav"]) + "\n"


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _shell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)
