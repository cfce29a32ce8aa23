"""Counts, replies good and bad, lookups, and the plan."""

import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.common.errors import UserError
from scripts.common.files import write_jsonl
from scripts.common.llm_traffic import Traffic, estimate_tokens, pause_before, retry_after
from scripts.common.replies import ReplyStore
from scripts.sdg import simple
from scripts.sdg.lookups import as_keywords, is_chosen
from scripts.sdg.plan import plan
from scripts.sdg.prompts import question_messages, type_counts
from scripts.sdg.protocol import (
    DIMENSIONS,
    largest_remainder,
    pair_schema,
    read_artifacts,
    read_evaluations,
    read_json_reply,
    read_pairs,
)
from tests.sdg.conftest import configuration, records

OPTIONS = configuration(Path("x"), "http://127.0.0.1:9/v1")["sdg"]
GOOD = (
    '{"pairs": [{"question": "Q?", "answer": "A", "question_complexity": 3, "query_type": "contextual", '
    '"reasoning_type": "factual", "segment_ids": [1], "hop_contexts": []}]}'
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0.01, 50), min_size=1), st.integers(0, 100))
def test_largest_remainder_sums_and_is_proportional(weights: dict, total: int) -> None:
    counts = largest_remainder(weights, total)
    assert sum(counts.values()) == total
    whole = sum(weights.values())
    assert all(abs(counts[name] - total * weight / whole) < 1 + 1e-6 for name, weight in weights.items())


def test_over_a_corpus_each_type_has_its_share_however_few_pairs_a_document_has() -> None:
    counts = [type_counts([f"document {number}"], 4, 5, OPTIONS) for number in range(120)]
    assert all(sum(queries.values()) == sum(reasoning.values()) == 4 for queries, reasoning in counts)
    totals = {name: sum(reasoning[name] for _, reasoning in counts) for name in counts[0][1]}
    assert "procedural" in totals
    assert all(40 < total < 120 for total in totals.values()), totals


@given(st.text(max_size=80))
def test_no_reply_ends_the_run(content: str) -> None:
    for wrapped in (content, '{"pairs": [' + content, '{"pairs": ' + content + "}", GOOD[: len(content)] + content):
        read_json_reply(wrapped, "pairs")
        read_pairs(wrapped, {1}, OPTIONS)
        read_artifacts(wrapped, 2)
        read_evaluations(wrapped, 2)
        simple.read_questions(wrapped)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("```json\n", "\n```"),
        ('<think>{"pairs": []}</think>', ""),
        ("Sure! ", " Hope that helps."),
        ("reasoning</think>", ""),
    ],
)
def test_pairs_are_found_in_what_surrounds_them(before: str, after: str) -> None:
    pairs, wrong = read_pairs(before + GOOD + after, {1}, OPTIONS)
    assert [pair["question"] for pair in pairs] == ["Q?"]
    assert wrong == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1]", "[-1]", "not there: -1"),
        ("[1]", "[]", "names no segment"),
        ('"question_complexity": 3', '"question_complexity": 1', "below 2"),
        ('"contextual"', '"funny"', "is none of"),
        ('"contextual"', '"multi_hop"', ""),
    ],
)
def test_wrong_pairs_are_named(old: str, new: str, message: str) -> None:
    pairs, wrong = read_pairs(GOOD.replace(old, new), {1}, OPTIONS)
    assert (wrong and message in wrong[0]) or (pairs and not message)


def test_lookups_have_their_share_and_the_rest_is_the_recipes() -> None:
    options = OPTIONS | {"lookup_share": 0.3, "query_counts": None}
    queries, reasoning = type_counts(["text"], 10, 5, options)
    assert queries == {"multi_hop": 3, "structural": 2, "contextual": 2, "keyword": 1, "short": 1, "identifier": 1}
    assert sum(reasoning.values()) == 10
    text = question_messages(["s"], {}, wanted=10, segments=5, documents=1, options=options)[-1]["content"]
    assert "1 of query_type keyword" in text
    assert "keyword" not in str(pair_schema(10, [1, 2], 3, lookups=False))
    assert "keyword" in str(pair_schema(10, [1, 2], 3, lookups=True))
    pairs, _ = read_pairs(GOOD.replace("contextual", "keyword").replace(": 3", ": 1"), {1}, options)
    assert len(pairs) == 1


def test_keywords_of_a_question() -> None:
    assert as_keywords("How does the Reynolds number affect laminar flow?") == "Reynolds number affect laminar flow"
    assert as_keywords("What is it?") is None
    chosen = sum(is_chosen(f"question {n}", 0.3) for n in range(2000))
    assert 500 < chosen < 700


def test_retry_after_as_seconds_and_as_date() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, now=1445412480.0) == 10
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}) == 0
    assert retry_after({}) is None
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None


def test_pauses_grow_and_vary() -> None:
    late = [pause_before(6) for _ in range(200)]
    assert max(late) <= 32
    assert max(late) - min(late) > 10
    assert max(pause_before(0) for _ in range(200)) <= 0.5


def test_the_breaker_counts_failures_in_a_row() -> None:
    traffic = Traffic(2)
    assert [traffic.failed() for _ in range(4)] == [False] * 4
    traffic.succeeded()
    assert not traffic.failed()
    assert not traffic.dead


