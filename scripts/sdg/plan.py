"""What generation will ask, of whom, how long it takes and what it costs, before anything is sent."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.common.files import read_jsonl, write_json
from scripts.common.job import job, log
from scripts.common.llm import LOCAL, Messages, is_loopback
from scripts.common.llm_embedding import EMBED_BATCH
from scripts.common.llm_traffic import estimate_tokens, price_of
from scripts.common.redaction import redacted_url
from scripts.common.replies import ReplyStore
from scripts.sdg import full, prompts, simple
from scripts.sdg.asking import FRESH
from scripts.sdg.generated import ARTIFACT_TYPES
from scripts.sdg.sampling import PARALLEL, sampled
from scripts.sdg.sections import documents_of

Options = dict[str, Any]
CountTokens = Callable[[str], int]
# Of the length limit of a reply, without room for thinking, this share is expected to be used
EXPECTED_SHARE = 0.5
# Of a question that is not written yet
QUESTION_TOKENS, QUESTION_BYTES = 25, 100
# Completion tokens of a second: of one request to a hosted model, and of the bundled server in all on two cores
# (measured with SmolLM2-135M); taken until there are replies of the same model to measure
HOSTED_RATE, LOCAL_RATE = 60.0, 35.0


def plan(
    records_file: str | Path,
    target: str | Path,
    *,
    options: Options,
    roles: Mapping[str, tuple[str, str]],
    llm: Mapping[str, Any],
    allowed: list[str],
    parallel: int,
    store: ReplyStore,
    embed: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Write documents, chunks, calls, tokens, minutes and money, by role and in all, and where text would go.

    Args:
        records_file: JSON Lines from rule ``chunk``.
        target: JSON.
        options: Options of the ``sdg`` section that decide what is asked.
        roles: ``(provider, model)`` by role.
        llm: The ``llm`` section; providers, prices and tokenizers are read.
        allowed: ``allow_egress``.
        parallel: Requests under way at once, over all jobs.
        store: Earlier replies; they tell how long a call takes.
        embed: ``(provider, model)`` that finds near duplicates among the questions; ``None`` is the base model.
    """
    records = [record for _, record in read_jsonl(records_file, "records file")]
    names = sampled(records, options)
    asked = [record for record in records if record["source_id"] in names]
    counters = {role: token_counter(llm["tokenizers"].get(model)) for role, (_, model) in roles.items()}
    calls = _calls(asked, options, counters)
    if embed is not None:
        roles = {**roles, "question_embedding": embed}
        calls["question_embedding"] = count_embedding(questions(asked, options))
    by_role = {
        role: _role(calls[role], most_tries(role, options), *roles[role], llm, parallel, store) for role in roles
    }
    in_all = {
        name: _sum(item[name] for item in by_role.values())
        for name in (
            *("calls", "calls_at_most", "prompt_tokens", "completion_tokens", "tokens_at_most"),
            *("minutes", "cost", "cost_at_most"),
        )
    }
    sizes = _bytes_by_provider(calls, roles)
    summary = {
        "documents": sum(len(record["bundle_members"]) for record in records),
        "records": len(records),
        "chunks": sum(len(record["chunks"]) for record in records),
        "characters": sum(len(record["text"]) for record in records),
        "documents_asked": sum(len(record["bundle_members"]) for record in asked),
        "records_asked": len(asked),
        "questions_asked": questions(asked, options),
        **in_all,
        "roles": by_role,
        "prompt_bytes_by_provider": sizes,
        "egress": egress(sizes, llm["providers"], allowed),
    }
    write_json(target, summary)
    log.info("%s", describe(summary))
    return summary


def prompt_bytes(
    records: list[dict[str, Any]], options: Options, roles: Mapping[str, tuple[str, str]]
) -> dict[str, int]:
    """Bytes of prompts by provider, for some records."""
    return _bytes_by_provider(_calls(records, options, dict.fromkeys(roles, len)), roles)


def _calls(
    asked: list[dict[str, Any]], options: Options, counters: Mapping[str, CountTokens]
) -> dict[str, list[dict[str, int]]]:
    """Calls by role."""
    calls: dict[str, list[dict[str, int]]] = {role: [] for role in counters}
    count = count_simple if options["style"] == "simple" else count_full
    for record in asked:
        for role, call in count(record, options, counters):
            calls[role].append(call)
    return calls


