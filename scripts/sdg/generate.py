"""Questions for the records of one shard; replies are stored as they come, so a second run asks for the rest alone."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_jsonl, write_jsonl
from scripts.common.job import job, log
from scripts.common.llm import LOCAL, ChatModel, check_egress, endpoint_options
from scripts.common.llm_traffic import Budget
from scripts.common.progress import progress
from scripts.common.replies import ReplyStore
from scripts.sdg import full, simple
from scripts.sdg.embedder import check_embedder
from scripts.sdg.generated import ARTIFACT_TYPES, Generated, check_share
from scripts.sdg.llm_free import llm_free_pairs
from scripts.sdg.llm_free_extra import extra_pairs
from scripts.sdg.plan import prompt_bytes, questions
from scripts.sdg.sampling import PARALLEL, sampled, shard_of

STYLES: dict[str, Callable[[dict[str, Any], dict[str, ChatModel], dict[str, Any]], Generated]] = {
    "simple": simple.generate,
    "full": full.generate,
}


def generate(
    records_file: str | Path,
    target: str | Path,
    *,
    shard: int,
    shards: int,
    options: dict[str, Any],
    models: dict[str, ChatModel],
    parallel: int,
    ledger: str | Path,
    max_failed_share: float,
) -> None:
    """Write the shard's records with their pairs.

    Args:
        records_file: JSON Lines from rule ``chunk``.
        target: JSON Lines, the same records with ``document_artifacts``, ``qa_generation`` and ``generation`` added.
        shard: Number of this shard, from 0.
        shards: How many there are.
        options: Options of the ``sdg`` section that decide what is asked.
        models: Chat models by role.
        parallel: Requests under way at once.
        ledger: JSON Lines with the calls that came to nothing, and raw replies. Also written where this ends with an
            error.
        max_failed_share: Share of documents that may be left without any question; one of several may where there are
            other shards.

    Raises:
        UserError: An endpoint is dead or refuses, the budget is used up, or too many documents got no question. Replies
            so far are kept; another run asks for the rest alone.
    """
    records = [record for _, record in read_jsonl(records_file, "records file")]
    asked = sampled(records, options)
    mine = [record for record in records if shard_of(record["source_id"], shards) == shard]
    if options["preview"]:
        mine = [record for record in mine if record["source_id"] in asked]
    work = [record for record in mine if record["source_id"] in asked]
    results = {record["source_id"]: Generated([]) for record in mine}
    try:
        results.update(generated(work, models, options, parallel, f"generate {shard + 1}/{shards}"))
    finally:
        write_jsonl(
            ledger,
            ({"source_id": name, **failure} for name, result in results.items() for failure in result.failures),
        )
        log_usage(models, work, results)
    check_failures(results, len(work), max_failed_share, ledger, alone=shards == 1)
    for record in mine:
        add_result(record, results[record["source_id"]], free_pairs(record, options))
        record["generation"]["asked"] = questions([record], options) if record["source_id"] in asked else 0
    write_jsonl(target, mine)
    if options["preview"]:
        for record in mine:
            log.info("preview:\n%s", shown(record))


def shown(record: dict[str, Any]) -> str:
    """A record's questions for a reader, each with its answer and the beginning of its first segment."""
    texts = {chunk["chunk_id"]: " ".join(chunk["text"].split()) for chunk in record["chunks"]}
    lines = [f"{record['source_id']}: {len(record['qa_generation']['pairs'])} pairs"]
    for pair in record["qa_generation"]["pairs"]:
        lines += [
            f"  [{pair['query_type']}] {pair['question']}",
            *([f"    answer: {pair['answer']}"] if pair["answer"] else []),
            f"    segments {pair['segment_ids']}: {texts[pair['segment_ids'][0]][:160]}",
        ]
    return "\n".join([*lines, *(f"  problem: {text}" for text in record["generation"]["problems"])])


def generated(
    work: Sequence[dict[str, Any]],
    models: dict[str, ChatModel],
    options: dict[str, Any],
    parallel: int,
    what: str,
) -> Iterator[tuple[str, Generated]]:
    """Source id and result of each record, as they are done."""
    bar = progress(len(work), what, "doc")
    # More records than requests: while some wait for another try or read a reply, others use the slots
    with ThreadPoolExecutor(2 * parallel) as pool:
        waiting = {pool.submit(STYLES[options["style"]], record, models, options): record for record in work}
        try:
            for done in as_completed(waiting):
                yield waiting[done]["source_id"], done.result()
                bar.set_postfix_str(spending(models), refresh=False)
                bar.update()
        except BaseException:
            # requests under way end and their replies are kept; those that wait are not sent
            for model in models.values():
                model.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            bar.close()


def spending(models: dict[str, ChatModel]) -> str:
    """Tokens and money of this process so far, for the progress bar."""
    unique = list({id(model): model for model in models.values()}.values())
    tokens = sum(model.usage["prompt_tokens"] + model.usage["completion_tokens"] for model in unique)
    cost = sum(model.cost() for model in unique)
    return f"{tokens:,} tokens" + (f", cost {cost:.2f}" if cost else "")


def check_failures(results: dict[str, Generated], asked: int, share: float, ledger: str | Path, *, alone: bool) -> None:
    """Say which documents lack something; :class:`UserError` when too many have no question at all.

    Args:
        results: What was generated, by source id.
        asked: Documents asked about.
        share: Share of them that may have none.
        ledger: Named in messages.
        alone: There is no other shard.
    """
    failed = [name for name, result in results.items() if result.failures]
    empty = [name for name in failed if not results[name].pairs]
    if failed:
        log.warning(
            "calls about %d of %d documents came to nothing (%s%s): what was replied is in %s. `snakemake -R generate` "
            "asks for these alone.",
            *(len(failed), asked, ", ".join(failed[:5]), ", …" if len(failed) > 5 else "", ledger),
        )
    # of a small shard one document is a large share; rule sdg looks at the shards together
    if alone or len(empty) == asked or len(empty) > 1:
        check_share(empty, asked, share, f"see {ledger}. All other replies are kept: run again to ask for these alone")


