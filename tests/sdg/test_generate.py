"""Nothing paid for is lost: faults, kills, edits, budgets, consent."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.common.files import read_jsonl, write_jsonl
from scripts.common.replies import ReplyStore
from scripts.sdg.asking import ask
from scripts.sdg.generate import check_all_egress, generate, open_models
from scripts.sdg.generated import Generated
from scripts.sdg.sampling import shard_of
from scripts.sdg.sdg import check_all_failures
from tests.sdg.conftest import configuration, records

ROOT = Path(__file__).parents[2]
FAULTS = "429,500,hang,drop,html,truncated,malformed,wrong_count,minus_one,empty"


def run(
    work: Path, made: list[dict[str, Any]], config: dict[str, Any], parallel: int = 8, shards: int = 1
) -> list[dict[str, Any]]:
    """Generate in this process; the records of the first shard."""
    write_jsonl(work / "records.jsonl", made)
    models = open_models(config, ReplyStore(work / "replies"), None, parallel)
    generate(
        work / "records.jsonl",
        work / "shard.jsonl",
        shard=0,
        shards=shards,
        options=config["sdg"],
        models=models,
        parallel=parallel,
        ledger=work / "ledger.jsonl",
        max_failed_share=config["sdg"]["max_failed_share"],
    )
    run.usage = models["qa_generation"].usage
    return [record for _, record in read_jsonl(work / "shard.jsonl")]


def ledger(work: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(work / "ledger.jsonl")]


@pytest.mark.slow
def test_fifty_documents_through_every_fault_are_complete_or_in_the_ledger(tmp_path: Path, endpoint: Any) -> None:
    made = records(50)
    with endpoint("--faults", FAULTS, "--share", "0.4") as server:
        config = configuration(tmp_path, server.url, sdg__max_failed_share=1.0)
        done = run(tmp_path, made, config, parallel=16)
        seen = server.log()
    # each fault was met, or this proves little
    assert set(seen["faults"]) == set(FAULTS.split(","))
    # no request came again before the second that Retry-After asked for was over
    assert seen["retry_after_broken"] == 0
    assert [record["source_id"] for record in done] == [record["source_id"] for record in made]
    failed = {row["source_id"] for row in ledger(tmp_path)}
    for record in done:
        pairs = record["qa_generation"]["pairs"]
        complete = len(pairs) == 4 and record["generation"]["judged"] and all(record["generation"]["judged"])
        partly = any("verdict" in text or "of the 4" in text for text in record["generation"]["problems"])
        assert complete or partly or record["source_id"] in failed, record["source_id"]
        assert all(set(pair["segment_ids"]) <= {1, 2, 3} for pair in pairs)
    # unusable replies are kept as they came
    assert any(row["replies"] and row["replies"][0]["content"] is not None for row in ledger(tmp_path))
    assert len(failed) < 25


@pytest.mark.parametrize(
    ("style", "formats", "status"),
    [
        ("full", "json_object,none", 400),
        ("full", "none", 500),
        ("simple", "json_object,none", 422),
        ("simple", "none", 400),
    ],
)
def test_a_server_that_knows_no_schema_is_asked_for_less_and_gives_the_same_pairs(
    tmp_path: Path, endpoint: Any, style: str, formats: str, status: int
) -> None:
    made = records(4)
    pairs = []
    for number, arguments in enumerate([(), ("--formats", formats, "--refusal", str(status))]):
        work = tmp_path / str(number)
        work.mkdir()
        with endpoint(*arguments) as server:
            config = configuration(work, server.url, sdg__style=style, llm__max_retries=0)
            done = run(work, [dict(record) for record in made], config, parallel=2)
            seen = server.log()["formats"]
        pairs.append([[pair["question"] for pair in record["qa_generation"]["pairs"]] for record in done])
        assert ledger(work) == []
    assert pairs[0] == pairs[1]
    assert all(len(questions) == 4 for questions in pairs[0]) or style == "simple"
    # each thread may find out by itself, but no request is refused twice the same way
    assert 1 <= seen["json_schema"] <= 2 * 3
    weakest = formats.split(",", maxsplit=1)[0]
    assert seen[weakest] > seen["json_schema"] or style == "simple"
    assert ("none" in seen) == (weakest == "none")


def test_a_document_that_always_fails_is_named_and_retried_alone(tmp_path: Path, endpoint: Any) -> None:
    made = records(12)
    with endpoint("--poison", "number 5 holds") as server:
        config = configuration(tmp_path, server.url, llm__max_retries=1)
        done = run(tmp_path, made, config)
        assert [row["source_id"] for row in ledger(tmp_path)] == ["unit_005.txt"]
        assert sum(not record["qa_generation"]["pairs"] for record in done) == 1
        before = server.log()["requests"]
    with endpoint() as server:
        run(tmp_path, made, configuration(tmp_path, server.url))
        assert server.log()["requests"] == 3 < before
        assert ledger(tmp_path) == []


def test_too_many_failures_end_the_job_and_name_the_option(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--poison", "of unit 1") as server:
        config = configuration(tmp_path, server.url, llm__max_retries=0)
        with pytest.raises(UserError, match=r"sdg\.max_failed_share"):
            run(tmp_path, records(8), config)
    assert ledger(tmp_path)
    assert not (tmp_path / "shard.jsonl").exists()


def test_one_failure_of_a_small_shard_does_not_end_it_but_too_many_of_all_do(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--poison", "number 6 holds") as server:
        config = configuration(tmp_path, server.url, llm__max_retries=0)
        made = [record for record in records(12) if shard_of(record["source_id"], 2) == 0]
        (failing,) = [record for record in made if record["source_id"] == "unit_006.txt"]
        with pytest.raises(UserError, match=r"1 of 1 documents.*sdg\.max_failed_share"):
            run(tmp_path, [failing], config, shards=2)
        done = run(tmp_path, made, config, shards=2)
    assert 1 < len(done) < 10
    with pytest.raises(UserError, match=r"1 of \d documents.*-R generate"):
        check_all_failures(done, {"unit_006.txt"}, 0.1)
    check_all_failures(done, {"unit_006.txt"}, 0.5)


@pytest.mark.parametrize("fault", [("--poison", " "), ("--filtered", " ", "--filter-status", "402")])
def test_a_dead_endpoint_ends_the_run_after_a_few_requests(
    tmp_path: Path, endpoint: Any, fault: tuple[str, ...]
) -> None:
    with endpoint(*fault) as server:
        config = configuration(tmp_path, server.url, llm__max_retries=1, sdg__max_failed_share=1.0)
        with pytest.raises(UserError, match="counts as dead"):
            run(tmp_path, records(60), config, parallel=4)
        # five requests in a row, twice each, and what the other threads had under way
        assert server.log()["requests"] <= 2 * (5 + 8)


def test_an_endpoint_that_refuses_some_documents_lives(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--filtered", " of unit 1") as server:
        config = configuration(tmp_path, server.url, sdg__max_failed_share=1.0)
        done = run(tmp_path, records(20), config, parallel=1)
        refused = {row["source_id"] for row in ledger(tmp_path)}
        assert len(refused) == 11
        assert all(bool(record["qa_generation"]["pairs"]) != (record["source_id"] in refused) for record in done)
        # another run, which asks for these alone, ends as well
        run(tmp_path, records(20), config, parallel=1)
    assert {row["source_id"] for row in ledger(tmp_path)} == refused


def test_an_endpoint_that_is_asked_too_often_is_waited_for_but_not_for_ever(
    tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.common.llm_traffic.BUSY_PAUSE", 0.01)
    with endpoint("--busy", "12") as server:
        done = run(tmp_path, records(4), configuration(tmp_path, server.url, llm__max_retries=0), parallel=2)
    assert all(len(record["qa_generation"]["pairs"]) == 4 for record in done)
    assert ledger(tmp_path) == []
    monkeypatch.setattr("scripts.common.llm_traffic.PATIENCE", 0.2)
    with (
        endpoint("--busy", "1000000") as server,
        pytest.raises(UserError, match="counts as dead"),
    ):
        run(tmp_path, records(12, first=300), configuration(tmp_path, server.url, llm__max_retries=0))


def test_a_reply_that_came_too_late_is_booked(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--faults", "hang", "--share", "1.1") as server:
        config = configuration(tmp_path, server.url, llm__timeout=0.2, llm__max_retries=0, llm__max_tokens=1000)
        model = open_models(config, ReplyStore(tmp_path), None)["qa_generation"]
        messages = [{"role": "user", "content": "Pump"}]
        with pytest.raises(UserError, match="no reply in time"):
            model.ask(messages, max_tokens=600)
        with pytest.raises(UserError, match=r"llm\.max_tokens is 1000"):
            model.ask(messages, max_tokens=600)


def test_what_a_reply_leaves_out_is_asked_for_once_more(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--faults", "too_few", "--share", "1.1") as server:
        config = configuration(tmp_path, server.url)
        (record,) = run(tmp_path, records(1), config)
        # three of four pairs and then none of one; two of three verdicts, and then the third
        assert len(record["qa_generation"]["pairs"]) == 3
        assert all(record["generation"]["judged"]) and len(record["generation"]["judged"]) == 3
        assert {row["call"] for row in ledger(tmp_path)} == {"questions"}
        before = server.log()["requests"]
    with endpoint() as server:
        (record,) = run(tmp_path, records(1), config | configuration(tmp_path, server.url))
        # the questions that are missing, and the verdicts on all
        assert server.log()["requests"] == 2 < before
    assert len(record["qa_generation"]["pairs"]) == 4
    assert len({pair["question"] for pair in record["qa_generation"]["pairs"]}) == 4
    assert all(record["generation"]["judged"]) and len(record["generation"]["judged"]) == 4
    assert ledger(tmp_path) == []


def reader_that_fails(content: str) -> tuple[list, list]:
    if content:
        raise TypeError("no")
    return [], []


def test_a_reply_that_no_reader_expected_is_kept_in_the_ledger(tmp_path: Path, endpoint: Any) -> None:
    result = Generated([])
    with endpoint() as server:
        config = configuration(tmp_path, server.url)
        value = ask(
            open_models(config, ReplyStore(tmp_path), None)["qa_generation"],
            [{"role": "user", "content": "bearing gasket turbine"}],
            call="c",
            result=result,
            max_tokens=9,
            schema={"properties": {"question_1": {}}},
            read=reader_that_fails,
            usable=bool,
        )
        assert server.log()["requests"] == 2
    assert value == []
    assert "cannot be read (TypeError: no)" in result.problems[0]
    assert len(result.failures[0]["replies"]) == 2


def test_sixty_four_parallel_requests_keep_sixty_in_flight(tmp_path: Path, endpoint: Any) -> None:
    with endpoint("--delay", "1") as server:
        config = configuration(tmp_path, server.url, llm__timeout=30)
        run(tmp_path, records(200), config, parallel=64)
        seen = server.log()
    assert seen["peak"] <= 64
    # every 20 ms; without the first wave, which comes as threads start, and the end, where work runs out
    samples = seen["samples"][100:300]
    assert len(samples) == 200
    assert sorted(samples)[len(samples) // 4] >= 60, samples
    assert sum(samples) / len(samples) >= 60, samples


def test_editing_one_of_a_hundred_documents_asks_for_it_alone(tmp_path: Path, endpoint: Any) -> None:
    made = records(100)
    with endpoint() as server:
        config = configuration(tmp_path, server.url)
        run(tmp_path, made, config)
        full = server.log()["requests"]
        made[7] = records(1, first=700)[0] | {"source_id": made[7]["source_id"]}
        run(tmp_path, made, config)
        edited = server.log()["requests"] - full
        run(tmp_path, [*made, *records(10, first=300)], config)
        added = server.log()["requests"] - full - edited
    assert full == 300
    assert edited == 3 < 0.02 * full
    assert added == 30


KILLED = """
import json, sys
from pathlib import Path
from tests.sdg.conftest import configuration
from tests.sdg.test_generate import run
from scripts.common.files import read_jsonl
work, url = Path(sys.argv[1]), sys.argv[2]
made = [record for _, record in read_jsonl(work / "made.jsonl")]
# on a busy machine a request may take long, and one sent again would count twice
run(work, made, configuration(work, url, llm__timeout=60), parallel=4)
"""


@pytest.mark.slow
def test_ten_kills_cost_no_more_than_what_was_under_way(tmp_path: Path, endpoint: Any) -> None:
    made = records(80)
    write_jsonl(tmp_path / "made.jsonl", made)
    with endpoint("--delay", "0.05") as server:
        command = [sys.executable, "-c", KILLED, str(tmp_path), server.url]
        chance = random.Random(3)
        kills = 0
        for _ in range(10):
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
            before = server.log()["requests"]
            while process.poll() is None and server.log()["requests"] == before:
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 0.3))
            if process.poll() is None:
                kills += 1
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        sent = server.log()["requests"]
    assert kills >= 8
    assert 240 <= sent <= 240 + 4 * kills
    done = [record["source_id"] for _, record in read_jsonl(tmp_path / "shard.jsonl")]
    assert done == [record["source_id"] for record in made]
    assert all(record["qa_generation"]["pairs"] for _, record in read_jsonl(tmp_path / "shard.jsonl"))


def test_the_token_budget_stops_cleanly_and_a_higher_one_goes_on(tmp_path: Path, endpoint: Any) -> None:
    made = records(10)
    with endpoint() as server:
        config = configuration(tmp_path, server.url, llm__max_tokens=30_000)
        with pytest.raises(UserError, match=r"llm\.max_tokens is 30000.*run again"):
            run(tmp_path, made, config, parallel=2)
        sent = server.log()["requests"]
        usage = ReplyStore(tmp_path / "replies").usage()["m"]
        assert 0 < sent < 30
        assert usage["prompt_tokens"] + usage["completion_tokens"] <= 30_000
        assert usage["requests"] == sent
        done = run(tmp_path, made, configuration(tmp_path, server.url))
        assert server.log()["requests"] == 30
    assert all(len(record["qa_generation"]["pairs"]) == 4 for record in done)


def test_the_cost_budget_counts_all_runs(tmp_path: Path, endpoint: Any) -> None:
    prices = {"m": {"prompt": 1.0, "completion": 10.0}}
    with endpoint() as server:
        run(tmp_path, records(3), configuration(tmp_path, server.url, llm__prices=prices))
        config = configuration(tmp_path, server.url, llm__prices=prices, llm__max_cost=0.01)
        with pytest.raises(UserError, match=r"llm\.max_cost"):
            run(tmp_path, records(6), config)
        assert server.log()["requests"] == 9


def test_consent_names_host_and_bytes_before_anything_is_sent(tmp_path: Path) -> None:
    config = configuration(tmp_path, "https://api.example.com/v1")
    write_jsonl(tmp_path / "records.jsonl", records(3))
    roles = dict.fromkeys(("artifact_extraction", "qa_generation", "quality_judge"), ("test", "m"))
    what = (tmp_path / "records.jsonl", config["sdg"], roles)
    with pytest.raises(UserError, match=r"about [\d,]{5,7} bytes.*api\.example\.com.*Nothing was sent"):
        check_all_egress(config, *what)
    check_all_egress(config | {"allow_egress": ["api.example.com"]}, *what)


def test_the_key_reaches_the_endpoint_and_no_file(
    tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CANARY_KEY", "canary-4711")
    with endpoint("--poison", "number 2 holds") as server:
        providers = {"test": {"base_url": server.url, "api_key_env": "CANARY_KEY"}}
        run(tmp_path, records(12), configuration(tmp_path, server.url, llm__providers=providers, llm__max_retries=0))
        assert server.log()["keys"] == ["canary-4711"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"canary-4711" in path.read_bytes()]
    assert "canary-4711" not in caplog.text


def test_preview_makes_one_record_and_shows_it(
    tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scripts.sdg.generate.log.propagate", True)
    caplog.set_level("INFO", "embed-recipe")
    with endpoint() as server:
        done = run(tmp_path, records(9), configuration(tmp_path, server.url, sdg__preview=True))
        assert server.log()["requests"] == 3
    assert len(done) == 1
    assert all(pair["question"] in caplog.text for pair in done[0]["qa_generation"]["pairs"])


def test_a_shard_keeps_its_documents_when_others_are_added(tmp_path: Path) -> None:
    few, many = records(20), records(40)
    where = {record["source_id"]: shard_of(record["source_id"], 4) for record in many}
    assert {record["source_id"]: shard_of(record["source_id"], 4) for record in few}.items() <= where.items()
    assert set(where.values()) == {0, 1, 2, 3}


def test_replies_survive_a_torn_line(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path)
    store.put("a", {"model": "m", "content": "ä\u2028x", "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    store.put("c", {"model": "m", "content": "y"})
    assert [store.get(key)["content"] for key in "ac"] == ["ä\u2028x", "y"]
    path = next(tmp_path.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b'{"key": "b", "cont')
    again = ReplyStore(tmp_path)
    assert [again.get(key)["content"] for key in "ac"] == ["ä\u2028x", "y"]
    assert "a" in again and "b" not in again and again.get("b") is None
    assert len(again) == 2
    assert again.usage()["m"]["completion_tokens"] == 4
