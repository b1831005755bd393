"""What several tabs have: controls for a request's fields, buttons, and the request as code to copy."""

import json
import secrets
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from riff.apps.playground.stage import Stage
from riff.music.theory import KEYS
from riff.tasks.requests import RenderRequest, Sampling, request_from
from riff.utils.pages import render
from riff.utils.schema import FieldInfo, as_dict, describe_fields, parse_text, shell_words

PRIVATE: dict[str, Any] = {"queue": False, "api_visibility": "private"}
AUTO = "auto"


class RequestForm:
    """Controls for the fields of a request; ranges, defaults and help are those of the fields.

    Args:
        stage: what the page works with.
        tab: where the controls are; their ids begin with it.
        start: the request with which they begin.
        skip: fields that the tab fills in another way.
    """

    def __init__(self, stage: Stage, tab: str, start: Sampling, *, skip: Sequence[str] = ()) -> None:
        self.stage, self.tab, self.start, self.skip = stage, tab, start, set(skip)
        self.fields = {field.name: field for field in describe_fields(type(start))}
        self.controls: dict[str, Any] = {}

    @property
    def inputs(self) -> list[Any]:
        """The controls, for an event."""
        return list(self.controls.values())

    def add(self, name: str, **look: Any) -> Any:
        """The control of one field.

        Args:
            name: of the field.
            look: what differs from the usual: label, info, lines, ...
        """
        field, value = self.fields[name], getattr(self.start, name)
        if name == "guidance_scale" and value is None:
            value = self.stage.pipe.model.default_guidance
        label = (field.flag[2:] or name).replace("-", " ").replace("_", " ").capitalize()
        info = field.option.help[:1].upper() + field.option.help[1:]
        look = {"label": label, "info": info, "min_width": 140, "elem_id": f"{self.tab}-{name}"} | look
        self.controls[name] = _control(field, value, look)
        return self.controls[name]

    def add_seed(self) -> None:
        """The seed, random where it is empty, and a button that rolls one."""
        with gr.Row(elem_classes="riff-row"):
            seed = self.add("seed", info=None, placeholder="random", scale=4)
            dice = gr.Button("Roll", elem_classes="riff-dice", elem_id=f"{self.tab}-dice", min_width=80, scale=1)
        dice.click(lambda: str(roll()), None, seed, **PRIVATE)

    def add_rest(self) -> None:
        """All other fields, folded away."""
        rest = [
            name
            for name, field in self.fields.items()
            if name not in self.controls and name not in self.skip and field.flag and not field.required
        ]
        with gr.Accordion("More settings", open=False, elem_classes="riff-rest"), gr.Row():
            for name in rest:
                self.add(name, min_width=200)

    def read(self, values: Sequence[Any], **more: Any) -> Any:
        """The request.

        Args:
            values: of the controls.
            more: fields that have none.

        Raises:
            RiffError: a value is out of its range.
        """
        given: dict[str, Any] = {}
        for name, value in zip(self.controls, values, strict=True):
            value = read_value(self.fields[name], value)
            usual = self.stage.pipe.model.default_guidance if name == "guidance_scale" else None
            if value is not None and value != usual:
                given[name] = value
        if "prompt" in self.fields:
            given.setdefault("prompt", "")
        if "seed" in self.controls:
            given.setdefault("seed", roll())
        return request_from(type(self.start), given | more)


def roll() -> int:
    """A seed that is easy to read out."""
    return secrets.randbelow(1_000_000)


def _control(field: FieldInfo, value: Any, look: dict[str, Any]) -> Any:
    if field.name == "key":
        return gr.Dropdown([AUTO, *KEYS], value=value or AUTO, **look)
    if field.choices:
        return gr.Dropdown([AUTO] * field.optional + list(field.choices), value=value or AUTO, **look)
    if field.kind is bool:
        return gr.Checkbox(value, **look)
    if field.option.slider is not None and value is not None:
        low, high, step = field.option.slider
        return gr.Slider(low, high, value, step=step, **look)
    if field.kind is not str and value is not None:
        return gr.Number(value, precision=0 if field.kind is int else None, **look)
    if field.kind is str:
        return gr.Textbox(value or "", **look)
    # A number that may be left out is text, since Gradio's number fields are never empty.
    number: dict[str, Any] = {"placeholder": AUTO, "max_lines": 1}
    return gr.Textbox("", **number | look)


