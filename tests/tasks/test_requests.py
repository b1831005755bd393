"""One request per task: rules between fields, and what the doors derive from it."""

import argparse
import dataclasses
import json
import typing
from typing import Any

import pydantic
import pytest

from riff.apps.cli.options import add_options, make_request
from riff.tasks import requests
from riff.tasks.requests import (
    EditOptions,
    EditRequest,
    ExtendRequest,
    InpaintOptions,
    InpaintRequest,
    InterpolateOptions,
    InterpolateRequest,
    RemixOptions,
    RemixRequest,
    RenderRequest,
    Sampling,
    SamplingOptions,
    StreamRequest,
    TimelineRequest,
    WalkOptions,
    WalkRequest,
    request_from,
)
from riff.utils.errors import RiffError
from riff.utils.schema import as_dict, describe_fields

TASKS = (RenderRequest, WalkRequest, TimelineRequest, RemixRequest, ExtendRequest, InpaintRequest, InterpolateRequest,
         StreamRequest)  # fmt: skip
LEAST = {
    WalkRequest: {"prompts": ["jazz", "techno"]},
    InterpolateRequest: {"prompts": ["jazz", "techno"], "alpha": 0.5},
    TimelineRequest: {"timeline": {"bars": 4, "keyframes": [{"bar": 0, "prompt": "jazz"}]}},
}


def least(task: Any) -> dict[str, Any]:
    """The required fields."""
    return LEAST.get(task, {"prompt": "jazz"})


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        (RenderRequest, {"prompt": " "}, "the prompt is empty"),
        (RenderRequest, {"prompt": "(jazz:1.2"}, ""),
        (RenderRequest, {"negative_prompt": "(jazz"}, ""),
        (RenderRequest, {"bars": 4, "duration": 5.0}, "bars is 4 and duration 5.0; give one of them"),
        (RenderRequest, {"key": "H minor"}, "key is 'H minor'; use a note"),
        (RenderRequest, {"key_tries": 3}, "key_tries is 3 without a key"),
        (RenderRequest, {"prompt": "jazz, 1000 bpm"}, "the prompt's tempo is 1000"),
        (RenderRequest, {"time_signature": "5/4"}, "time_signature is '5/4'; use 3/4 or 4/4"),
        (RenderRequest, {"quality": "bst"}, "quality is 'bst'; use fast, default"),
        (RenderRequest, {"seed": 2**63}, f"seed is {2**63}; use a whole number from 0 to {2**63 - 1}"),
        (WalkRequest, {"prompts": ["jazz"]}, "prompts has 1 value; use 2"),
        (WalkRequest, {"bpm": [90.0, 100.0, 110.0]}, "bpm has 3 values for 2 prompts; give one, or one for each"),
        (WalkRequest, {"seeds": [1]}, "seeds has 1 values for 2 prompts"),
        (WalkRequest, {"bars": 16, "bars_per_step": 8}, "bars is 16 and bars_per_step 8; give one of them"),
        (WalkRequest, {"easing": "step"}, "easing is 'step'; use linear or smooth"),
        (RemixRequest, {"strength": 1.1}, "strength is 1.1; use a number from 0 to 1"),
        (ExtendRequest, {"bars": 513}, "bars is 513"),
        (InterpolateRequest, {"prompts": ["a", "b", "c"]}, "prompts has 3 values; use exactly 2"),
        (StreamRequest, {"prompt": "jazz, 5 bpm"}, "the prompt's tempo is 5"),
    ],
)
def test_a_wrong_request_is_one_line(task: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RiffError) as caught:
        task(**{**least(task), **fields})
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_stated_tempo_out_of_range_may_be_overruled() -> None:
    assert RenderRequest(prompt="jazz, 1000 bpm", bpm=100).bpm == 100


def test_a_key_is_spelled_with_sharps() -> None:
    assert RenderRequest(prompt="jazz", key="Bbm").key == "A# minor"
    assert WalkRequest(prompts=["a", "b"], key=["Bbm", None]).key == ["A# minor", None]


@pytest.mark.parametrize(
    ("old", "new", "value"), [("keyscale", "key", "C major"), ("timesignature", "time_signature", "3/4")]
)
def test_names_of_the_last_release_warn(old: str, new: str, value: str) -> None:
    with pytest.warns(FutureWarning, match=f"{old} is now {new}"):
        assert getattr(request_from(RenderRequest, {"prompt": "jazz", old: value}), new) == value


