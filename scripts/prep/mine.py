"""Hard negatives by the recipe's rule, each with its rank, score and margin (see :mod:`scripts.prep.negatives`)."""

import collections
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.files import read_json, write_json
from scripts.common.job import job, log
from scripts.common.llm import ChatModel
from scripts.common.passages import Passage, read_corpus
from scripts.common.progress import progress
from scripts.common.relevance import PARALLEL, open_judge
from scripts.common.replies import ReplyStore
from scripts.common.vector_store import VectorStore
from scripts.prep.frozen import passages_of_test
from scripts.prep.negatives import Candidate, limit
from scripts.prep.neighbours import Finder, IndexFinder, exact, has_gpu
from scripts.prep.screening import Screen, bm25_agreement, judged, near_positive


def mine(
    train_file: str | Path,
    corpus_file: str | Path,
    target: str | Path,
    *,
    contract: Contract,
    store: str | Path,
    options: dict[str, Any],
    split_file: str | Path | None = None,
    test_set: str | Path | None = None,
    model_name: str | None = None,
    device: str = "auto",
    judge: ChatModel | None = None,
    block: int = 128,
    corpus_block: int = 50_000,
) -> None:
    """Write ``train_mined.automodel.json``: positives and hard negatives with scores.

    Args:
        train_file: ``train.json``.
        corpus_file: ``corpus/train.parquet``.
        target: The mined file.
        contract: The base model's.
        store: Folder of the vector store.
        options: ``prep``'s ``hard_neg…`` options.
        split_file: ``split.json``; without it no document is known to be a test document.
        test_set: Test set that is not the split's, in BEIR layout; with ``hard_neg_test_documents`` off, passages that
            give one of its answers away are no negatives.
        model_name: Name of the base model for the file, where the contract is of a graph made from it.
        device: ``cpu`` leaves a GPU alone.
        judge: Refuses what it takes for an answer, or ``None``.
        block: Questions scored at once.
        corpus_block: Passages read at once.
    """
    value = read_json(train_file, "training file")
    data, passages = value["data"], read_corpus(corpus_file)
    pool = Pool(passages, VectorStore(store, contract, "passage"))
    queries = VectorStore(store, contract, "query").gather([item["question"] for item in data])
    tested = set[str]() if options["hard_neg_test_documents"] else held_out(passages, split_file, test_set)
    warn_of_no_effect(passages, options, split_file, test_set)
    forbidden = forbidden_rows(data, passages, options["hard_neg_same_document"])
    positives = [[pool.row_of[entry["id"]] for entry in item["pos_doc"]] for item in data]
    weakest = np.empty(len(data), np.float32)
    for index, (item, scores) in enumerate(zip(data, positive_scores(queries, positives, pool), strict=True)):
        item["pos_doc"] = [
            {"id": entry["id"], "score": score} for entry, score in zip(item["pos_doc"], scores, strict=True)
        ]
        weakest[index] = min(scores)
    limits = [limit(float(score), options["hard_neg_margin"], options["hard_neg_margin_type"]) for score in weakest]
    candidates = pool.candidates(tested)
    find, facts = finder(queries, pool, candidates, options["mining_search"], block, corpus_block, device)
    found, refused = search(
        queries,
        find,
        np.array(limits, np.float32),
        forbidden,
        screens(data, pool, candidates, positives, options, judge),
        at_once=PARALLEL if judge else 1,
        count=options["hard_negatives_to_mine"],
        skip=options["hard_neg_max_skipped"],
    )
    for item, best, low in zip(data, found, weakest, strict=True):
        item["neg_doc"] = [
            {"id": pool.names[c.row], "score": c.score, "rank": c.rank, "margin": float(low) - c.score} for c in best
        ]
    arguments = {
        **options,
        "judge": f"{judge.provider}/{judge.model}" if judge else None,
        "model_name_or_path": model_name or contract.model,
        "backend": contract.backend,
        "pooling": contract.pooling,
        "l2_normalize": contract.l2_normalize,
        "query_prefix": contract.query_prefix,
        "passage_prefix": contract.passage_prefix,
        "query_max_length": contract.query_max_length,
        "passage_max_length": contract.passage_max_length,
    }
    mining = {"args": arguments, "search": facts, "refused": dict(refused)}
    write_json(target, {**value, "mining": mining, "data": data}, indent=4)
    report(data, options["hard_negatives_to_mine"])
    for reason, count in refused.most_common():
        log.info("refused %d candidates: %s", count, reason)


