"""One self-contained page: may I ship it, how surely, for whom, and what it rests on."""

import html
import json
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scripts.common.bm25 import tokens
from scripts.common.files import read_json, sha256_file, write_text
from scripts.common.job import job, log
from scripts.common.redaction import redacted
from scripts.eval.figures import render
from scripts.eval.gathered import figures, optional

PAGE = Path(__file__).parent / "page"
DECISIONS = {
    "ship": ("Ship it", "The tuned model is surely better."),
    "do_not_ship": ("Do not ship it", "The tuned model is not better, or worse where it matters."),
    "insufficient_data": ("Too little data to say", "The difference could be chance, or the test is too small."),
}
PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "onnxruntime", "bm25s", "snakemake", "numpy")


def write_report(
    results_file: str | Path,
    comparisons: Sequence[str | Path],
    target: str | Path,
    folder: str | Path,
    *,
    output: str | Path,
    config: dict[str, Any],
    language: str | None,
    judged: Sequence[str | Path] = (),
) -> None:
    """Write the page, and the figures with their data.

    Args:
        results_file: ``eval_results.json``.
        comparisons: ``stage3_eval/comparison/{test set}.json``.
        target: The page.
        folder: Where the figures go.
        output: The output folder; files of other stages are read from there as far as they are there.
        config: The whole configuration, to be shown.
        language: For words that query and passage share, which are marked.
        judged: ``stage3_eval/judged/{test set}.json``, where near misses were judged.
    """
    from jinja2 import Environment, FileSystemLoader

    results = read_json(results_file, "evaluation")
    compared = {Path(path).stem: read_json(path, "comparison") for path in comparisons}
    tuned = of_tuned_model(Path(output), results["_metadata"].get("finetuned_model_path"))
    made = figures(Path(output), compared, trained_here="chosen" in tuned)
    drawn = [{"figure": figure, "svg": render(figure, Path(folder))} for figure in made]
    verdict = results["_verdict"]
    title, summary = DECISIONS[verdict["decision"]]
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(signed=signed, typeset=typeset)
    grades = {Path(path).stem: read_json(path, "judged near misses") for path in judged}
    page = environment.get_template("report.html.j2").render(
        corpus=config["corpus_id"],
        verdict=verdict,
        title=title,
        summary=summary,
        compared=compared,
        figures=drawn,
        headline=headline(verdict, compared),
        examples=[
            item
            for name, value in compared.items()
            for item in examples(name, {**value, **grades.get(name, {})}, language)
        ],
        facts=facts(Path(output), results, Path(results_file), compared, tuned),
        latency=optional(Path(output) / "stage3_eval" / "latency.json"),
        judged=grades,
        config=json.dumps(redacted(config), indent=2, ensure_ascii=False),
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        script=(PAGE / "report.js").read_text(encoding="utf-8"),
    )
    write_text(target, page)
    log.info("%s: %d figures, %d kB", target, len(drawn), len(page) // 1000)


def headline(verdict: dict[str, Any], compared: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """What the verdict rests on in four numbers; ``None`` where base and tuned model were not both evaluated."""
    row = verdict.get("evidence", {}).get(verdict.get("test_set"))
    if row is None:
        return None
    value = compared[verdict["test_set"]]
    metric = verdict["metric"]
    scores = {system: value["systems"][system][metric] for system in ("base", "finetuned")}
    return {**row, **scores, "metric": metric, "set": verdict["test_set"], "confidence": value["confidence"]}


def signed(value: float, decimals: int = 1) -> str:
    """A difference in points, with its sign as typography has it."""
    return typeset(f"{100 * value:+.{decimals}f}")


def typeset(text: str) -> str:
    """The text with minus signs where numbers have hyphens."""
    return re.sub(r"(?<![\w.@-])-(?=\d)", "\N{MINUS SIGN}", text)


def examples(name: str, value: dict[str, Any], language: str | None) -> list[dict[str, Any]]:
    """Wins, losses and near misses of a test set with the query's words marked in the passages."""
    found = []
    for kind in ("wins", "losses"):
        for row in value.get(kind, []):
            words = stems(row["text"], language)
            results = {
                system: [{**item, "text": marked(item["text"], words, language)} for item in items]
                for system, items in row["results"].items()
            }
            positives = [{**item, "text": marked(item["text"], words, language)} for item in row["positives"]]
            found.append({**row, "kind": kind, "set": name, "results": results, "positives": positives})
    for row in value.get("near_misses", []):
        words = stems(row["text"], language)
        text = marked(row["passage_text"], words, language)
        found.append({**row, "kind": "near misses", "set": name, "passage_text": text})
    return found


def stems(text: str, language: str | None) -> set[str]:
    """The words of a text as they are compared."""
    return set(tokens([text], language)[0])


def marked(text: str, words: set[str], language: str | None) -> Any:
    """The text as HTML with every word whose stem is in ``words`` marked."""
    from markupsafe import Markup

    parts = re.split(r"(\w\w+)", text)
    # one call for all words: a stemmer per word would take longer than the page
    plain = [part.lower() for part in parts[1::2]]
    stems = dict(zip(plain, tokens(plain, language), strict=True))
    return Markup(  # noqa: S704 - every part is escaped
        "".join(
            f"<mark>{html.escape(part)}</mark>" if place % 2 and words & set(stems[part.lower()]) else html.escape(part)
            for place, part in enumerate(parts)
        )
    )


def of_tuned_model(output: Path, model: str | None) -> dict[str, Any]:
    """Stage 2's summary where the tuned model is what it wrote; of any other model the digest of its weights."""
    contract = optional(Path(model or output, "contract.json")) or {}
    summary = optional(output / "stage2_finetune" / "finetune.json") or {}
    weights = contract.get("weights_sha256")
    return summary if weights and weights == summary.get("weights_sha256") else {"weights_sha256": weights}


def facts(
    output: Path,
    results: dict[str, Any],
    results_file: Path,
    compared: dict[str, dict[str, Any]],
    tuned: dict[str, Any],
) -> list[tuple[str, str]]:
    """Provenance: models, digests, versions.

    Args:
        output: The output folder.
        results: Content of ``results_file``.
        results_file: ``eval_results.json``.
        compared: Comparisons by test set.
        tuned: See :func:`of_tuned_model`.
    """
    metadata = results["_metadata"]
    found = [
        ("Base model", metadata.get("base_model")),
        ("Tuned model", metadata.get("finetuned_model_path")),
        ("SHA-256 of the tuned weights", tuned.get("weights_sha256")),
        ("Chosen checkpoint", json.dumps(tuned["chosen"]) if "chosen" in tuned else None),
        ("Training pairs", tuned.get("examples")),
        ("SHA-256 of the questions (sdg.jsonl)", digest(output / "stage0_sdg" / "sdg.jsonl")),
        *(
            (f"SHA-256 of test set {name}, {file}", digest(Path(value["test_set"]) / file))
            for name, value in compared.items()
            for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
        ),
        ("SHA-256 of eval_results.json", sha256_file(results_file)),
        ("Python", f"{platform.python_version()} on {platform.machine()}, {platform.system()}"),
    ]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return [(name, str(value)) for name, value in found if value is not None]


def digest(path: Path) -> str | None:
    """SHA-256 of a file, ``None`` where it is absent."""
    return sha256_file(path) if path.is_file() else None


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        write_report(
            snakemake.input.results,  # noqa: F821
            snakemake.input.comparisons,  # noqa: F821
            snakemake.output.page,  # noqa: F821
            snakemake.output.figures,  # noqa: F821
            output=snakemake.config["output_dir"],  # noqa: F821
            config=snakemake.config,  # noqa: F821
            language=snakemake.params.language,  # noqa: F821
            judged=snakemake.input.judged,  # noqa: F821
        )
