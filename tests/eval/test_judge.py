"""Near misses before a judge at a real loopback endpoint: grades, before and after, replies that cannot be read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.common.config import resolve
from scripts.common.errors import UserError
from scripts.common.files import write_json
from scripts.common.replies import ReplyStore
from scripts.eval.judge import judge, open_judge
from scripts.eval.results import score_and_write
from tests.loopback import answering

K = [1, 5, 10]


class Judge:
    """A chat endpoint that finds an answer where the passage has a word of the test's choice."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply = lambda passage: json.dumps({"reason": "said so", "grade": 3 if "case0x5" in passage else 0})
        self.url = ""

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(body)
        content = self.reply(body["messages"][-1]["content"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        value = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return 200, {**value, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}

    def config(self) -> dict[str, Any]:
        providers = {"judge": {"base_url": self.url, "api_key_env": None}}
        llm = {**resolve({})["llm"], "providers": providers, "timeout": 20, "max_retries": 0}
        return {"llm": llm, "allow_egress": []}


@pytest.fixture
def endpoint() -> Iterator[Judge]:
    made = Judge()
    with answering(made.answer) as server:
        made.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield made


@pytest.fixture
def parts(tmp_path: Path, collection_folder: Path, collection: Any) -> dict[str, Any]:
    """A system that puts d0-5 and d0-6 above the judged answer of q0-0, and does nothing else."""
    run = {"q0-0": {"d0-5": 3.0, "d0-6": 2.0, "d0-0": 1.0}}
    evaluation = tmp_path / "base" / "set.json"
    score_and_write(collection, run, evaluation, system="base", folder=collection_folder, k_values=K)
    misses = [
        {"query": "q0-0", "text": collection.queries["q0-0"], "passage": passage, "ranks": {"base": rank}}
        for rank, passage in ((1, "d0-5"), (2, "d0-6"))
    ]
    comparison = tmp_path / "comparison.json"
    write_json(comparison, {"near_misses": misses})
    return {"test_set": collection_folder, "comparison_file": comparison, "evaluations": [evaluation]}


def test_what_answers_counts_afterwards(endpoint: Judge, parts: dict[str, Any], tmp_path: Path) -> None:
    model = open_judge(endpoint.config(), ReplyStore(tmp_path / "replies"), provider="judge", name="m")
    result = judge(**parts, target=tmp_path / "judged.json", model=model, k_values=K)
    assert (result["judged"], result["relevant"], result["without_answer"]) == (2, 1, 0)
    system = result["systems"]["base"]
    # one query of 24 has its answer first now; it was third
    assert system["before"]["MRR@10"] == pytest.approx(1 / 3 / 24, abs=1e-5)
    assert system["after"]["MRR@10"] == pytest.approx(1 / 24, abs=1e-5)
    assert [row["grade"] for row in result["near_misses"]] == [3, 0]
    assert {body["temperature"] for body in endpoint.requests} == {0}
    assert "base" not in json.dumps([body["messages"] for body in endpoint.requests])
    # paid for once
    judge(
        **parts, target=tmp_path / "again.json", k_values=K,
        model=open_judge(endpoint.config(), ReplyStore(tmp_path / "replies"), provider="judge", name="m"),
    )  # fmt: skip
    assert len(endpoint.requests) == 2
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "judged.json").read_bytes()


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"grade": 3}', '{"reason": "x", "grade": true}', "{}",
                                     '{"reason": "x", "grade": 7}'])  # fmt: skip
def test_replies_that_cannot_be_read_change_nothing(
    endpoint: Judge, parts: dict[str, Any], tmp_path: Path, content: str
) -> None:
    endpoint.reply = lambda _: content
    model = open_judge(endpoint.config(), ReplyStore(tmp_path / "replies"), provider="judge", name="m")
    result = judge(**parts, target=tmp_path / "judged.json", model=model, k_values=K)
    assert (result["judged"], result["without_answer"]) == (0, 2)
    assert result["systems"]["base"]["before"] == result["systems"]["base"]["after"]


def test_an_unknown_provider_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="quality_judge_provider"):
        open_judge({"llm": {"providers": {}}, "allow_egress": []}, ReplyStore(tmp_path), provider="nobody", name="m")