def test_a_pause_of_minutes_ends_when_the_run_does() -> None:
    traffic, stop = Traffic(2), threading.Event()
    assert traffic.pause_all(600.0) == 600
    threading.Timer(0.05, stop.set).start()
    start = time.monotonic()
    with pytest.raises(UserError, match="stopped"), traffic.slot(stop):
        pass
    assert time.monotonic() - start < 5


def test_pauses_of_a_busy_endpoint_are_shared_and_grow_until_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.common.llm_traffic.BUSY_PAUSE", 0.01)
    traffic = Traffic(2)
    # what was under way with it is refused for the same reason
    assert [traffic.pause_all(None) for _ in range(3)] == [0.01] * 3
    time.sleep(0.02)
    assert traffic.pause_all(None) == 0.02
    traffic.succeeded()
    time.sleep(0.03)
    assert traffic.pause_all(None) == 0.01


SCORES = {name: {"score": 8} for name in DIMENSIONS}


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({"pair": 1.0}, 8.0),
        ({"pair": "1"}, 8.0),
        ({"relevance": 0, "overall": 0}, 1.0),
        ({"overall": {"score": 0.4}}, 1.0),
        ({"overall": float("nan")}, None),
        ({"pair": "9" * 6000}, None),
    ],
)
def test_odd_verdicts_count_or_are_left_out(change: dict, score: float | None) -> None:
    found, _ = read_evaluations(json.dumps({"evaluations": [{"pair": 1, **SCORES, **change}]}), 2)
    assert (found[0] and found[0]["overall"]["score"]) == score
    assert found[1] is None


def make_plan(tmp_path: Path, embed: tuple[str, str] | None = None, **sections: object) -> dict:
    config = configuration(tmp_path, "https://api.example.com/v1", **sections)
    write_jsonl(tmp_path / "records.jsonl", records(10))
    return plan(
        tmp_path / "records.jsonl",
        tmp_path / "plan.json",
        options=config["sdg"],
        roles=dict.fromkeys(("artifact_extraction", "qa_generation", "quality_judge"), ("test", "m")),
        llm=config["llm"],
        allowed=[],
        parallel=4,
        store=ReplyStore(tmp_path / "replies"),
        embed=embed,
    )


def test_the_plan_has_calls_tokens_minutes_money_and_hosts(tmp_path: Path) -> None:
    made = make_plan(tmp_path, llm__prices={"m": {"prompt": 1.0, "completion": 2.0}})
    assert (made["calls"], made["calls_at_most"], made["questions_asked"]) == (30, 80, 40)
    assert made["cost"] == pytest.approx((made["prompt_tokens"] + 2 * made["completion_tokens"]) / 1e6)
    assert made["tokens_at_most"] > made["prompt_tokens"] + made["completion_tokens"]
    assert made["minutes"] > 0
    (place,) = made["egress"]
    assert place["host"] == "api.example.com"
    assert place["state"].startswith("NOT ALLOWED")
    assert place["bytes"] == made["prompt_bytes_by_provider"]["test"] > 10_000


def test_the_plan_counts_with_the_models_tokenizer_and_measured_speed(tmp_path: Path, tiny_model: Path) -> None:
    rough = make_plan(tmp_path)
    ReplyStore(tmp_path / "replies").put("k", {"model": "m", "content": "", "usage": {}, "seconds": 40.0})
    exact = make_plan(tmp_path, llm__tokenizers={"m": str(tiny_model)})
    assert exact["roles"]["qa_generation"]["tokens_from"] == "by its tokenizer"
    assert exact["prompt_tokens"] != rough["prompt_tokens"]
    assert abs(exact["prompt_tokens"] - rough["prompt_tokens"]) < 0.35 * exact["prompt_tokens"]
    assert exact["minutes"] == pytest.approx(30 * 40 / 4 / 60, rel=0.01)


def test_the_plan_counts_the_vectors_of_the_questions(tmp_path: Path) -> None:
    providers = {"test": {"base_url": "https://api.example.com/v1"}, "elsewhere": {"base_url": "https://e.org/v1"}}
    made = make_plan(tmp_path, embed=("elsewhere", "e"), llm__providers=providers)
    role = made["roles"]["question_embedding"]
    assert (role["model"], role["calls"], role["calls_at_most"], role["completion_tokens"]) == ("e", 1, 1, 0)
    assert role["prompt_tokens"] > 40
    assert [place["state"] for place in made["egress"] if place["host"] == "e.org"] == ["NOT ALLOWED by allow_egress"]


def test_estimate_is_high_for_other_scripts() -> None:
    assert estimate_tokens("abcd" * 10) == 10
    assert estimate_tokens("漢字") == 2


def test_a_reply_within_the_schema_is_read_without_complaint() -> None:
    from jsonschema import Draft202012Validator

    pair = json.loads(GOOD)["pairs"][0] | {"hop_contexts": [{"hop_number": 1, "segment_ids": [1], "summary": "s"}]}
    validator = Draft202012Validator(pair_schema(1, [1], 3, lookups=False))
    assert validator.is_valid({"pairs": [pair]})
    assert not validator.is_valid({"pairs": [pair | {"segment_ids": [-1]}]})
    assert not validator.is_valid({"pairs": [pair | {"segment_ids": [1] * 9}]})
    assert not validator.is_valid({"pairs": [pair, pair]})
    assert read_pairs(json.dumps({"pairs": [pair]}), {1}, OPTIONS)[1] == []
