"""Stage 0: documents to questions.

inputs: corpus_dir
optional inputs: sdg.chunks_file, sdg.multi_doc_manifest
outputs: stage0_sdg/plan.json, chunks/, generated/{shard}.jsonl, preview.jsonl (with sdg.preview, and then no
    other), sdg.jsonl, sdg_report.json and .svg, failures.jsonl (the ledger), provenance.json, generation_result.json
"""

SDG = "stage0_sdg"
SHARDS = range(config["sdg"]["shards"])
ASKED_ROLES = ["qa_generation"] + (
    ["artifact_extraction", "quality_judge"] if config["sdg"]["style"] == "full" else []
)
EMBED = (
    f"{config['sdg']['embed_provider']}/{config['sdg']['embed_model']}"
    if config["sdg"]["embed_model"]
    else None
)
# What decides the prompts
PROMPT_OPTIONS = options(
    "sdg",
    "style",
    "num_pairs",
    "sample_documents",
    "query_counts",
    "reasoning_counts",
    "lookup_share",
    "max_artifacts_per_type",
    "min_hops",
    "max_hops",
    "min_complexity",
)
PROMPT_OPTIONS["preview"] = False
GENERATION_OPTIONS = {
    **PROMPT_OPTIONS,
    **options("sdg", "llm_free_pairs", "llm_free_extra_pairs", "llm_free_test_queries"),
}
LOCAL_LLM = any(config["sdg"][f"{role}_provider"] == "local" for role in ASKED_ROLES)


include: "documents.smk"
include: "generator.smk"


rule generate:
    input:
        records=rules.chunk.output.records,
        server=branch(LOCAL_LLM, then=rules.llm_server.output[0], otherwise=[]),
    output:
        out(f"{SDG}/generated/{{shard}}.jsonl"),
    log:
        log_file("generate_{shard}"),
    conda:
        environment("llm")
    resources:
        llm=0 if LOCAL_LLM else 1,
        mem_mb=2000,
        runtime=720,
    params:
        shards=len(SHARDS),
        options=GENERATION_OPTIONS,
        models=rules.plan.params.roles,
        sampling=options("llm", "temperature", "top_p"),
        code=code("sdg/generate.py"),
    message:
        "generating questions, shard {wildcards.shard}"
    script:
        "../scripts/sdg/generate.py"


# One document, beside a full run's files
use rule generate as preview with:
    output:
        out(f"{SDG}/preview.jsonl"),
    log:
        log_file("preview"),
    params:
        shards=1,
        options={**GENERATION_OPTIONS, "preview": True},
        models=rules.plan.params.roles,
        sampling=options("llm", "temperature", "top_p"),
        code=code("sdg/generate.py"),
    message:
        "generating the questions of one document"


rule sdg:
    input:
        shards=expand(rules.generate.output, shard=SHARDS),
        contract=lambda wildcards: CONTRACTS["base"],
        chunks=out("vectors/base/chunks.json"),
        questions=out("vectors/base/questions.json"),
    output:
        records=out(f"{SDG}/sdg.jsonl"),
        manifest=out(f"{SDG}/generation_result.json"),
        report=out(f"{SDG}/sdg_report.json"),
        failures=out(f"{SDG}/failures.jsonl"),
        figure=report(
            out(f"{SDG}/sdg_report.svg"),
            category="Stage 0: questions",
            labels={"figure": "asked to kept"},
        ),
        provenance=out(f"{SDG}/provenance.json"),
    log:
        log_file("sdg"),
    conda:
        environment("llm" if EMBED else "cpu")
    resources:
        llm=1 if EMBED else 0,
        mem_mb=4000,
        runtime=60,
    params:
        corpus_id=config["corpus_id"],
        options={
            **options(
                "sdg",
                "round_trip_top_k",
                "similarity_threshold",
                "similarity_threshold_across",
                "min_coverage",
                "drop_marked",
                "llm_free_share",
            ),
            "question_checks": (
                config["sdg"]["style"] == "simple"
                if config["sdg"]["question_checks"] is None
                else config["sdg"]["question_checks"]
            ),
        },
        embed=EMBED,
        code=code("sdg/sdg.py"),
    message:
        "checking the questions"
    script:
        "../scripts/sdg/sdg.py"
