"""What was asked for, as Python and as a shell command, to be copied."""

import json
import shlex
from typing import Any


def python_code(call: str, arguments: dict[str, Any], *, model: str | None, result: str = "") -> str:
    """A script that makes a clip again.

    Args:
        call: of the pipeline: "" is a plain clip, else "walk", "remix", ...
        arguments: by name; those that are None are left out, the first is given by place.
        model: as ``from_pretrained`` takes it; None is riff-mini.
        result: of the call that is the clip, such as ``.clips[0]``.
    """
    given = [(name, value) for name, value in arguments.items() if value is not None]
    words = [_python(value) if index == 0 else f"{name}={_python(value)}" for index, (name, value) in enumerate(given)]
    line = f"clip = pipe{'.' if call else ''}{call}({', '.join(words)}){result}"
    if len(line) > 88:
        body = "".join(f"    {word},\n" for word in words)
        line = f"clip = pipe{'.' if call else ''}{call}(\n{body}){result}"
    source = "" if model is None else _python(model)
    head = f"from riff import RiffPipeline\n\npipe = RiffPipeline.from_pretrained({source})\n"
    return f'{head}{line}\nclip.save("clip.wav")\n'


def shell_code(verb: str, words: list[str], options: dict[str, Any], *, model: str | None) -> str:
    """The command that makes a clip again.

    Args:
        verb: of ``riff``.
        words: prompts and files.
        options: with their dashes; None and False are left out, True is the option alone, a tuple several words.
        model: as ``--model`` takes it; None is riff-mini.
    """
    line = ["riff", verb, *words]
    for option, value in {**options, "--model": model, "-o": "clip.wav"}.items():
        if value is None or value is False:
            continue
        line.append(option)
        if value is not True:
            line += [_shell(each) for each in (value if isinstance(value, tuple) else (value,))]
    return shlex.join(line) + "\n"


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _shell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)
