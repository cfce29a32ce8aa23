"""Questions for the records of one shard; replies are stored as they come, so a second run asks for the rest alone."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_jsonl, write_jsonl
from scripts.common.job import job, log
from scripts.common.llm import LOCAL, ChatModel
from scripts.common.progress import progress
from scripts.common.replies import ReplyStore
from scripts.sdg import full, simple
from scripts.sdg.generated import ARTIFACT_TYPES, Generated
from scripts.sdg.llm_free import llm_free_pairs
from scripts.sdg.sampling import sampled, shard_of

STYLES: dict[str, Callable[[dict[str, Any], dict[str, ChatModel], dict[str, Any]], Generated]] = {
    "simple": simple.generate,
    "full": full.generate,
}
PARALLEL = 4


def generate(
    records_file: str | Path,
    target: str | Path,
    *,
    shard: int,
    shards: int,
    options: dict[str, Any],
    models: dict[str, ChatModel],
    parallel: int,
) -> None:
    """Write the shard's records with their pairs.

    Args:
        records_file: JSON Lines from rule ``chunk``.
        target: JSON Lines, the same records with ``document_artifacts``, ``qa_generation`` and ``generation`` added.
        shard: Number of this shard, from 0.
        shards: How many there are.
        options: Options of the ``sdg`` section that decide what is asked.
        models: Chat models by role.
        parallel: Records under way at once.

    Raises:
        UserError: An endpoint is dead or refuses; replies so far are kept.
    """
    records = [record for _, record in read_jsonl(records_file, "records file")]
    asked = sampled(records, options)
    mine = [record for record in records if shard_of(record["source_id"], shards) == shard]
    if options["preview"]:
        mine = [record for record in mine if record["source_id"] in asked]
    work = [record for record in mine if record["source_id"] in asked]
    results = {record["source_id"]: Generated([]) for record in mine}
    bar = progress(len(work), f"generate {shard + 1}/{shards}", "doc")
    with ThreadPoolExecutor(parallel) as pool:
        waiting = {pool.submit(STYLES[options["style"]], record, models, options): record for record in work}
        try:
            for done in as_completed(waiting):
                results[waiting[done]["source_id"]] = done.result()
                bar.update()
        except BaseException:
            # requests under way end and their replies are kept; those that wait are not sent
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            bar.close()
    for record in mine:
        add_result(record, results[record["source_id"]], llm_free_pairs(record, options["llm_free_pairs"]))
    write_jsonl(target, mine)
    log_usage(models, work, results)


def add_result(record: dict[str, Any], result: Generated, free: list[dict[str, Any]]) -> None:
    """Put what was generated into a record, in the recipe's fields."""
    record["document_artifacts"] = {name: result.artifacts.get(name, []) for name in ARTIFACT_TYPES}
    record["qa_generation"] = {"pairs": [*result.pairs, *free]}
    record["generation"] = {"problems": result.problems, "judged": result.evaluations}


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


def open_models(config: dict[str, Any], store: ReplyStore, local_address: str | Path | None) -> dict[str, ChatModel]:
    """Chat models by role, as configured; roles with the same provider and model share one."""
    roles = ["qa_generation"]
    if config["sdg"]["style"] == "full":
        roles += ["artifact_extraction", "quality_judge"]
    opened: dict[tuple[str, str], ChatModel] = {}
    models = {}
    for role in roles:
        provider, model = config["sdg"][f"{role}_provider"], config["sdg"][f"{role}_model"]
        if (provider, model) not in opened:
            if provider == LOCAL and local_address is not None:
                place = {"base_url": wait_for_address(local_address), "api_key_env": None}
            else:
                place = config["llm"]["providers"][provider]
            opened[provider, model] = ChatModel(
                provider=provider,
                model=model,
                base_url=place["base_url"],
                key_variable=place["api_key_env"],
                allowed=config["allow_egress"],
                store=store,
                sampling={name: config["llm"][name] for name in ("temperature", "top_p")},
                timeout=config["llm"]["timeout"],
                max_retries=config["llm"]["max_retries"],
            )
        models[role] = opened[provider, model]
    return models


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        generate(
            snakemake.input.records,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            shard=int(snakemake.wildcards.shard),  # noqa: F821
            shards=snakemake.params.shards,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            models=open_models(
                snakemake.config,  # noqa: F821
                ReplyStore(f"{snakemake.config['output_dir']}/cache/replies"),  # noqa: F821
                snakemake.input.get("server"),  # noqa: F821
            ),
            parallel=snakemake.config["sdg"]["max_parallel_requests_for_gen"] or PARALLEL,  # noqa: F821
        )
