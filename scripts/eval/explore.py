"""Search side by side: a local page where a person types a query and sees what each system finds on the own corpus.

Passages come from the stored vectors; only the typed query is encoded. It listens on loopback, answers only requests
that name loopback as their host (a page elsewhere on the web cannot read the corpus through the browser), and keeps
nothing.
"""

import json
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from scripts.common.beir import TestSet, read_beir
from scripts.common.bm25 import BM25
from scripts.common.contract import Contract
from scripts.common.encoder import Encoder, open_encoder
from scripts.common.errors import UserError
from scripts.common.job import job, log
from scripts.common.search import top_k
from scripts.common.vector_store import VectorStore
from scripts.eval.evaluate import check_manifests
from scripts.eval.examples import shown
from scripts.eval.report import PAGE, marked, stems

RESULTS = 10
LONGEST_QUERY = 2000
# What a search takes and gives: rows and scores, best first
Search = Callable[[str], tuple[np.ndarray, np.ndarray]]


class Explorer:
    """Systems over one corpus.

    Args:
        collection: The corpus, and queries to offer as examples.
        systems: How each one searches, by name.
        language: For the words that query and passage share, which are marked.
    """

    def __init__(self, collection: TestSet, systems: dict[str, Search], language: str | None) -> None:
        self.collection, self.systems, self.language = collection, systems, language
        self.ids, self.texts = list(collection.corpus), list(collection.corpus.values())
        self.known = {text: query for query, text in collection.queries.items()}

    def search(self, query: str) -> dict[str, Any]:
        """Results by system with texts, scores, what was judged (for a query of the test set), and the time it took."""
        words = stems(query, self.language)
        judged = self.collection.qrels.get(self.known.get(query, ""), {})
        found = {}
        for name, search in self.systems.items():
            start = time.perf_counter()
            rows, scores = search(query)
            took = time.perf_counter() - start
            found[name] = {
                "milliseconds": round(1000 * took, 1),
                "results": [
                    {
                        "passage": self.ids[row],
                        "score": round(float(score), 4),
                        "relevant": judged.get(self.ids[row], 0) > 0,
                        "html": str(marked(shown(self.texts[row]), words, self.language)),
                    }
                    for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
                ],
            }
        return {"query": query, "judged": bool(judged), "systems": found}


def dense_search(encoder: Encoder, passages: np.ndarray) -> Search:
    """Search by a model over the vectors of all passages."""
    # the first one takes longest, and nobody should wait for it or read its time
    encoder.encode(["warm-up"], "query")

    def search(query: str) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = top_k(encoder.encode([query], "query"), passages, RESULTS)
        return rows[0], scores[0]

    return search


def lexical_search(index: BM25) -> Search:
    """Search by BM25; what shares no word with the query is no result."""

    def search(query: str) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = index.top_k([query], RESULTS)
        return rows[0][scores[0] > 0], scores[0][scores[0] > 0]

    return search


def open_explorer(
    test_set: str | Path,
    contracts: dict[str, str | Path],
    *,
    store: str | Path,
    manifests: dict[str, str | Path],
    device: str,
    language: str | None,
) -> Explorer:
    """An explorer of the models whose contracts are given, and BM25.

    Args:
        test_set: Folder in BEIR layout.
        contracts: Contract file by model.
        store: Folder of the vector store.
        manifests: By model, what rule ``embed`` wrote on the vectors of the corpus.
        device: Where queries are encoded.
        language: Of BM25.

    Raises:
        UserError: Vectors are missing.
    """
    collection = read_beir(test_set)
    texts = list(collection.corpus.values())
    systems: dict[str, Search] = {}
    for name, file in contracts.items():
        contract = Contract.load(file)
        check_manifests([manifests[name]], contract)
        try:
            passages = VectorStore(store, contract, "passage").gather(texts)
        except UserError as error:
            raise UserError(f"the vector store {store} lacks vectors of {name}; delete {manifests[name]}.") from error
        systems[name] = dense_search(open_encoder(file, device=device), passages)
    systems["bm25"] = lexical_search(BM25(texts, language=language))
    return Explorer(collection, systems, language)


def make_server(explorer: Explorer, port: int, title: str) -> ThreadingHTTPServer:
    """A server on loopback that is ready to serve.

    Raises:
        UserError: The port is taken.
    """
    page = render_page(explorer, title).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rsplit(":", 1)[0] not in {"127.0.0.1", "localhost"}:
                return self.answer(421, b'{"error": "this page is for this machine alone"}')
            address = urlsplit(self.path)
            if address.path == "/":
                return self.answer(200, page, "text/html; charset=utf-8")
            if address.path != "/search":
                return self.answer(404, b'{"error": "not found"}')
            query = parse_qs(address.query).get("q", [""])[0].strip()
            if not query or len(query) > LONGEST_QUERY:
                return self.answer(400, b'{"error": "a query has 1 to 2000 characters"}')
            try:
                found = explorer.search(query)
            except UserError as error:
                return self.answer(500, json.dumps({"error": str(error)}).encode())
            return self.answer(200, json.dumps(found).encode())

        def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Queries are not logged."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be had ({error.strerror}). Choose another with eval.explore_port, or 0 for any."
        ) from error


def render_page(explorer: Explorer, title: str) -> str:
    """The page, with some of the test set's queries as examples."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("explore.html.j2").render(
        title=title,
        systems=list(explorer.systems),
        passages=len(explorer.ids),
        offered=list(explorer.collection.queries.values())[:200],
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        script=(PAGE / "explore.js").read_text(encoding="utf-8"),
    )


def explore(explorer: Explorer, port: int, title: str, models: Sequence[str]) -> None:
    """Serve until Ctrl-C."""
    with make_server(explorer, port, title) as server:
        log.info(
            "http://127.0.0.1:%d  searches %d passages with %s and BM25; Ctrl-C ends",
            server.server_port,
            len(explorer.ids),
            ", ".join(models),
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("ended")


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        models = snakemake.params.models  # noqa: F821
        explore(
            open_explorer(
                Path(snakemake.input.queries).parent,  # noqa: F821
                dict(zip(models, snakemake.input.contracts, strict=True)),  # noqa: F821
                store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
                manifests=dict(zip(models, snakemake.input.vectors, strict=True)),  # noqa: F821
                device=snakemake.config["vectors"]["device"],  # noqa: F821
                language=snakemake.config["eval"]["bm25_language"],  # noqa: F821
            ),
            snakemake.config["eval"]["explore_port"],  # noqa: F821
            snakemake.config["corpus_id"],  # noqa: F821
            models,
        )