def read_value(field: FieldInfo, value: Any) -> Any:
    """What a control holds as the field takes it; None where it is empty."""
    if isinstance(value, str):
        value = value.strip()
        return parse_text(value, field) if value and value != AUTO else None
    if field.kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def slider_range(name: str) -> tuple[float, float, float]:
    """Lowest, highest and step of the usual slider of a clip's field."""
    option = next(field.option for field in describe_fields(RenderRequest) if field.name == name)
    assert option.slider is not None
    return option.slider


def columns() -> tuple[gr.Column, gr.Column, gr.Column]:
    """What is requested, what comes of it, and the settings: side by side, or one below the other on a phone."""
    with gr.Row(elem_classes="riff-work", equal_height=False):
        ask, out, more = (gr.Column(elem_classes=f"riff-{name}", min_width=0) for name in ("ask", "out", "more"))
    return ask, out, more


def chips(texts: Sequence[str], target: gr.Textbox, tab: str) -> None:
    """Buttons that put a text into a field."""
    with gr.Row(elem_classes="riff-chips", elem_id=f"{tab}-chips"):
        for text in texts:
            gr.Button(text, size="sm").click(lambda text=text: text, None, target, **PRIVATE)


def buttons(text: str, tab: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The one that begins, the one that stops, and how far the work is."""
    with gr.Row(elem_classes="riff-go"):
        go = gr.Button(text, variant="primary", size="lg", elem_id=f"{tab}-go", scale=3, min_width=140)
        stop = gr.Button("Stop", size="lg", elem_id=f"{tab}-stop", scale=1, min_width=80)
    return go, stop, gr.HTML("", elem_classes="riff-status", elem_id=f"{tab}-status", padding=False)


def empty(hint: str) -> str:
    """What stands where nothing has been made yet."""
    return render("apps/playground/templates/empty.html", hint=hint)


def start(
    stage: Stage,
    events: Sequence[Any],
    work: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    stop: gr.Button,
) -> None:
    """Let events begin a piece of work, whose status is the first output, and a button stop it."""
    gr.on(
        events, work, list(inputs), list(outputs), show_progress="hidden", concurrency_limit=1,
        concurrency_id="model", trigger_mode="once", api_visibility="private",
    )  # fmt: skip
    stop.click(stage.stop, None, None, **PRIVATE)


def python_code(stage: Stage, method: str, request: Sampling, *, audio: str | None = None) -> str:
    """A script that makes a clip again.

    Args:
        stage: says what the model is loaded from.
        method: of the pipeline: "" is a plain clip, else "walk", "remix", ...
        request: whose fields are printed, without those that have their default.
        audio: name of the recording that it is made of.
    """
    given = as_dict(request)
    required = [field.name for field in describe_fields(type(request)) if field.required]
    words = ([] if audio is None else [_python(audio)]) + [_python(given.pop(name)) for name in required]
    words += [f"{name}={_python(value)}" for name, value in given.items()]
    call, result = f"pipe.{method}" if method else "pipe", "" if method else ".clips[0]"
    line = f"clip = {call}({', '.join(words)}){result}"
    if len(line) > 88:
        body = "".join(f"    {word},\n" for word in words)
        line = f"clip = {call}(\n{body}){result}"
    return f'from riff import RiffPipeline\n\n{python_loading(stage)}{line}\nclip.save("clip.wav")\n'


def python_loading(stage: Stage) -> str:
    """The lines that load the model."""
    lines = [f"pipe = RiffPipeline.from_pretrained({'' if stage.model is None else _python(stage.model)})"]
    lines += [f"pipe.load_lora({_python(path)}, weight={weight})" for path, weight in stage.loras]
    return "\n".join(lines) + "\n"


def shell_code(stage: Stage, verb: str, words: Sequence[str], request: Sampling, *, more: Sequence[str] = ()) -> str:
    """The command that makes a clip again.

    Args:
        stage: says what the model is loaded from.
        verb: of ``riff``.
        words: prompts and files.
        request: whose fields become options, without those that have their default.
        more: other options.
    """
    loading = [] if stage.model is None else ["--model", stage.model]
    # With its weight always: a colon in a file's name would otherwise be taken for one.
    loading += [word for path, weight in stage.loras for word in ("--lora", f"{path}:{weight}")]
    return shlex.join(["riff", verb, *words, *shell_words(request), *more, *loading, "-o", "clip.wav"]) + "\n"


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
