"""Search side by side, over a real model and a real loopback server."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.common.beir import read_beir
from scripts.common.errors import UserError
from scripts.eval.explore import Explorer, make_server, open_explorer
from scripts.eval.latency import measure
from scripts.vectors.embed import embed


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, collection_folder: Path) -> Explorer:
    root = tmp_path_factory.mktemp("explore")
    texts = list(read_beir(collection_folder).corpus.values())
    contract = tiny_model / "contract.json"
    embed(texts, "passage", contract, root / "corpus.json", store_root=root, device="cpu", token_budget=2048)
    return open_explorer(
        collection_folder, {"base": contract}, store=root, manifests={"base": root / "corpus.json"}, device="cpu",
        language="english",
    )  # fmt: skip


@pytest.fixture(scope="module")
def address(explorer: Explorer) -> Iterator[str]:
    with make_server(explorer, 0, "my corpus") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_each_system_answers_from_the_corpus(address: str, explorer: Explorer) -> None:
    query = explorer.collection.queries["q0-0"]
    status, body = get(f"{address}/search?q={urllib.parse.quote(query)}")
    found = json.loads(body)
    assert status == 200
    assert found["judged"]
    assert list(found["systems"]) == ["base", "bm25"]
    for part in found["systems"].values():
        scores = [result["score"] for result in part["results"]]
        assert 0 < len(scores) <= 10
        assert scores == sorted(scores, reverse=True)
        assert part["milliseconds"] > 0
    best = found["systems"]["bm25"]["results"][0]
    assert (best["passage"], best["relevant"]) == ("d0-0", True)
    assert "<mark>" in best["html"]


def test_a_query_of_ones_own_has_no_judgements_and_may_find_nothing_lexical(address: str) -> None:
    found = json.loads(get(f"{address}/search?q=zzyzx")[1])
    assert not found["judged"]
    assert found["systems"]["bm25"]["results"] == []
    assert len(found["systems"]["base"]["results"]) == 10


@pytest.mark.parametrize(
    ("path", "status"), [("/search?q=", 400), ("/search", 400), (f"/search?q={'x' * 2001}", 400), ("/etc/passwd", 404)]
)
def test_wrong_requests(address: str, path: str, status: int) -> None:
    assert get(address + path)[0] == status


def test_a_page_elsewhere_cannot_read_the_corpus(address: str) -> None:
    assert get(f"{address}/search?q=wing", Host="evil.example")[0] == 421


def test_a_taken_port_is_named_with_the_option(explorer: Explorer) -> None:
    with make_server(explorer, 0, "x") as server, pytest.raises(UserError, match=r"eval\.explore_port"):
        make_server(explorer, server.server_port, "x")


def test_latency_is_measured_for_each_model(tmp_path: Path, tiny_model: Path, collection_folder: Path) -> None:
    contract = tiny_model / "contract.json"
    texts = list(read_beir(collection_folder).corpus.values())
    embed(texts, "passage", contract, tmp_path / "m.json", store_root=tmp_path, device="cpu", token_budget=2048)
    target = tmp_path / "latency.json"
    measure(collection_folder, {"base": contract}, target, store=tmp_path, device="cpu", threads=1)
    result = json.loads(target.read_text())
    times = result["models"]["base"]
    assert (result["queries"], result["passages"], times["backend"]) == (50, len(texts), "torch")
    for kind in ("encode_ms", "search_ms"):
        assert 0 < times[kind]["median"] <= times[kind]["p95"] < 5000


def test_missing_vectors_are_an_error(tmp_path: Path, tiny_model: Path, collection_folder: Path) -> None:
    contract = tiny_model / "contract.json"
    embed(["one text"], "passage", contract, tmp_path / "m.json", store_root=tmp_path, device="cpu", token_budget=2048)
    with pytest.raises(UserError, match="lacks vectors of base"):
        open_explorer(
            collection_folder, {"base": contract}, store=tmp_path, manifests={"base": tmp_path / "m.json"},
            device="cpu", language=None,
        )  # fmt: skip


@pytest.mark.browser
def test_the_page_searches(address: str) -> None:
    from playwright.sync_api import sync_playwright

    from tests.browser.test_report_page import CHROMIUM, FLAGS

    if not Path(CHROMIUM).exists():
        pytest.skip("needs Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda r: None if r.url.startswith(address) else problems.append(r.url))
        page.goto(address)
        page.fill("#query", "supersonic wing")
        page.press("#query", "Enter")
        page.wait_for_selector("#of-bm25 .passage")
        assert page.locator("#of-base .passage").count() == 10
        assert page.locator("#of-bm25 mark").count() > 0
        page.set_viewport_size({"width": 400, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    assert problems == []