def _bytes_by_provider(
    calls: Mapping[str, list[dict[str, int]]], roles: Mapping[str, tuple[str, str]]
) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for role, (provider, _) in roles.items():
        sizes[provider] = sizes.get(provider, 0) + sum(call["bytes"] for call in calls[role])
    return sizes


def describe(summary: Mapping[str, Any]) -> str:
    """The plan for a reader."""
    lines = [
        f"{summary['documents']} documents in {summary['chunks']} chunks; {summary['questions_asked']} questions about "
        f"{summary['documents_asked']} of them",
        f"calls: {summary['calls']}, at most {summary['calls_at_most']}",
        f"tokens: about {summary['prompt_tokens']:,} prompt + {summary['completion_tokens']:,} completion, at most "
        f"{summary['tokens_at_most']:,}",
        f"time: about {summary['minutes']:.1f} minutes",
        f"money: about {summary['cost']:.4f}, at most {summary['cost_at_most']:.4f}",
    ]
    for role, item in summary["roles"].items():
        lines.append(
            f"  {role}: {item['model']} at {item['provider']}; tokens {item['tokens_from']}; time {item['time_from']}"
            + ("" if item["priced"] else "; no price in llm.prices, counted as 0")
        )
    lines += [
        f"document text: {item['bytes']:,} bytes to {item['host']} ({item['state']})" for item in summary["egress"]
    ]
    return "nothing was sent. The plan:\n" + "\n".join(lines)


def _sum(values: Any) -> Any:
    total = sum(values)
    return round(total, 6) if isinstance(total, float) else total


def _role(
    calls: list[dict[str, int]],
    tries: int,
    provider: str,
    model: str,
    llm: Mapping[str, Any],
    parallel: int,
    store: ReplyStore,
) -> dict[str, Any]:
    """Sums of one role."""
    sums = {name: sum(call[name] for call in calls) for name in ("prompt", "expected", "limit")}
    known = store.usage().get(model)
    if known and known["seconds"]:
        minutes = len(calls) * known["seconds"] / known["requests"] / parallel / 60
        basis = f"as measured on {known['requests']} earlier replies"
    elif provider == LOCAL:
        minutes, basis = sums["expected"] / LOCAL_RATE / 60, f"assumed {LOCAL_RATE:g} tokens/s in all"
    else:
        minutes = sums["expected"] / HOSTED_RATE / parallel / 60
        basis = f"assumed {HOSTED_RATE:g} tokens/s for each of {parallel} requests"
    most = {"prompt_tokens": tries * sums["prompt"], "completion_tokens": tries * sums["limit"]}
    expected = {"prompt_tokens": sums["prompt"], "completion_tokens": sums["expected"]}
    return {
        "provider": provider,
        "model": model,
        "calls": len(calls),
        "calls_at_most": tries * len(calls),
        **expected,
        "tokens_at_most": sum(most.values()),
        "minutes": round(minutes, 2),
        "cost": round(price_of(model, llm["prices"], expected), 6),
        "cost_at_most": round(price_of(model, llm["prices"], most), 6),
        "priced": provider == LOCAL or model in llm["prices"],
        "tokens_from": "by its tokenizer" if model in llm["tokenizers"] else "estimated from characters",
        "time_from": basis,
    }


def most_tries(role: str, options: Options) -> int:
    """Requests for one reply: one that cannot be used is asked for again, and so is what a list leaves out."""
    if role == "question_embedding":
        return 1
    return FRESH + (options["style"] == "full" and role != "artifact_extraction")


def token_counter(tokenizer: str | None) -> CountTokens:
    """Counts tokens with a tokenizer (a folder with ``tokenizer.json``), or estimates them."""
    if tokenizer is None:
        return estimate_tokens
    from scripts.common.tokens import fast_tokenizer

    encoder = fast_tokenizer(Path(tokenizer))
    return lambda text: len(encoder.encode(text).ids)