def free_pairs(record: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs that need no LLM, for training alone unless the options say otherwise."""
    training_only = not options["llm_free_test_queries"]
    pairs = llm_free_pairs(record, options["llm_free_pairs"])
    if not training_only:
        # a test query is about a passage of the corpus
        pairs = [{k: v for k, v in pair.items() if k not in {"training_only", "passage"}} for pair in pairs]
    pairs += extra_pairs(record, options["llm_free_extra_pairs"], training_only=training_only)
    return [{**pair, "llm_free": True} for pair in pairs]


def add_result(record: dict[str, Any], result: Generated, free: list[dict[str, Any]]) -> None:
    """Put what was generated into a record, in the recipe's fields."""
    record["document_artifacts"] = {name: result.artifacts.get(name, []) for name in ARTIFACT_TYPES}
    record["qa_generation"] = {"pairs": [*result.pairs, *free]}
    record["generation"] = {
        "problems": result.problems,
        "judged": result.evaluations,
        "failures": result.failures,
    }


def log_usage(models: dict[str, ChatModel], work: Sequence[Any], results: dict[str, Generated]) -> None:
    """Say what was asked and what came of it."""
    pairs = sum(len(result.pairs) for result in results.values())
    problems = [f"{name}: {text}" for name, result in results.items() for text in result.problems]
    for text in problems[:10]:
        log.warning("%s", text)
    log.info("%d questions about %d documents, %d problems", pairs, len(work), len(problems))
    for model in {id(model): model for model in models.values()}.values():
        usage = model.usage
        log.info(
            "%s: %d requests, %d replies re-used, %d prompt and %d completion tokens",
            *(model.model, usage["requests"], usage["reused"], usage["prompt_tokens"], usage["completion_tokens"]),
        )


def wait_for_address(path: str | Path, timeout: float = 120) -> str:
    """The local server's address, once it answers; :class:`UserError` when it does not come up."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))["base_url"]
        except (OSError, ValueError):
            time.sleep(0.2)
    raise UserError(f"the local generator did not start within {timeout:.0f} s; its log is logs/llm_server.log.")


def check_all_egress(
    config: dict[str, Any],
    records_file: str | Path,
    options: dict[str, Any],
    roles: dict[str, tuple[str, str]],
) -> None:
    """Refuse, before anything is sent, what ``allow_egress`` does not name; the message has the host and the bytes."""
    records = [record for _, record in read_jsonl(records_file, "records file")]
    names = sampled(records, options)
    asked = [record for record in records if record["source_id"] in names]
    for provider, size in prompt_bytes(asked, options, roles).items():
        if provider in config["llm"]["providers"]:
            check_egress(config["llm"]["providers"][provider]["base_url"], config["allow_egress"], size)


def open_models(
    config: dict[str, Any], store: ReplyStore, local_address: str | Path | None, parallel: int = PARALLEL
) -> dict[str, ChatModel]:
    """Chat models by role, as configured; roles with the same provider and model share one."""
    llm = config["llm"]
    budget = Budget(store, max_cost=llm["max_cost"], max_tokens=llm["max_tokens"], prices=llm["prices"])
    roles = ["qa_generation"]
    if config["sdg"]["style"] == "full":
        roles += ["artifact_extraction", "quality_judge"]
    opened: dict[tuple[str, str], ChatModel] = {}
    models = {}
    for role in roles:
        provider, model = config["sdg"][f"{role}_provider"], config["sdg"][f"{role}_model"]
        if (provider, model) not in opened:
            place = None
            if provider == LOCAL and local_address is not None:
                place = {"base_url": wait_for_address(local_address), "api_key_env": None}
            opened[provider, model] = ChatModel(
                **endpoint_options(config, provider, place),
                model=model,
                store=store,
                sampling={name: llm[name] for name in ("temperature", "top_p")},
                parallel=parallel,
                budget=budget,
            )
        models[role] = opened[provider, model]
    return models


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        in_flight = snakemake.config["sdg"]["max_parallel_requests_for_gen"] or PARALLEL  # noqa: F821
        cache = f"{snakemake.config['output_dir']}/cache"  # noqa: F821
        preview = snakemake.params.options["preview"]  # noqa: F821
        if snakemake.config["sdg"]["preview"] and not preview:  # noqa: F821
            raise UserError("sdg.preview is true: ask for the default target or `preview` alone, or set it to false.")
        if not preview:
            check_embedder(snakemake.config)  # noqa: F821
        number, count = int(snakemake.wildcards.get("shard", 0)), snakemake.params.shards  # noqa: F821
        check_all_egress(
            snakemake.config,  # noqa: F821
            snakemake.input.records,  # noqa: F821
            snakemake.params.options,  # noqa: F821
            snakemake.params.models,  # noqa: F821
        )
        generate(
            snakemake.input.records,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            shard=number,
            shards=count,
            options=snakemake.params.options,  # noqa: F821
            models=open_models(
                snakemake.config,  # noqa: F821
                ReplyStore(f"{cache}/replies"),
                snakemake.input.get("server"),  # noqa: F821
                in_flight,
            ),
            parallel=in_flight,
            ledger=f"{cache}/failures/{'preview' if preview else f'shard_{number}_of_{count}'}.jsonl",
            max_failed_share=snakemake.config["sdg"]["max_failed_share"],  # noqa: F821
        )
