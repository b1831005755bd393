"""The signs in a prompt: brackets that weigh, and AND that composes."""

import pytest
from conftest import growth

from riff.prompt.syntax import (
    Clause,
    append_text,
    clause_weights,
    parse_prompt,
    parse_weights,
    plain_prompt,
    strip_weights,
)
from riff.utils.errors import RiffError


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", ()),
        ("piano", (("piano", 1.0),)),
        ("(piano)", (("piano", 1.1),)),
        ("piano (solo)", (("piano ", 1.0), ("solo", 1.1))),
        ("((piano))", (("piano", 1.21),)),
        ("[piano]", (("piano", round(1 / 1.1, 6)),)),
        ("([piano])", (("piano", 1.0),)),
        ("(piano:1.3)", (("piano", 1.3),)),
        ("(piano: 1.3 )", (("piano", 1.3),)),
        ("(piano:.5)", (("piano", 0.5),)),
        ("(piano:0)", (("piano", 0.0),)),
        ("(piano:10)", (("piano", 10.0),)),
        ("((piano:2) bass:3)", (("piano", 6.0), (" bass", 3.0))),
        ("((piano):1.5)", (("piano", 1.65),)),
        ("[(piano:1.1)] bass", (("piano bass", 1.0),)),
        ("a (b [c] d) e", (("a ", 1.0), ("b ", 1.1), ("c", 1.0), (" d", 1.1), (" e", 1.0))),
        ("()", ()),
        (r"piano \(solo\)", (("piano (solo)", 1.0),)),
        (r"\[a\] \\ \q", (("[a] \\ \\q", 1.0),)),
        (r"(a\):2)", (("a)", 2.0),)),
        (r"\\(a)", (("\\", 1.0), ("a", 1.1))),
        ("(tempo: slow)", (("tempo: slow", 1.1),)),
        ("(played in 4/4)", (("played in 4/4", 1.1),)),
        ("piano:1.3", (("piano:1.3", 1.0),)),
        ("rock and roll", (("rock and roll", 1.0),)),
        ("BRAND ANDROID", (("BRAND ANDROID", 1.0),)),
    ],
)
def test_brackets_weigh_what_is_in_them(text, pieces):
    assert parse_weights(text) == pieces


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("piano (solo", r"prompt opens '\(solo' at character 6 and never closes it; close it, or write \\\( for"),
        ("[piano", r"opens '\[piano' at character 0 .* write \\\["),
        ("piano) solo", r"has '\)' at character 5 that nothing opens; .* write \\\)"),
        ("([piano)]", r"has '\)' at character 7 while '\[piano\)\]' is still open"),
        ("((piano)", "opens '\\(\\(piano\\)' at character 0"),
        ("(piano:11)", "has the weight '11' at character 9; use a number from 0 to 10"),
        ("(piano:-1)", "has the weight '-1'"),
        ("(piano:1.2.3)", "has the weight '1.2.3'"),
        ("(piano:1,3)", "has the weight '1,3'"),
        ("(piano:nan)", "has the weight 'nan'"),
        ("(piano:1e999)", "has the weight '1e999'"),
        ("(piano:inf)", "has the weight 'inf'"),
        ("[piano:0.5]", r"gives \[...\] the weight '0.5' at character 10; write \(words:0.5\)"),
        ("(((piano:4):4):1)", "brackets that give 'piano' a weight of 16; use at most 10"),
        ("jazz AND piano", "prompt joins prompts with AND, which only what is to be played can; use commas"),
    ],
)
def test_wrong_brackets_are_one_line_with_their_place(text, message):
    with pytest.raises(RiffError, match=message) as caught:
        parse_weights(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("jazz", [("jazz", 1.0)]),
        ("jazz:0.5", [("jazz:0.5", 1.0)]),
        ("jazz AND techno", [("jazz", 1.0), ("techno", 1.0)]),
        ("church bells AND deep techno bass:0.7", [("church bells", 1.0), ("deep techno bass", 0.7)]),
        ("jazz :2 AND\n techno: -0.5 ", [("jazz", 2.0), ("techno", -0.5)]),
        ("jazz AND (drums:2):0 AND bass", [("jazz", 1.0), ("drums", 0.0), ("bass", 1.0)]),
        (r"jazz AND \(drums\)", [("jazz", 1.0), ("(drums)", 1.0)]),
    ],
)
def test_and_joins_prompts_that_may_have_a_weight(text, clauses):
    assert [(clause.text, clause.weight) for clause in parse_prompt(text)] == clauses


def test_prompts_of_a_composition_have_weighted_words():
    first, second = parse_prompt("(mellow) piano AND the (drums:1.5):0.5")
    assert first == Clause((("mellow", 1.1), (" piano", 1.0)), 1.0)
    assert second == Clause((("the ", 1.0), ("drums", 1.5)), 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AND", "joins nothing with AND"),
        ("jazz AND ", "joins nothing with AND; put a prompt before and after it"),
        ("jazz AND () AND bass", "joins nothing"),
        ("(jazz AND techno)", "has AND inside brackets at character 6"),
        ("jazz AND techno:6", "gives one of its prompts the weight '6'; use a number from -5 to 5"),
        ("jazz AND techno:nan", "the weight 'nan'"),
        ("jazz:-1 AND techno:0", "none of its prompts a weight above 0"),
        (" AND ".join("abcdefghi"), "joins 9 prompts with AND; use at most 8"),
    ],
)
def test_a_wrong_composition_is_one_line(text, message):
    with pytest.raises(RiffError, match=message) as caught:
        parse_prompt(text)
    assert "\n" not in str(caught.value)


def test_shares_sum_to_one_over_what_is_played():
    assert clause_weights(parse_prompt("a")) == (1.0,)
    assert clause_weights(parse_prompt("a AND b:3")) == (0.25, 0.75)
    assert clause_weights(parse_prompt("a:2 AND b:-1 AND c:2")) == (0.5, -0.25, 0.5)


def test_the_plain_prompt_is_what_is_to_be_played():
    assert plain_prompt("(slow:1.4) jazz, [90 bpm]") == "slow jazz, 90 bpm"
    assert plain_prompt("jazz AND techno, 140 bpm:-1 AND bells") == "jazz, bells"


def test_text_that_follows_has_weight_one():
    assert append_text((("a", 1.0),), ", b") == (("a, b", 1.0),)
    assert append_text((("a", 2.0),), ", b") == (("a", 2.0), (", b", 1.0))
    assert append_text((("a", 2.0),), "") == (("a", 2.0),)
    assert strip_weights(append_text((), "b")) == "b"


@pytest.mark.parametrize(
    "begins, again, middle, closes",
    [
        ("", "(", "", ")"),
        ("", "[", "a", "]"),
        ("", "(", "a", ")"),
        ("", "(", "", ""),
        ("", ")", "", ""),
        ("", "(a)", "", ""),
        ("", "(a:2)", "", ""),
        ("", ":", "()", ""),
        ("(", "1", ":)", ""),
        ("(a:", "1", "x)", ""),
        ("", r"\(", "", ""),
        ("", "a AND ", "b", ""),
        ("", "a", "", ""),
        ("", " ", "", ""),
    ],
)
def test_reading_cost_grows_with_the_signs(begins, again, middle, closes):
    def read(signs: int) -> None:
        times = signs // len(again + closes)
        try:
            parse_prompt(begins + again * times + middle + closes * times)
        except RiffError as error:
            assert len(str(error)) < 250

    assert growth(read, 10_000) < 30  # 10; the square would be 100
