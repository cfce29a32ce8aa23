"""Generated shards to ``sdg.jsonl``: malformed, duplicate and unanswerable questions out, and why, for each.

The round trip asks the base model for each question's own segment. A question whose segment is not among the best
``round_trip_top_k`` is likely not answered by it (Alberti et al. 2019, "Synthetic QA Corpora Generation with Roundtrip
Consistency", ACL; with a retriever as in Dai et al. 2023, "Promptagator", ICLR). Where no judge was asked, the rank is
also the quality score, so that ``prep.quality_threshold`` means the same with and without a judge.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.contract import Contract
from scripts.common.files import read_jsonl, write_json, write_jsonl
from scripts.common.job import job, log
from scripts.common.llm_embedding import EmbeddingModel
from scripts.common.replies import ReplyStore
from scripts.common.search import unit_length
from scripts.common.vector_store import VectorStore
from scripts.sdg.answers import is_yes_or_no, missing, not_said, only_announces, says_too_little, without_heading
from scripts.sdg.checks import Coverage, Standing, marks, repeated_across, standing_of
from scripts.sdg.embedder import open_embedder
from scripts.sdg.filters import fault, normal_form
from scripts.sdg.generated import check_share
from scripts.sdg.lookups import LOOKUPS
from scripts.sdg.mixing import limit_llm_free
from scripts.sdg.report import check_records, draw, summary, write_provenance
from scripts.sdg.statements import STATEMENT

# The score of a question at rank top_k; the recipe's default threshold, so that what passes the round trip is kept
PASSING_SCORE = 7.0
# A question that can be answered by yes or no is a statement, all of which its segment should speak of
YES_OR_NO_COVERAGE = 0.9
# Numbers in memory: 64 MB
SCORES_AT_ONCE = 2**24

# A question's vector of unit length; none where it does not fit the embedding model
VectorOf = Callable[[str], np.ndarray | None]


def sdg(
    shard_files: Sequence[str | Path],
    target: str | Path,
    manifest_file: str | Path,
    report_file: str | Path,
    failures_file: str | Path,
    figure_file: str | Path,
    *,
    corpus_id: str,
    contract: Contract,
    store: str | Path,
    options: dict[str, Any],
    embedder: EmbeddingModel | None = None,
) -> None:
    """Merge shards, drop what is not worth keeping, and write records, manifest and report.

    Args:
        shard_files: Outputs of rule ``generate``.
        target: ``sdg.jsonl``, the recipe's records.
        manifest_file: ``generation_result.json``, written last.
        report_file: What was asked, generated, deduplicated, judged and kept, and why the others were dropped.
        failures_file: The ledger, JSON Lines: calls that came to nothing, with raw replies.
        figure_file: The same counts as a figure (SVG).
        corpus_id: Name of the data set in the manifest.
        contract: The base model's.
        store: Folder of the vector store, which holds all chunks and questions.
        options: ``round_trip_top_k``, ``similarity_threshold`` and what else decides which questions are kept;
            ``max_failed_share``.
        embedder: Finds near duplicates among the questions; ``None`` takes the base model's vectors.
    """
    records = sorted((record for path in shard_files for _, record in read_jsonl(path, "shard")), key=_source)
    standings = rank_own_segments(records, contract, store)
    vector_of = served_vectors(embedder, records) if embedder else stored_vectors(contract, store)
    coverage = Coverage(dict.fromkeys(chunk["text"] for record in records for chunk in record["chunks"]))
    seen: set[str] = set()
    reasons = [
        judge_pairs(record, standings[number], seen, vector_of, coverage, options)
        for number, record in enumerate(records)
    ]
    if options["question_checks"] and options["similarity_threshold_across"] is not None:
        drop_repeated(records, reasons, vector_of, options["similarity_threshold_across"])
    limit_llm_free(records, reasons, options["llm_free_share"])
    failures = [
        {"source_id": record["source_id"], **failure}
        for record in records
        for failure in record["generation"].pop("failures", [])
    ]
    check_all_failures(records, {failure["source_id"] for failure in failures}, options["max_failed_share"])
    report = summary(records, reasons, failures)
    for number, record in enumerate(records):
        keep_pairs(record, standings[number], reasons[number], options["round_trip_top_k"])
    check_records(records)
    write_jsonl(target, records)
    write_jsonl(failures_file, failures)
    write_json(report_file, report)
    draw(report, figure_file)
    log.info(
        "kept %d of %d pairs %s; dropped %s",
        *(report["kept"], report["generated"], report["kept_by_query_type"], report["dropped_by_reason"]),
    )
    path = Path(target).name if Path(target).parent == Path(manifest_file).parent else str(Path(target).resolve())
    manifest = {"schema_version": 1, "dataset_name": corpus_id, "output_path": path}
    write_json(manifest_file, manifest, sort_keys=True)


def check_all_failures(records: Sequence[dict[str, Any]], failed: set[str], share: float) -> None:
    """:class:`UserError` when too many of the documents of all shards got no question from a model."""
    empty = [
        record["source_id"]
        for record in records
        if record["source_id"] in failed and all(pair.get("llm_free") for pair in record["qa_generation"]["pairs"])
    ]
    asked = sum(record["generation"]["asked"] > 0 for record in records)
    check_share(empty, asked, share, "`snakemake -R generate` asks for these alone: run it")


def drop_repeated(
    records: Sequence[dict[str, Any]], reasons: list[list[str | None]], vector_of: VectorOf, threshold: float
) -> None:
    """Give questions that nearly repeat one of an earlier document their reason; training-only pairs are let be."""
    places = [
        (number, position, pair["question"])
        for number, record in enumerate(records)
        for position, pair in enumerate(record["qa_generation"]["pairs"])
        if reasons[number][position] is None and not pair.get("training_only")
    ]
    repeated = repeated_across([(number, question) for number, _, question in places], vector_of, threshold)
    for place in repeated:
        number, position, _ = places[place]
        reasons[number][position] = "near duplicate of another document's"


def rank_own_segments(records: Sequence[dict[str, Any]], contract: Contract, store: str | Path) -> list[list[Standing]]:
    """Standing of each pair's best own segment among all chunks of the corpus, by record and pair."""
    passages = list(dict.fromkeys(chunk["text"] for record in records for chunk in record["chunks"]))
    row_of = {text: row for row, text in enumerate(passages)}
    pairs = [
        (number, pair, [row_of[text] for text in segment_texts(record, pair)])
        for number, record in enumerate(records)
        for pair in record["qa_generation"]["pairs"]
    ]
    ranks: list[list[Standing]] = [[] for _ in records]
    if not pairs:
        return ranks
    corpus = VectorStore(store, contract, "passage").gather(passages)
    queries = VectorStore(store, contract, "query").gather([pair["question"] for _, pair, _ in pairs])
    block = max(1, SCORES_AT_ONCE // len(passages))
    for start in range(0, len(pairs), block):
        scores = queries[start : start + block] @ corpus.T
        for row, (number, _, own) in zip(scores, pairs[start : start + block], strict=True):
            ranks[number].append(standing_of(row, own))
    return ranks


def stored_vectors(contract: Contract, store: str | Path) -> VectorOf:
    """Questions' vectors by the base model, which rule ``embed`` has put into the store."""
    vectors = VectorStore(store, contract, "query")
    return lambda question: unit_length(vectors.gather([question])[0])


def served_vectors(embedder: EmbeddingModel, records: Sequence[dict[str, Any]]) -> VectorOf:
    """Questions' vectors by an endpoint, each asked for once."""
    questions = list(dict.fromkeys(pair["question"] for record in records for pair in record["qa_generation"]["pairs"]))
    vectors = dict(zip(questions, embedder.embed(questions), strict=True))
    if unknown := sum(vector is None for vector in vectors.values()):
        log.warning("%d questions are too long for %s and are not compared with others", unknown, embedder.model)
    usage = embedder.usage
    log.info("%s: %d requests, %d vectors re-used", embedder.model, usage["requests"], usage["reused"])
    return lambda question: (
        None if (vector := vectors[question]) is None else unit_length(np.asarray(vector, np.float32))
    )


def judge_pairs(
    record: dict[str, Any],
    standings: Sequence[Standing],
    seen: set[str],
    vector_of: VectorOf,
    coverage: Coverage,
    options: dict[str, Any],
) -> list[str | None]:
    """Why each pair of a record is dropped (``None``: it is kept); ``seen`` collects the questions of all records.

    Each pair gets its ``marks``.
    """
    top_k = options["round_trip_top_k"]
    reasons: list[str | None] = []
    kept: list[np.ndarray] = []
    judge = record["generation"]["judged"] is not None
    for pair, standing, verdict in zip(record["qa_generation"]["pairs"], standings, _verdicts(record), strict=True):
        question = pair["question"]
        vector = vector_of(question)
        reason = None if pair.get("llm_free") else _fault(record, pair, standing, coverage, options)
        if reason is None and verdict is None and judge and not pair.get("llm_free"):
            reason = "not judged"
        if reason is None and normal_form(question) in seen:
            reason = "asked before"
        if reason is None and top_k is not None and standing.rank > top_k:
            reason = "round trip: own segment not found"
        if reason is None and vector is not None:
            if any(float(vector @ other) > options["similarity_threshold"] for other in kept):
                reason = "near duplicate"
            else:
                kept.append(vector)
        if reason is None:
            seen.add(normal_form(question))
        reasons.append(reason)
    return reasons


def _verdicts(record: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The judge's verdict on each pair, ``None`` where there is none."""
    judged = record["generation"]["judged"] or []
    # pairs made without a model come after the judged ones
    return [*judged, *[None] * (len(record["qa_generation"]["pairs"]) - len(judged))]


def _fault(
    record: dict[str, Any], pair: dict[str, Any], standing: Standing, coverage: Coverage, options: dict[str, Any]
) -> str | None:
    """Why a model's question is dropped whatever else was asked; the pair gets its marks."""
    cut = pair.pop("cut_off", False)
    question, passage = pair["question"], " ".join(segment_texts(record, pair))
    # the title often names what the segment only calls "it"
    titled = f"{record.get('title', '')}\n\n{without_heading(passage)}"
    covered = coverage(question, titled)
    pair["marks"] = marks(standing, covered)
    if options["question_checks"]:
        if cut:
            return "cut off"
        stated = pair["query_type"] == STATEMENT
        reason = fault(question, passage, keywords=pair["query_type"] in LOOKUPS, whole=stated)
        if reason is not None:
            return reason
        if says_too_little(question, passage):
            return "its segment says no more than the question"
        # what is stated to be so or not must be spoken of
        least = max(options["min_coverage"], YES_OR_NO_COVERAGE) if is_yes_or_no(question) else options["min_coverage"]
        if covered < least:
            return "not answered by its segment"
        if not stated and (reason := _unanswered(record, pair, passage, titled, coverage)):
            return reason
    unwanted = set(pair["marks"]) & set(options["drop_marked"])
    return f"marked {min(unwanted)}" if unwanted else None


def _unanswered(
    record: dict[str, Any], pair: dict[str, Any], passage: str, titled: str, coverage: Coverage
) -> str | None:
    """Why a passage that has a question's words has no answer to it; for questions not made of a sentence of it."""
    question = pair["question"]
    if reason := missing(question, titled):
        return reason
    # questions that join segments are answered by none of their sentences alone
    if pair["hop_count"] == 1 and (reason := not_said(question, record.get("title", ""), passage, coverage)):
        return reason
    return "its segment only announces an answer" if only_announces(question, passage, coverage) else None


def keep_pairs(
    record: dict[str, Any], standings: Sequence[Standing], reasons: Sequence[str | None], top_k: int | None
) -> None:
    """Give a record its surviving pairs with an evaluation each, and the list of those dropped."""
    verdicts = _verdicts(record)
    del record["generation"]["judged"]
    pairs, evaluations, dropped = [], [], []
    for pair, standing, reason, verdict in zip(
        record["qa_generation"]["pairs"], standings, reasons, verdicts, strict=True
    ):
        if reason is not None:
            dropped.append({"question": pair["question"], "reason": reason, "rank": standing.rank})
            continue
        pairs.append(pair)
        evaluations.append(verdict or evaluation(standing.rank, top_k))
    record["deduplicated_qa_pairs"] = pairs
    record["qa_evaluations"] = {"evaluations": evaluations}
    record["generation"]["dropped"] = dropped


def evaluation(rank: int, top_k: int | None) -> dict[str, Any]:
    """A judge's verdict in form, from the round trip: 10 at rank 1, falling with its logarithm to 7 at ``top_k``."""
    if top_k is None:
        score, note = PASSING_SCORE, "not judged and not checked by round trip"
    else:
        score = round(10 - (10 - PASSING_SCORE) * math.log(rank) / math.log(max(top_k, 2)), 2)
        note = f"not judged; the base model finds its segment at rank {rank}"
    dimension = {"score": max(1, round(score)), "justification": note}
    dimensions = {name: dict(dimension) for name in ("relevance", "accuracy", "context_support", "clarity")}
    return {**dimensions, "overall": {"score": max(1.0, score), "assessment": note}, "improvements": ""}


def segment_texts(record: dict[str, Any], pair: dict[str, Any]) -> list[str]:
    """Texts of a pair's segments; unknown ids are passed over."""
    wanted = set(pair["segment_ids"])
    return [chunk["text"] for chunk in record["chunks"] if chunk["chunk_id"] in wanted]


def _source(record: dict[str, Any]) -> str:
    return record["source_id"]


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        replies = ReplyStore(f"{snakemake.config['output_dir']}/cache/replies")  # noqa: F821
        sdg(
            snakemake.input.shards,  # noqa: F821
            snakemake.output.records,  # noqa: F821
            snakemake.output.manifest,  # noqa: F821
            snakemake.output.report,  # noqa: F821
            snakemake.output.failures,  # noqa: F821
            snakemake.output.figure,  # noqa: F821
            corpus_id=snakemake.params.corpus_id,  # noqa: F821
            contract=Contract.load(snakemake.input.contract),  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            options={
                **snakemake.params.options,  # noqa: F821
                "max_failed_share": snakemake.config["sdg"]["max_failed_share"],  # noqa: F821
            },
            embedder=open_embedder(
                snakemake.config,  # noqa: F821
                ReplyStore(f"{snakemake.config['output_dir']}/cache/question_vectors"),  # noqa: F821
            ),
        )
        write_provenance(
            snakemake.output.provenance,  # noqa: F821
            config=snakemake.config,  # noqa: F821
            inputs=[*snakemake.input.shards, snakemake.input.contract],  # noqa: F821
            records=snakemake.output.records,  # noqa: F821
            usage=replies.usage(),
        )