@pytest.mark.parametrize("task", TASKS)
def test_a_request_goes_through_json_unchanged(task: Any) -> None:
    request = task(**least(task), seed=7, guidance_scale=2.5)
    assert request_from(task, json.loads(json.dumps(as_dict(request)))) == request


@pytest.mark.parametrize("task", TASKS)
def test_requests_cannot_be_changed(task: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        task(**least(task)).seed = 5


@pytest.mark.parametrize("task", TASKS)
def test_every_field_has_one_line_of_help(task: Any) -> None:
    for field in describe_fields(task):
        assert 3 < len(field.option.help) < 120 and not field.option.help.endswith("."), field.name


@pytest.mark.parametrize("task", TASKS)
def test_pydantic_reads_the_same_ranges(task: Any) -> None:
    adapter = pydantic.TypeAdapter(task)
    schema = adapter.json_schema()
    assert set(schema["properties"]) == {field.name for field in describe_fields(task)}
    assert schema["additionalProperties"] is False
    for field in describe_fields(task):
        shown = schema["properties"][field.name]
        numbers = [shown, *shown.get("anyOf", [])]
        if field.kind in (int, float) and field.low is not None:
            assert any((part.get("minimum"), part.get("maximum")) == (field.low, field.high) for part in numbers)
        assert any("description" in part for part in numbers)
    assert adapter.validate_json(json.dumps(least(task))) == task(**least(task))
    for wrong in ({"num_inference_steps": 0}, {"seed": "5"}, {"guidance_scale": True}, {"promt": "x"}):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_json(json.dumps({**least(task), **wrong}))


def test_pydantic_reports_the_rules_between_fields() -> None:
    with pytest.raises(pydantic.ValidationError, match="give one of them"):
        pydantic.TypeAdapter(RenderRequest).validate_json('{"prompt": "jazz", "bars": 4, "duration": 5}')


@pytest.mark.parametrize("task", [RenderRequest, WalkRequest, RemixRequest, ExtendRequest, InpaintRequest])
def test_the_shell_has_an_option_for_each_field(task: Any) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, task)
    assert make_request(task, parser.parse_args([]), **least(task)) == task(**least(task))
    shown = parser.format_help()
    for field in describe_fields(task):
        if field.flag and not field.required:
            assert f"{field.flag} " in shown or f"{field.flag}]" in shown
    words = ["--seed", "7", "--steps", "9", "--guidance", "2.5", "--quality", "fast", "--negative", "drums"]
    request = make_request(task, parser.parse_args(words), **least(task))
    assert (request.seed, request.num_inference_steps, request.guidance_scale) == (7, 9, 2.5)
    assert (request.quality, request.negative_prompt) == ("fast", "drums")


@pytest.mark.parametrize(
    "words", [["--bars", "0"], ["--bpm", "nan"], ["--bars", "2", "--duration", "1"], ["--seed", "1.5"]]
)
def test_the_shell_refuses_what_python_refuses(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, RenderRequest)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert capsys.readouterr().err


def test_the_shells_old_spelling_works_with_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, RenderRequest)
    assert parser.parse_args(["--time-signature", "3/4"]).time_signature == "3/4"
    assert not recwarn.list
    with pytest.warns(UserWarning, match="--time is now --time-signature"):
        assert parser.parse_args(["--time", "3/4"]).time_signature == "3/4"


@pytest.mark.parametrize(
    ("task", "options", "own"),
    [
        (Sampling, SamplingOptions, set()),
        (WalkRequest, WalkOptions, {"prompts", "seeds", "seed"}),
        (EditRequest, EditOptions, {"prompt"}),
        (RemixRequest, RemixOptions, {"prompt"}),
        (InpaintRequest, InpaintOptions, {"prompt"}),
        (InterpolateRequest, InterpolateOptions, {"prompts", "alpha", "seed"}),
    ],
)
def test_keywords_of_the_methods_are_the_fields(
    task: Any, options: Any, own: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {field.name: field.hint for field in describe_fields(task)}
    keywords = set(options.__annotations__) - {"callback_on_step_end", "progress", "sample_rate", "separator", "mask"}
    assert keywords == set(fields) - own
    monkeypatch.setattr(requests, "StepCallback", Any, raising=False)
    for name in ("Separator", "Path", "Tensor"):
        monkeypatch.setattr(requests, name, Any, raising=False)
    typed = typing.get_type_hints(options)
    plain = typing.get_type_hints(task)
    for name in keywords:
        assert typed[name] == plain[name], name
