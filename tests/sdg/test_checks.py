"""Checks without a model, pairs without a model, and what the report says of both."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from scripts.common.files import read_json, write_jsonl
from scripts.common.redaction import redacted
from scripts.eval.gathered import json_lines
from scripts.sdg import simple
from scripts.sdg.answers import missing, numbers, only_announces, says_too_little
from scripts.sdg.checks import AMBIGUOUS, TOO_EASY, Coverage, Standing, marks, repeated_across, standing_of
from scripts.sdg.chunk import make_record
from scripts.sdg.documents import Document
from scripts.sdg.filters import content_words, fault, normal_form
from scripts.sdg.headings import code_blocks, headings, tables
from scripts.sdg.llm_free import llm_free_pairs
from scripts.sdg.llm_free_extra import extra_pairs
from scripts.sdg.mixing import limit_llm_free
from scripts.sdg.question_form import is_english, schema_for
from scripts.sdg.report import check_records, draw, summary, write_provenance
from scripts.sdg.sdg import evaluation, judge_pairs, keep_pairs
from scripts.sdg.simple import read_questions
from tests.sdg.conftest import configuration, finished, records

PASSAGES = [
    "The boundary layer of a flat plate grows with the square root of the distance.",
    "Wing flutter is measured.",
]


def test_a_question_about_other_things_is_not_covered() -> None:
    coverage = Coverage(PASSAGES)
    assert coverage("How does the boundary layer grow on a flat plate?", PASSAGES[0]) > 0.9
    assert coverage("What is the capital of France in the boundary war?", PASSAGES[0]) < 0.5
    assert coverage("what is it", PASSAGES[0]) == 0


def test_rare_words_weigh_more() -> None:
    coverage = Coverage(["common alpha", "common beta", "common gamma", "common delta"])
    assert coverage("common alpha", "common") < 0.5 < coverage("common alpha", "alpha")


def test_marks() -> None:
    assert marks(Standing(1, 0.3, 0), 1.0) == [TOO_EASY]
    assert marks(Standing(1, 0.01, 7), 1.0) == [AMBIGUOUS]
    assert marks(Standing(1, 0.3, 0), 0.5) == []
    assert standing_of(np.array([0.9, 0.5, 0.95, 0.89]), [0]) == Standing(2, pytest.approx(-0.05), 2)
    assert standing_of(np.array([0.9]), [0]).rank == 1


def test_repetitions_across_documents_are_found_and_those_within_one_are_not() -> None:
    vectors = {"a": [1, 0], "b": [0.999, 0.0447], "c": [0, 1]}
    found = repeated_across(
        [(1, "a"), (1, "b"), (2, "b"), (2, "c"), (3, "unknown")],
        lambda text: np.array(vectors[text], np.float32) if text in vectors else None,
        0.95,
    )
    assert found == {2}


def test_repetitions_are_found_over_blocks_as_within_one() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(1500, 16)).astype(np.float32)
    vectors[1400], vectors[700] = vectors[3], vectors[650]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = repeated_across([(n, str(n)) for n in range(1500)], lambda text: vectors[int(text)], 0.999)
    assert found == {700, 1400}


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What does this passage say about wings?", "speaks of the prompt"),
        ("What is the flutter of the?", "cut off"),
        ("Wing flutter is measured?", "copied"),
        ("What is the difference between wing and flutter?", "asks for a difference that its passage does not make"),
        ("When does it apply to wing flutter?", "names no subject"),
        ("How did the flutter in question 1 arise?", "speaks of the prompt"),
        ("What tax applies to imported cheese wheels?", "shares no word with its passage"),
        ("Can you give an example of wing flutter?", "speaks of the prompt"),
        ("Which of the following is wing flutter?", "speaks of the prompt"),
        ("How does wing flutter affect the flutter of a wing?", "repeats itself"),
        ("What is wing flutter has been measured before?", "malformed"),
        ("Which is wing flutter in a wing tunnel?", "malformed"),
    ],
)
def test_faults(question: str, reason: str) -> None:
    assert fault(question, PASSAGES[1]) == reason


PASSAGE = (
    "Two pumps of type Zeta 90 feed the boiler since 1987. They are used to keep the pressure at four bar, because a "
    "lower one would let the turbine stall. The largest gain over the old piston pump is a quiet run."
)


@pytest.mark.parametrize(
    "question",
    [
        "How many pumps feed the boiler?",
        "What are the 2 pumps that feed the boiler?",
        "What is the purpose of the pumps?",
        "Why is the pressure kept at 4 bar?",
        "When were the Zeta pumps put in?",
        "What is the main advantage of Zeta 90 over a piston pump?",
        "What is the greatest pressure at the boiler?",
        "What is the largest gain of the new pump?",
        "Does the interest rate of the pump count?",
        "What is the impact of the pumps on the turbine?",
        "What is the gain over the old piston pump?",
        "Wozu dienen die Pumpen am Kessel?",
    ],
)
def test_what_a_passage_says_may_be_asked_for(question: str) -> None:
    assert missing(question, PASSAGE) is None


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("What are the three pumps of the boiler?", "number"),
        ("How long does a type 95 pump last?", "number"),
        ("How does the Siemens pump feed the boiler?", "name"),
        ("How do the pumps feed the boiler, and what is their price?", "two things"),
        ("What is the fastest pump of the boiler?", "what its passage does not say"),
        ("What is the most expensive pump?", "what its passage does not say"),
        ("What is the best pump for the boiler?", "what its passage does not say"),
        ("What is the equation for the pressure at the boiler?", "what its passage does not say"),
        ("What are the disadvantages of the pumps?", "what its passage does not say"),
    ],
)
def test_what_a_passage_lacks_is_noticed(question: str, reason: str) -> None:
    assert reason in missing(question, PASSAGE)


def test_purposes_and_reasons_leave_traces() -> None:
    assert missing("Why do the pumps stall?", "The pumps stall at noon.")
    assert missing("What is the purpose of the pumps?", "The pumps stall at noon.")
    assert missing("How many pumps stall?", "The pumps stall at noon.")


@pytest.mark.parametrize(
    ("question", "answered", "unanswered"),
    [
        ("How does heat affect the pumps?", "Heat raises their pressure.", "Tests with heat took two days."),
        ("What is the effect of heat on pumps?", "It has little effect.", "Tests with heat took two days."),
        ("How does a pump work?", "It operates with two valves.", "A pump is the subject of this note."),
        ("How was the pump measured?", "The pump was measured with a gauge.", "A pump was measured in Rome."),
    ],
)
def test_effects_and_ways_leave_traces_behind_the_heading(question: str, answered: str, unanswered: str) -> None:
    # a heading says nothing of its subject
    heading = "The use of pumps and the effect of heat, which increases\n\n"
    assert missing(question, heading + answered) is None
    assert "does not say" in missing(question, heading + unanswered)


def test_a_heading_is_no_answer_and_a_finding_is_no_promise() -> None:
    coverage = Coverage(["other text", "another one"])
    question = "What is the lift of wings?"
    assert only_announces(question, "The lift of wings\n\nThe lift of these wings was obtained in tests.", coverage)
    found = "The lift of wings\n\nThe lift of these wings was measured and found to be small."
    assert not only_announces(question, found, coverage)


def test_a_segment_says_more_than_the_question() -> None:
    assert says_too_little("What is the effect of sweep on wings?", "The effect of sweep on wings is discussed.")
    assert not says_too_little("How many pumps feed the boiler?", PASSAGE)


ABSTRACT = (
    "A relaxed schedule of the feed pumps. The choice of the schedule is discussed. Valves are closed in pairs, so "
    "that the boiler keeps its pressure while one of them leaks. This paper describes tests with hot water. The load "
    "of the pumps is given by their speed. The lift of the valves is derived and compared."
)


@pytest.mark.parametrize(
    ("question", "promised"),
    [
        ("How does the choice of a schedule help?", True),
        ("What are tests with hot water?", True),
        ("How is the load of the pumps given?", False),
        ("What is the lift of the valves?", True),
        ("How many tests with hot water are there?", False),
        ("How are valves closed?", False),
        ("Why does the boiler keep its pressure?", False),
        ("What is the purpose of the choice of a schedule?", False),
        ("Is the choice of a schedule discussed?", False),
    ],
)
def test_the_promise_of_an_answer_is_none(question: str, promised: bool) -> None:
    assert only_announces(question, ABSTRACT, Coverage([ABSTRACT, "other text"])) is promised


def test_words_of_identifiers_count() -> None:
    coverage = Coverage(["block_size sets the rows", "other text"])
    assert coverage("What is the block size?", "block_size sets the rows") == 1
    assert coverage("What is block_size?", "the size of a block") == 0


def test_a_question_that_fills_the_grammar_was_cut_and_politeness_is_taken_off() -> None:
    def pair(text: str) -> dict:
        return simple._pair(text, 1, [], 0.0)

    assert "cut_off" not in pair("What is " + "a" * 100 + "?")
    assert pair("Wie " + "ab " * 45 + "ab?")["cut_off"]
    assert pair("What " + "ab " * 46 + "ab?")["cut_off"]
    questions, _ = read_questions(json.dumps({"q": "Can you explain how  a pump works?", "r": "2. Can a pump stall?"}))
    assert questions == ["How a pump works?", "Can a pump stall?"]


@pytest.mark.parametrize(("share", "kept"), [(1, 30), (0.5, 10), (0.75, 30), (0.2, 2), (0, 0)])
def test_pairs_without_a_model_have_at_most_their_share(share: float, kept: int) -> None:
    def document(number: int) -> dict:
        made = [{"question": f"m{number}", "query_type": "contextual"}]
        made += [{"question": f"f{number}-{n}", "query_type": "cloze", "llm_free": True} for n in range(3)]
        return {"source_id": f"{number}.txt", "qa_generation": {"pairs": made}}

    documents = [document(number) for number in range(10)]
    reasons: list[list[str | None]] = [[None] * 4 for _ in documents]
    limit_llm_free(documents, reasons, share)
    assert [row[0] for row in reasons] == [None] * 10
    assert sum(reason is None for row in reasons for reason in row[1:]) == kept
    if share == 0.5:
        # from many documents, not the first few
        assert sum(any(reason is None for reason in row[1:]) for row in reasons) > 5


def test_keywords_may_be_short_and_copied() -> None:
    assert fault("wing flutter", PASSAGES[1], keywords=True) is None
    assert fault("wing flutter", PASSAGES[1]) == "too short"


MARKDOWN = """# Pump manual

