"""Openings that sentences give, the form they go into, and what is asked of a sentence that is to answer."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.sdg import simple
from scripts.sdg.answers import not_said
from scripts.sdg.checks import Coverage, Standing
from scripts.sdg.question_form import schema_for
from scripts.sdg.sdg import judge_pairs
from scripts.sdg.statements import contexts, statements, told_of
from tests.sdg.conftest import configuration, finished


@pytest.mark.parametrize(
    ("sentence", "opening"),
    [
        ("The density of freon is about four times that of air.", "What is the density of freon"),
        ("Attribute grammars are an extension of plain grammars.", "What are Attribute grammars"),
        ("Stall flutter was caused by a large angle of attack.", "What was Stall flutter caused by"),
        ("It was found that the feed rate depends on the boiler pressure.", "What does the feed rate depend on"),
        ("However, the feed rate decreases with rising pressure .", "How does the feed rate decrease"),
        ("The feed rates were measured by weighing the water.", "How were the feed rates measured"),
        ("The feed rates have been measured by weighing the water.", "How have the feed rates been measured"),
        ("The wing load can be predicted through use of strip theory.", "How can the wing load be predicted"),
        ("The wing load was deduced from pressure readings.", "How was the wing load deduced"),
        (
            "Green's function technique is used to solve the wave problem.",
            "What is Green's function technique used for",
        ),
        ("The buckling load is shown to be insensitive to dents.", "What is the buckling load shown to be"),
        ("The elastic core is needed because the shell buckles early.", "Why is the elastic core needed"),
        ("The elastic core has a large effect on the shell.", "What effect does the elastic core have on the shell"),
        ("Tail surfaces had no influence, as was found.", "What influence did Tail surfaces have"),
        ("Condensation on the plate occurs when its surface is cold.", "When does condensation on the plate occur"),
        ("The steady creep rate showed a large scatter in all runs.", "What did the steady creep rate show"),
        (
            "It is possible to extend laminar flow by suction through slots.",
            "How is it possible to extend laminar flow",
        ),
        (
            "At low speed, the drag coefficient is a weak function of bluntness.",
            "What is the drag coefficient at low speed",
        ),
        ("Tests took two days, but the wing flutter is due to the soft spar.", "What is the wing flutter due to"),
    ],
)
def test_what_a_sentence_says_is_asked_for(sentence: str, opening: str) -> None:
    (found,) = statements(sentence)
    assert found.opening == opening
    assert found.sentence == sentence
    assert found.answer.strip() in re.sub(r" ([.,])", r"\1", sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "The stability of thin shells is investigated in this report.",
        "It is about four times that of air at the same pressure.",
        "These large values are due to the heat of the plate.",
        "The method is based on the momentum equation of the layer.",
        "The wing load is predicted by this method in all of the cases.",
        "The stress is compared with the results obtained by other methods.",
        "The wing load, the lift, and the measured drag depend on speed.",
        "The heat problem of the plate is the topic of this note.",
        "The problem of whether a grammar is a member of a class is hard.",
        "The boundary layer profile is the boundary layer profile.",
        'The "wing load" is a function of the speed of the plane.',
        "Die Dichte von Freon is the same und ist nicht mit der von Luft zu messen.",
        "The flight of the body is the subject of treatment by theory.",
        "Better signals are obtained for a wave masked by the noise.",
        "High temperatures have been measured in shocks through nitrogen.",
        "The cooling method is similar to that described in reference 3.",
        "A short account is given of solutions in terms of Mathieu functions.",
        "Feed the pump.",
    ],
)
def test_of_other_sentences_no_opening_is_made(sentence: str) -> None:
    assert statements(sentence) == []


def test_code_is_no_statement() -> None:
    code = "```\nThe block size is a power of two here.\n```\n\n"
    assert [found.opening for found in statements(code + "The page size is a power of two here.")] == [
        "What is the page size"
    ]


def test_a_heading_is_no_part_of_the_sentence_below() -> None:
    text = "Notes\n-----\nThe data matrix is a product of two factors here."
    assert [found.opening for found in statements(text)] == ["What is the data matrix"]


@given(
    st.text(alphabet=st.sampled_from("the wing load is are by using because that, .;:()'\"\n\\-3aé中"), max_size=400)
)
def test_any_text_can_be_read(text: str) -> None:
    for found in statements(text):
        assert found.sentence in " ".join(text.split())
        assert not set(found.opening) & set('"\\\n')
        assert found.opening.split()[0] in ("What", "How", "Why", "When")
        pattern = schema_for(text, [(found.opening, (), False)])["properties"]["question_1"]["pattern"]
        assert re.fullmatch(pattern, f"{found.opening}?")


def test_a_title_says_what_an_opening_is_about() -> None:
    title = "a note on creep buckling of steel columns under load ."
    assert contexts(title, "How does the critical time change") == [
        "creep buckling",
        "creep buckling of steel columns",
        "steel columns",
        "steel columns under load",
        "load",
    ]
    # what is asked for is not said again
    assert contexts(title, "What is the load of columns") == ["creep buckling"]
    assert contexts("", "What is the load") == contexts('on "creep"', "What is the load") == []


def test_one_word_with_an_article_needs_the_title() -> None:
    text = (
        "The kernel is a function of two vectors. Precision is the share of right answers. "
        "The method is a joke of theirs."
    )
    assert [(found.opening, found.bare) for found in statements(text)] == [
        ("What is the kernel", True),
        ("What is precision", False),
    ]
    assert [found.opening for found in told_of(text, "")] == ["What is precision"]
    assert [found.opening for found in told_of(text, "pumps.Press")] == ["What is the kernel", "What is precision"]
    pattern = schema_for(text, [("What is the kernel", ["Press"], True)])["properties"]["question_1"]["pattern"]
    assert re.fullmatch(pattern, "What is the kernel of Press?") and not re.fullmatch(pattern, "What is the kernel?")


def test_the_form_has_the_openings_of_the_passage_first() -> None:
    opening = "What is the yield (at 3 K) of a/b"
    form = schema_for("The pump is checked by the crew.", [(opening, ["steel columns", "C++"], False)])["properties"]
    first, second, third = (form[f"question_{number}"]["pattern"] for number in (1, 2, 3))
    for end in ("", " of steel columns", " for C++"):
        assert re.fullmatch(first, f"{opening}{end}?")
    for end in (" of the weather", " steel columns", " of the steel columns"):
        assert not re.fullmatch(first, f"{opening}{end}?")
    assert (second, third) == tuple(
        schema_for("The pump is checked by the crew.")["properties"][f"question_{number}"]["pattern"]
        for number in (2, 3)
    )
    assert len(schema_for("It is a pump.", [(opening, [], False)] * 5)["properties"]) == 3


SAYS = "Pump wear is a function of its speed."
SILENT = "We thank the crew of the boat for all the work."


def chunks(*texts: str) -> list[dict[str, Any]]:
    return [{"chunk_id": number, "text": text} for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("texts", "wanted", "taken"),
    [
        ((SILENT, SAYS, SILENT, SILENT), 6, [2, 4]),
        ((SILENT, SILENT, SILENT, SAYS), 6, [2, 4]),
        ((SILENT, SILENT, SILENT), 3, [2]),
        ((SAYS, SILENT), 60, [1, 2]),
        ((), 6, []),
    ],
)
def test_segments_that_say_something_are_asked_about(texts: tuple[str, ...], wanted: int, taken: list[int]) -> None:
    found = simple.chosen(chunks(*texts), "", wanted)
    assert [chunk["chunk_id"] for chunk, _ in found] == taken
    assert all(bool(said) == (chunk["text"] == SAYS) for chunk, said in found)


def test_a_question_with_the_opening_of_a_statement_has_its_answer() -> None:
    said = statements(SAYS)
    pair = simple._pair("What is Pump wear of steel?", 1, said, 0.0)
    assert (pair["query_type"], pair["answer"]) == ("statement", SAYS)
    pair = simple._pair("What is Pump wear of steel?", 1, said, 1.0)
    assert (pair["query_type"], pair["answer"], pair["question"]) == ("keyword", SAYS, "Pump wear steel")
    pair = simple._pair("What is the age of the pump?", 1, said, 0.0)
    assert (pair["query_type"], pair["answer"]) == ("contextual", "")


def test_the_title_is_shown_where_the_segment_lacks_it() -> None:
    assert "Passage:\nOn pumps\n\nThey wear." in simple.messages("They wear.", "On pumps")[-1]["content"]
    assert "Passage:\nOn  pumps\n\nThey wear." in simple.messages("On  pumps\n\nThey wear.", "On pumps")[-1]["content"]


TITLE = "feed pumps for steam boilers"
SEGMENT = (
    f"{TITLE}\n\nThe crew counted six leaks of the valve while the boiler was cold. The bearing wears by friction. "
    "Oil cools the shaft. The valve closes more slowly than the gate differing in size. The spring of 9 turns is "
    "stiff. An economizer is a heat exchanger. The drain of the boiler is treated at length."
)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("How many leaks of the valve were counted?", None),
        ("How many springs does the crew have?", "speaks of all"),
        ("How many turns of the gate close the valve?", "speaks of all"),
        ("How many crew counted the leaks of the valve?", "a number"),
        ("How does friction of the bearing cool the shaft?", "speaks of all"),
        ("How does the bearing wear?", None),
        ("How does oil cool the shaft?", "does not say"),
        ("How does the valve differ from the gate?", None),
        ("What is the difference between the leaks and the valve?", "does not say"),
        ("What are feed pumps for steam boilers?", "does not say"),
        ("How do feed pumps for steam boilers work?", "title"),
        ("How did the crew give the valve six leaks?", "does not say"),
        ("What is an economizer?", None),
        ("What is the drain of the boiler?", "does not say"),
        ("When is it possible to cool the shaft?", "does not say"),
        ("Wie viele Lecks hat das Ventil?", None),
    ],
)
def test_one_sentence_answers(question: str, reason: str | None) -> None:
    found = not_said(question, TITLE, SEGMENT, Coverage([SEGMENT, "other text", "another one"]))
    assert found is None if reason is None else reason in (found or "")


def test_what_the_title_names_may_be_defined() -> None:
    coverage = Coverage([SEGMENT, "other text"])
    assert not_said("What is an economizer?", "the economizer", "It is hot.", coverage)
    assert not_said("What is an economizer?", "the economizer", "An economizer is a heat exchanger.", coverage) is None


def test_statements_may_end_with_a_preposition_and_are_answered_by_construction() -> None:
    record = finished()[0]
    text = "The outer flow field is characterized by a layer. It is discussed in a note of the crew on wind."
    record["title"] = ""
    record["chunks"] = [{**record["chunks"][0], "text": text}]
    first = record["qa_generation"]["pairs"][0]
    asked = {**first, "question": "What is the outer flow field characterized by?", "segment_ids": [1]}
    record["qa_generation"]["pairs"] = [{**asked, "query_type": "statement"}, asked]
    options = {**configuration(Path("x"), "http://127.0.0.1:9/v1")["sdg"], "question_checks": True}
    reasons = judge_pairs(record, [Standing(1)] * 2, set(), lambda _: None, Coverage([text, "other"]), options)
    assert reasons == [None, "cut off"]
