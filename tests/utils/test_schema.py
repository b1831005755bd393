"""Dataclasses checked by their annotations, and what is derived from them."""

import dataclasses
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from annotated_types import Interval, Len

from riff.utils.errors import RiffError
from riff.utils.schema import (
    FieldError,
    Option,
    Parse,
    UnknownOption,
    allowed,
    as_dict,
    describe_fields,
    from_dict,
    parse_text,
    shell_words,
    validate,
)

Count = Annotated[int, Interval(ge=1, le=16), Option("how many", slider=(1, 8, 1))]
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """A request as short as it can be while it has every kind of field."""

    name: Annotated[str, Len(1, 8), Parse(str.strip), Option("of the dish")]
    count: Count = 2
    share: Share | None = None
    sizes: Annotated[list[Count] | Count | None, Option("one for each", "size")] = None
    extras: Annotated[list[str] | None, Len(1, 3)] = None
    kind: Annotated[Literal["soup", "cake"], Option("what it is")] = "soup"
    hot: Annotated[bool, Option("heat it")] = False

    def __post_init__(self) -> None:
        validate(self)


FIELDS = {field.name: field for field in describe_fields(Order)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count is 0; use a whole number from 1 to 16"),
        ({"count": 17}, "count is 17; use a whole number"),
        ({"count": 2.0}, "count is 2.0; use a whole number"),
        ({"count": "2"}, "count is '2'; use a whole number"),
        ({"count": True}, "count is True; use a whole number"),
        ({"count": None}, "count is None; use a whole number"),
        ({"count": np.True_}, "count is True; use a whole number"),
        ({"count": 10**5000}, "count is a huge int; use a whole number"),
        ({"share": float("nan")}, "share is nan; use a number from 0 to 1"),
        ({"share": float("inf")}, "share is inf"),
        ({"share": False}, "share is False; use a number"),
        ({"share": 1 + 1j}, "share is"),
        ({"share": [0.5]}, "share is"),
        ({"sizes": [1, 99]}, "sizes is 99; use a whole number from 1 to 16"),
        ({"sizes": "12"}, "sizes is '12'"),
        ({"extras": []}, "extras has 0 values; use 1 to 3"),
        ({"extras": "salt"}, "extras is 'salt'; use a list"),
        ({"extras": [1]}, "extras is 1; use text"),
        ({"kind": "pie"}, "kind is 'pie'; use soup or cake"),
        ({"kind": ["soup"]}, "kind is"),
        ({"hot": 1}, "hot is 1; use true or false"),
        ({"hot": "yes"}, "hot is 'yes'; use true or false"),
        ({"name": 5}, "name is 5; use text"),
        ({"name": "x" * 9}, "name has 9 characters; use at most 8"),
        ({"name": "a\ud800"}, "name holds half a surrogate pair at character 1"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as caught:
        Order(**{"name": "x", **fields})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    (name,) = fields
    assert caught.value.field == name


@pytest.mark.parametrize(
    "number", [np.int64(5), np.int32(5), np.uint8(5), np.array(5), torch.tensor(5), 5], ids=lambda n: type(n).__name__
)
def test_whole_numbers_of_any_library_become_pythons(number: Any) -> None:
    order = Order(name="x", count=number, sizes=[number, number])
    assert order.count == 5 and type(order.count) is int
    assert order.sizes == [5, 5] and {type(size) for size in order.sizes} == {int}


@pytest.mark.parametrize(
    "number",
    [np.float32(0.5), np.float64(0.5), np.float16(0.5), torch.tensor(0.5, dtype=torch.float64), Fraction(1, 2)],
)
def test_numbers_of_any_library_become_pythons(number: Any) -> None:
    share = Order(name="x", share=number).share
    assert share == 0.5 and type(share) is float


def test_an_array_is_a_list_of_its_numbers() -> None:
    assert Order(name="x", sizes=np.arange(1, 4)).sizes == [1, 2, 3]


def test_a_parser_gives_the_normal_form() -> None:
    assert Order(name=" x ").name == "x"


def test_a_misspelt_field_names_its_neighbour() -> None:
    with pytest.raises(UnknownOption, match=r"unknown option 'cuont'; did you mean count\?"):
        from_dict(Order, {"name": "x", "cuont": 1})
    with pytest.raises(TypeError):  # as any wrong keyword in Python
        from_dict(Order, {"name": "x", "zzz": 1})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RiffError, match="name is missing; give of the dish"):
        from_dict(Order, {})


@pytest.mark.parametrize("fields", [None, [], "x", 5])
def test_what_is_no_dict_is_one_line(fields: Any) -> None:
    with pytest.raises(RiffError, match="give fields by name"):
        from_dict(Order, fields)


def test_an_old_name_works_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="amount is now count"):
        assert from_dict(Order, {"name": "x", "amount": 3}, old={"amount": "count"}).count == 3
    with pytest.raises(RiffError, match="both are given"):
        from_dict(Order, {"name": "x", "amount": 3, "count": 3}, old={"amount": "count"})


@pytest.mark.parametrize(
    "fields", [{}, {"count": 3}, {"sizes": [1, 2]}, {"hot": True, "kind": "cake"}, {"share": 0.25}]
)
def test_as_dict_and_from_dict_are_inverse(fields: dict[str, Any]) -> None:
    order = Order(name="x", **fields)
    assert as_dict(order) == {"name": "x", **fields}
    assert from_dict(Order, as_dict(order)) == order


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("count", "3", 3),
        ("share", "0.5", 0.5),
        ("share", "1", 1.0),
        ("hot", "True", True),
        ("hot", "false", False),
        ("kind", "cake", "cake"),
        ("extras", "salt, oil", ["salt", "oil"]),
        ("extras", '["salt"]', ["salt"]),
        ("sizes", "3", 3),
        ("sizes", "[1, 2]", [1, 2]),
    ],
)
def test_texts_are_read_by_their_field(field: str, text: str, value: Any) -> None:
    assert parse_text(text, FIELDS[field]) == value


@pytest.mark.parametrize(
    ("field", "text"),
    [("count", "3.5"), ("count", "x"), ("count", "9" * 5000), ("share", "nan"), ("share", "x"), ("hot", "yes"),
     ("kind", "pie"), ("sizes", "[1, 99]"), ("sizes", "[" * 10_000), ("extras", "a,b,c,d")],
)  # fmt: skip
def test_texts_that_are_no_value_are_refused(field: str, text: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_text(text, FIELDS[field])
    assert len(str(caught.value)) < 300


def test_a_field_says_what_controls_need() -> None:
    count, sizes, kind = FIELDS["count"], FIELDS["sizes"], FIELDS["kind"]
    assert (count.low, count.high, count.default, count.option.slider) == (1, 16, 2, (1, 8, 1))
    assert (sizes.kind, sizes.many, sizes.optional, sizes.flag) == (int, True, True, "--size")
    assert (kind.choices, kind.default, allowed(kind)) == (("soup", "cake"), "soup", "soup or cake")
    assert FIELDS["name"].required and not count.required


def test_shell_words_leave_defaults_out() -> None:
    order = Order(name="x", count=3, share=0.5, extras=["a", "b"], hot=True)
    assert shell_words(order) == ["--count", "3", "--share", "0.5", "--extras", "a,b", "--hot"]
    assert shell_words(Order(name="x")) == []