class Pool:
    """The passages by row, with their vectors read when asked for."""

    def __init__(self, passages: dict[str, Passage], store: VectorStore) -> None:
        self.passages, self.names = passages, list(passages)
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self.texts = [passage.text for passage in passages.values()]
        self._store = store

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """Float32 vectors ``[len(rows), dimension]``."""
        return self._store.gather([self.texts[row] for row in rows])

    def candidates(self, tested: set[str]) -> np.ndarray:
        """Rows that may be negatives: neither made for training alone nor among ``tested`` ids."""
        return np.array(
            [
                self.row_of[name]
                for name, passage in self.passages.items()
                if not passage.training_only and name not in tested
            ],
            np.int64,
        )

    def blocks(self, rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``(rows, vectors)`` of these rows, ``size`` at a time."""
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.vectors(part.tolist())


def positive_scores(
    queries: np.ndarray, positives: Sequence[Sequence[int]], pool: Pool, block: int = 4096
) -> Iterator[list[float]]:
    """Scores of each question's positives, with the vectors of ``block`` questions in memory."""
    for start in range(0, len(positives), block):
        part = positives[start : start + block]
        counts = [len(rows) for rows in part]
        asked = np.repeat(queries[start : start + block], counts, axis=0)
        scores = np.einsum("ij,ij->i", pool.vectors([row for rows in part for row in rows]), asked).tolist()
        for count in counts:
            yield scores[:count]
            del scores[:count]


def finder(
    queries: np.ndarray,
    pool: Pool,
    candidates: np.ndarray,
    kind: str,
    block: int,
    corpus_block: int,
    device: str = "auto",
) -> tuple[Finder, dict[str, Any]]:
    """The search that is configured (``exact`` or ``approximate``), and what there is to say of it."""
    exactly = exact(lambda: pool.blocks(candidates, corpus_block), len(candidates), block)
    on_gpu = device != "cpu" and has_gpu()
    if not len(candidates) or (kind == "exact" and not on_gpu):
        return exactly, {"index": "none, exact by blocks"}
    indexed = IndexFinder(
        lambda: pool.blocks(candidates, corpus_block),
        candidates,
        queries,
        pool.vectors,
        approximate=kind == "approximate",
        query_block=block,
        on_gpu=on_gpu,
    )
    return indexed, indexed.facts


def search(
    queries: np.ndarray,
    find: Finder,
    limits: np.ndarray,
    barred: Sequence[set[int]],
    screens: Sequence[Screen],
    *,
    count: int,
    skip: int | None,
    at_once: int = 1,
) -> tuple[list[list[Candidate]], collections.Counter[str]]:
    """Per question its hard negatives, and how many candidates were refused for which reason.

    With ``skip``, the limit passes over at most so many passages: a positive that the model ranks too low would
    otherwise shut out all that is hard. Questions whose candidates were refused are searched again, deeper. The
    candidates of ``at_once`` questions are screened side by side, for a screen that waits for replies.
    """
    refused: collections.Counter[str] = collections.Counter()
    found: list[list[Candidate]] = [[] for _ in queries]
    open_questions = np.arange(len(queries))
    depth = count if not screens else 2 * count + 8
    while len(open_questions):
        part = open_questions
        best = find(
            queries[part],
            limits[part] if skip is None else np.full(len(part), np.inf, np.float32),
            [barred[i] for i in part],
            depth if skip is None else depth + skip,
        )
        again = []
        below_limit = [
            ranked if skip is None else [c for c in ranked if c.score <= limits[index] or c.rank > skip]
            for index, ranked in zip(part.tolist(), best, strict=True)
        ]
        screened = _all_screened(part.tolist(), below_limit, screens, count, at_once)
        for index, below, (kept, reasons) in zip(part.tolist(), below_limit, screened, strict=True):
            if len(kept) < count and len(below) >= depth:
                again.append(index)
                continue
            found[index] = kept
            refused.update(reasons)
        open_questions, depth = np.array(again, np.int64), 4 * depth
    return found, refused


def _all_screened(
    questions: Sequence[int],
    ranked: Sequence[Sequence[Candidate]],
    screens: Sequence[Screen],
    count: int,
    at_once: int,
) -> Iterator[tuple[list[Candidate], list[str]]]:
    """:func:`_screened` of each question, in order."""
    bar = progress(len(questions), "screen", "question", disable=not screens)
    with ThreadPoolExecutor(at_once) as pool:
        for found in pool.map(lambda index, own: _screened(index, own, screens, count), questions, ranked):
            bar.update(1)
            yield found
    bar.close()


def _screened(
    question: int, ranked: Sequence[Candidate], screens: Sequence[Screen], count: int
) -> tuple[list[Candidate], list[str]]:
    kept: list[Candidate] = []
    reasons: list[str] = []
    for candidate in ranked:
        if len(kept) == count:
            break
        reason = next((found for screen in screens if (found := screen(question, candidate))), None)
        if reason is None:
            kept.append(candidate)
        else:
            reasons.append(reason)
    return kept, reasons


def screens(
    data: Sequence[dict[str, Any]],
    pool: Pool,
    candidates: np.ndarray,
    positives: Sequence[Sequence[int]],
    options: dict[str, Any],
    judge: ChatModel | None = None,
) -> list[Screen]:
    """The screens that are configured, the judge after those that cost nothing."""
    found: list[Screen] = []
    questions = [item["question"] for item in data]
    if options["hard_neg_bm25_top"] is not None:
        rows = sorted({*candidates.tolist(), *(row for own in positives for row in own)})
        texts = [pool.texts[row] for row in rows]
        best, language = options["hard_neg_bm25_top"], options["hard_neg_bm25_language"]
        found.append(bm25_agreement(questions, texts, rows, positives, best, language))
    if options["hard_neg_max_similarity"] is not None:
        found.append(near_positive(pool.vectors, positives, options["hard_neg_max_similarity"]))
    if judge:
        found.append(judged(judge, questions, pool.texts))
    return found


def held_out(passages: dict[str, Passage], split_file: str | Path | None, test_set: str | Path | None) -> set[str]:
    """Ids of the passages of held-out documents, and of those that give an answer of another test set away."""
    parts = read_json(split_file, "split report")["part_of"] if split_file else {}
    documents = {document for document, part in parts.items() if part == "test"}
    found = {name for name, passage in passages.items() if not documents.isdisjoint(passage.documents)}
    return found | passages_of_test(passages, read_beir(test_set)) if test_set else found


def warn_of_no_effect(
    passages: dict[str, Passage], options: dict[str, Any], split_file: str | Path | None, test_set: str | Path | None
) -> None:
    """Say which options do nothing because an own training file does not say what they need to know."""
    if not options["hard_neg_same_document"] and not any(passage.documents for passage in passages.values()):
        log.warning(
            "prep.hard_neg_same_document=false does nothing: the corpus does not say of which documents its passages "
            "are; give it a column `documents`, with a list of names in each row"
        )
    if not options["hard_neg_test_documents"] and not (split_file or test_set):
        log.warning(
            "prep.hard_neg_test_documents=false does nothing: of an own training file it is not known what is held "
            "out; name the test set with eval.eval_data_path"
        )


def forbidden_rows(data: Sequence[dict[str, Any]], passages: dict[str, Passage], same_document: bool) -> list[set[int]]:
    """Rows that are never a question's negatives: known positives and, unless allowed, their documents' passages.

    Questions for which these are the same share one set: those about a document of thousands of passages are many.
    """
    row_of = {name: row for row, name in enumerate(passages)}
    by_document: dict[str, set[int]] = collections.defaultdict(set)
    for name, passage in passages.items():
        for document in passage.documents:
            by_document[document].add(row_of[name])
    # a question that was asked twice has all its positives
    positives: dict[str, set[str]] = collections.defaultdict(set)
    for item in data:
        positives[item["question"]].update(entry["id"] for entry in item["pos_doc"])
        positives[item["question"]].update(item.get("also_positive", ()))
    shared: dict[tuple[frozenset[str], frozenset[str]], set[int]] = {}
    found = []
    for item in data:
        known = positives[item["question"]]
        documents = set() if same_document else {name for own in known for name in passages[own].documents}
        key = frozenset(documents), frozenset(name for name in known if documents.isdisjoint(passages[name].documents))
        if key not in shared:
            shared[key] = {row_of[name] for name in key[1]}.union(*(by_document[name] for name in documents))
        found.append(shared[key])
    return found


def report(data: Sequence[dict[str, Any]], wanted: int) -> None:
    """Say how many negatives were found, and warn of short lists."""
    counts = [len(item["neg_doc"]) for item in data]
    short = sum(count < wanted for count in counts)
    log.info("%d questions, median %g hard negatives", len(counts), statistics.median(counts) if counts else 0)
    if short:
        log.warning(
            "%d questions have fewer than %d hard negatives: the corpus is small, or their positives score low",
            short,
            wanted,
        )


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        mine(
            snakemake.input.train,  # noqa: F821
            snakemake.input.corpus,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            split_file=snakemake.input.get("split") or None,  # noqa: F821
            test_set=snakemake.params.test_set,  # noqa: F821
            device=snakemake.config["vectors"]["device"],  # noqa: F821
            model_name=snakemake.params.model_name,  # noqa: F821
            judge=open_judge(
                snakemake.config,  # noqa: F821
                ReplyStore(f"{snakemake.config['output_dir']}/cache/replies"),  # noqa: F821
                provider=snakemake.params.judge["quality_judge_provider"],  # noqa: F821
                name=snakemake.params.judge["quality_judge_model"],  # noqa: F821
            )
            if snakemake.params.judge  # noqa: F821
            else None,
            block=snakemake.config["prep"]["mining_batch_size"],  # noqa: F821
            corpus_block=snakemake.config["prep"]["corpus_chunk_size"],  # noqa: F821
        )