Intro text of the pump.

## Replacing the seal

The seal is a ring of rubber between rotor and housing. Close `valve_main` first and set --max-pressure to zero. Then
open the four bolts of the housing and pull the rotor out of it slowly, without turning it in any direction.

```python
# not a heading
x = 1
```

Options
-------

| name | value |
|------|-------|
| a    | # b   |
"""


def test_headings_are_found_outside_of_code_and_tables() -> None:
    assert [heading.text for heading in headings(MARKDOWN, "pump.md")] == [
        "Pump manual",
        "Replacing the seal",
        "Options",
    ]
    assert MARKDOWN[slice(*code_blocks(MARKDOWN)[0])].startswith("```python")
    assert MARKDOWN[slice(*code_blocks(MARKDOWN)[0])].endswith("```")
    assert MARKDOWN[slice(*tables(MARKDOWN)[0])].count("\n") == 2


def test_comments_of_a_script_are_no_headings() -> None:
    assert headings("#!/bin/sh\n# a comment\nls\n# more\n", "run.txt") == []


def test_extra_pairs_ask_for_headings_terms_and_names() -> None:
    options = {"sentences_per_chunk": 5, "num_sections": 1, "bundle_strategy": "sequential"}
    record = make_record([Document("pump.md", MARKDOWN)], options, lambda text: len(text) < 2000)
    pairs = {pair["query_type"]: pair for pair in extra_pairs(record, 3, training_only=True)}
    assert pairs["heading"]["question"] == "Replacing the seal"
    assert "Replacing the seal" not in pairs["heading"]["passage"]
    assert pairs["definition"]["question"] == "what is seal"
    assert pairs["identifier"]["question"] in {"valve_main", "--max-pressure"}
    assert all(pair["training_only"] for pair in pairs.values())
    asked = extra_pairs(record, 3, training_only=False)
    assert not any("passage" in pair or "training_only" in pair for pair in asked)
    assert len(extra_pairs(record, 1, training_only=True)) == 1
    assert extra_pairs(record, 0, training_only=True) == []


def test_pairs_without_a_model_in_scripts_without_spaces() -> None:
    options = {"sentences_per_chunk": 4, "num_sections": 1, "bundle_strategy": "sequential"}
    text = (
        "泵的密封\n\n离心泵通过叶轮的旋转来输送液体介质。机械密封可以防止泵轴处的液体泄漏出来。"
        "密封件每隔三年必须更换一次才能安全。"
    )
    record = make_record([Document("pump.txt", text)], options, lambda text: len(text) < 2000)
    pairs = llm_free_pairs(record, 3)
    assert [pair["query_type"] for pair in pairs] == ["title", "cloze", "cloze"]
    assert pairs[0]["question"] == "泵的密封"


def test_no_code_and_no_table_is_a_query() -> None:
    options = {"sentences_per_chunk": 9, "num_sections": 1, "bundle_strategy": "sequential"}
    code = "```bash\npip install the pump tools for the whole plant now.\nrun them all twice a day please.\n```"
    table = "| pump | the time at which it runs |\n|---|---|\n| first one | at noon and at night. Always so |"
    words = "The pump feeds the boiler of the plant with water. It is stopped at night when nobody needs the heat."
    record = make_record([Document("p.md", f"{words}\n\n{code}\n\n{table}\n")], options, lambda text: len(text) < 2000)
    found = [pair["question"] for pair in llm_free_pairs(record, 9) if pair["query_type"] == "cloze"]
    assert sorted(found) == sorted(words.replace(". It", ".|It").split("|"))


def test_whole_questions_of_a_cut_reply_are_kept() -> None:
    cut = '{"question_1": "What is \\"x\\"?", "question_2": "How does'
    assert read_questions(cut) == (['What is "x"?'], ["the reply is no JSON"])
    assert read_questions('["a"]')[0] == []


@pytest.mark.parametrize(
    "reply",
    [
        "1. What is a pump?\n2. How does it run?\n",
        'Sure! Here are two:\n\n1) **What is a pump?**\n2) "How does it run?"\n\nWould you like more?',
        "- What is a pump?\n- How does it run?",
        "Question 1: What is a pump?\nQuestion 2: How does it run?",
        "<think>Is it a pump?</think>What is a pump?\nHow does it run?\nThat is all.",
        '{"questions": ["What is a pump?", "How does it run?"]}',
        '[{"question": "What is a pump?", "answer": "A machine."}, {"question": "How does it run?"}]',
        'Here:\n```json\n{"question_1": "What is a pump?", "question_2": "How does it run?"}\n```',
    ],
)
def test_questions_are_found_in_replies_that_no_schema_held(reply: str) -> None:
    assert read_questions(reply) == (["What is a pump?", "How does it run?"], [])


@pytest.mark.parametrize("reply", ["[" * 5000, "[" * 900 + "]" * 900, '{"a": ' * 900 + "1" + "}" * 900])
def test_a_reply_as_deep_as_can_be_holds_no_question(reply: str) -> None:
    assert read_questions(reply)[0] == []


def test_half_a_surrogate_pair_of_a_reply_can_be_written() -> None:
    questions, _ = read_questions('{"question_1": "What is \\ud83d?", "question_2": "What is \\ud83d\\ude00?"}')
    assert questions == ["What is \ufffd?", "What is \U0001f600?"]


# What the model of the embedded default was measured with, and what replies are found by
ENGLISH = r"^What [a-zA-Z0-9 ,'()/_.-]{20,140}\?$"


@pytest.mark.parametrize(
    ("passage", "allowed", "refused"),
    [
        (
            "The pump (unit-3) is checked: daily.",
            ["What does the pump of unit-3 need?"],
            ["Wie wird sie geprüft jeden?"],
        ),
        ("The build of C++ uses --opt=x and a::b of R&D.", ["What does --opt=x do in C++ to a::b?"], []),
        (
            "The café of Ångström is open.",
            ["What is served in the café of Ångström?"],
            ["Was gibt es im Café heute so?"],
        ),
        (
            "Die Pumpe ist für das Öl und wird geprüft.",
            ["Wofür ist die Pumpe für das Öl?"],
            ["Насос для чего нужен?", "Was ist das für eine Pumpe؟"],
        ),
        ("La bomba es de la planta que está en el sur.", ["¿Dónde está la bomba de la planta?"], []),
        ("泵是一种输送液体的机器。", ["泵是什么机器？", "什么机器输送液体?"], ["泵是什么机器"]),
        ("Насос перекачивает воду.", ["Что перекачивает насос?"], []),
        ("पंप पानी को ऊपर ले जाता है।", ["पंप पानी को कहाँ ले जाता है?"], []),
    ],
)
def test_the_form_has_the_letters_and_signs_of_the_passage(passage: str, allowed: list, refused: list) -> None:
    pattern = schema_for(passage)["properties"]["question_1"]["pattern"]
    assert all(re.fullmatch(pattern, question) for question in allowed)
    assert not any(re.fullmatch(pattern, question) for question in refused)
    english = is_english(passage)
    assert english == pattern.startswith("^What")
    assert simple.messages(passage)[-1]["content"].endswith("\n\nWrite three short questions.") is english


def test_the_form_of_plain_english_is_what_was_measured() -> None:
    assert schema_for("The pump (unit-3) is checked: daily.")["properties"]["question_1"]["pattern"] == ENGLISH


def test_report_adds_up(tmp_path: Path) -> None:
    made = finished()
    why = [[None, "asked before", "copied"], [None, "near duplicate", "copied"]]
    report = summary(made, why, [{"source_id": "x"}])
    assert (report["asked"], report["generated"], report["deduplicated"], report["kept"]) == (8, 6, 4, 2)
    assert report["generated"] == report["kept"] + sum(report["dropped_by_reason"].values())
    assert report["failed_documents"] == ["x"]
    draw(report, tmp_path / "figure.svg")
    assert "dropped: asked before" in (tmp_path / "figure.svg").read_text()


def test_the_schema_of_the_record_refuses_what_is_not_one() -> None:
    made = finished()
    for record in made:
        record["generation"].pop("judged")
    check_records(made)
    made[1]["qa_generation"]["pairs"][0]["question_complexity"] = 9
    with pytest.raises(ValueError, match=r"question_complexity: 9 is greater"):
        check_records(made)


def test_provenance_holds_no_secret() -> None:
    config = {
        "llm": {"providers": {"x": {"base_url": "https://u:pw@h/v1?token=t", "api_key_env": "NAME"}}, "api_key": "s"}
    }
    text = json.dumps(redacted(config))
    assert "pw" not in text
    assert "token=t" not in text
    assert '"s"' not in text
    assert "NAME" in text


def test_questions_without_spaces_between_words_are_checked_too() -> None:
    passage = "風洞の壁の境界層は干渉を減らす。"
    question = "風洞の境界層は干渉を減らしますか？"
    coverage = Coverage([passage, "翼のフラッターを測定する。"])
    assert fault(question, passage) is None
    assert coverage(question, passage) > 0.6 > coverage(question, "翼のフラッターを測定する。")


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b"])
def test_where_records_came_from_is_written_whatever_ends_a_line_inside_them(tmp_path: Path, mark: str) -> None:
    made = records(2)
    for record in made:
        record["text"] += mark
        record["deduplicated_qa_pairs"] = [{}]
    write_jsonl(tmp_path / "sdg.jsonl", made)
    config = configuration(tmp_path, "http://127.0.0.1:9/v1")
    write_provenance(tmp_path / "p.json", config=config, inputs=[], records=tmp_path / "sdg.jsonl", usage={})
    assert read_json(tmp_path / "p.json")["counts"] == {"documents": 2, "records": 2, "chunks": 6, "pairs": 2}
    assert json_lines((tmp_path / "sdg.jsonl").read_text(encoding="utf-8")) == made


def test_a_pair_that_the_judge_owes_a_verdict_is_dropped() -> None:
    record = finished()[0]
    pairs = [{**record["qa_generation"]["pairs"][0], "question": f"What is <it>{n}?"} for n in range(4)]
    record["qa_generation"]["pairs"] = [*pairs[:3], {**pairs[3], "llm_free": True}]
    verdict = evaluation(1, None)
    record["generation"]["judged"] = [verdict, None, verdict]
    options = {**configuration(Path("x"), "http://127.0.0.1:9/v1")["sdg"], "question_checks": False}
    standings = [Standing(1)] * 4
    reasons = judge_pairs(record, standings, set(), lambda _: None, Coverage(["text"]), options)
    assert reasons == [None, "not judged", None, None]
    keep_pairs(record, standings, reasons, None)
    assert [pair["question"] for pair in record["deduplicated_qa_pairs"]] == [f"What is <it>{n}?" for n in (0, 2, 3)]
    assert len(record["qa_evaluations"]["evaluations"]) == 3
    record["generation"]["judged"] = None
    assert judge_pairs(record, standings, set(), lambda _: None, Coverage(["text"]), options) == [None] * 4


@pytest.mark.parametrize(
    ("question", "passage", "reason"),
    [
        ("How does the context manager close files?", "Files are closed by the context manager of open.", None),
        ("What rows does the statement DELETE remove?", "Rows go with the statement `DELETE` at once.", None),
        ("What is the text color of a warning?", "Warnings: the text color is red, always.", None),
        ("How wide is a cooling passage of the blade?", "Each cooling passage of the blade is 2 mm wide.", None),
        ("What does paragraph 4 of the law forbid?", "By paragraph 4 the law forbids smoking.", None),
        ("What does the text of the law forbid?", "The text of the law forbids smoking.", "speaks of the prompt"),
        ("What does the paper present on wings?", "The paper presents wings.", "speaks of the prompt"),
        ("What does the document say about wings?", "The document says much about wings.", "speaks of the prompt"),
    ],
)
def test_words_for_the_prompt_may_be_part_of_a_name(question: str, passage: str, reason: str | None) -> None:
    assert fault(question, passage) == reason


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("How long is the warranty of a pump?", "How long is the warranty? Two years."),
        ("What is the price of a spare seal?", "A spare seal is 40 euros without tax."),
        ("What does a relief valve do?", "Relief valve: opens when the pressure passes its limit."),
    ],
)
def test_a_short_passage_may_answer(question: str, passage: str) -> None:
    assert not says_too_little(question, passage)


def test_only_whole_words_are_numbers() -> None:
    assert numbers("A tensor tends to tenants and twofold oneness") == set()
    assert numbers("ten tensors, 5kg and Two") == {"10", "5", "2"}


def test_signs_of_names_and_of_vowels_make_another_question() -> None:
    assert normal_form("What is C++?") != normal_form("What is C#?") != normal_form("What is C?")
    assert normal_form("What is  a PUMP?!") == normal_form("what is a pump")
    assert normal_form("का?") != normal_form("की?")
    assert content_words("पानी कहाँ जाता है।") == ["पानी", "कहाँ", "जाता", "है"]