def egress(sizes: Mapping[str, int], providers: Mapping[str, Any], allowed: list[str]) -> list[dict[str, Any]]:
    """Where text would go, how much of it, and whether the configuration permits that."""
    rows = []
    for provider, size in sizes.items():
        url = providers[provider]["base_url"] if provider in providers else "http://127.0.0.1"
        host = urlsplit(url).hostname or ""
        state = "this machine" if is_loopback(host) else "allowed" if host in allowed else "NOT ALLOWED by allow_egress"
        rows.append({"provider": provider, "url": redacted_url(url), "host": host, "bytes": size, "state": state})
    return rows


def questions(asked: list[dict[str, Any]], options: Options) -> int:
    """Questions that are asked for."""
    if options["style"] == "full":
        return options["num_pairs"] * len(asked)
    return sum(min(options["num_pairs"], len(record["chunks"]) * simple.QUESTIONS_PER_CALL) for record in asked)


def _call(messages: Messages, count: CountTokens, limit: int, thinking: int = 0, extra: int = 0) -> dict[str, int]:
    texts = [message["content"] for message in messages]
    return {
        "prompt": sum(map(count, texts)) + extra,
        "expected": math.ceil(EXPECTED_SHARE * (limit - thinking)),
        "limit": limit,
        "bytes": sum(len(text.encode()) for text in texts) + 4 * extra,
    }


def count_simple(record: dict[str, Any], options: Options, counters: Mapping[str, CountTokens]) -> Any:
    """Role, prompt and reply of each call about a record: one a segment."""
    title = simple.title_of(record)
    for chunk, _ in simple.chosen(record["chunks"], title, options["num_pairs"]):
        messages = simple.messages(chunk["text"], title)
        yield "qa_generation", _call(messages, counters["qa_generation"], simple.MAX_TOKENS)


def count_full(record: dict[str, Any], options: Options, counters: Mapping[str, CountTokens]) -> Any:
    """The same for the full protocol: artifacts, questions, judge.

    What artifacts and pairs add to the later prompts is taken from their expected lengths. A document that does not fit
    the model is asked about in parts, which is known only once the endpoint has refused it, and comes on top.
    """
    shown, documents = record["sections_structured"], documents_of(record["chunks"])
    wanted = options["num_pairs"]
    lengths = {
        "artifacts": full.ARTIFACT * options["max_artifacts_per_type"] * len(ARTIFACT_TYPES),
        "pairs": full.PAIR * wanted,
    }
    artifacts, pairs = (math.ceil(EXPECTED_SHARE * lengths[name]) for name in ("artifacts", "pairs"))
    yield (
        "artifact_extraction",
        _call(
            prompts.artifact_messages(record["text"], documents=documents, options=options),
            counters["artifact_extraction"],
            full.THINKING + lengths["artifacts"],
            full.THINKING,
        ),
    )
    messages = prompts.question_messages(
        shown, {}, wanted=wanted, segments=len(record["chunks"]), documents=documents, options=options
    )
    yield (
        "qa_generation",
        _call(messages, counters["qa_generation"], full.THINKING + lengths["pairs"], full.THINKING, artifacts),
    )
    yield (
        "quality_judge",
        _call(
            prompts.judge_messages(shown, []),
            counters["quality_judge"],
            full.THINKING + full.VERDICT * wanted,
            full.THINKING,
            pairs,
        ),
    )


def count_embedding(count: int) -> list[dict[str, int]]:
    """The calls for the vectors of so many questions."""
    sizes = [min(EMBED_BATCH, count - start) for start in range(0, count, EMBED_BATCH)]
    text = {"prompt": QUESTION_TOKENS, "expected": 0, "limit": 0, "bytes": QUESTION_BYTES}
    return [{name: size * value for name, value in text.items()} for size in sizes]


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        plan(
            snakemake.input.records,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            roles=snakemake.params.roles,  # noqa: F821
            llm=snakemake.params.llm,  # noqa: F821
            allowed=snakemake.params.allowed,  # noqa: F821
            embed=snakemake.params.embed,  # noqa: F821
            parallel=snakemake.config["sdg"]["max_parallel_requests_for_gen"] or PARALLEL,  # noqa: F821
            store=ReplyStore(f"{snakemake.config['output_dir']}/cache/replies"),  # noqa: F821
        )
