"""Stage 0: documents to questions.

inputs: corpus_dir
optional inputs: none
outputs: stage0_sdg/plan.json, chunks/, generated/{shard}.jsonl, sdg.jsonl, sdg_report.json and .svg, failures.jsonl (the ledger), provenance.json,
    generation_result.json
"""

from scripts.common.corpus import SAMPLE

SDG = "stage0_sdg"
SHARDS = range(config["sdg"]["shards"])
IS_SAMPLE = config["corpus_dir"].startswith(SAMPLE) and not config["sdg"]["chunks_file"]
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
    "preview",
    "query_counts",
    "reasoning_counts",
    "lookup_share",
    "max_artifacts_per_type",
    "min_hops",
    "max_hops",
    "min_complexity",
)
LOCAL_LLM = any(config["sdg"][f"{role}_provider"] == "local" for role in ASKED_ROLES)
GENERATOR = f"{config['llm']['local']['model_dir']}/SmolLM2-135M-Instruct.Q4_1.gguf"


rule sample_corpus:
    output:
        directory(out(f"{SDG}/sample_corpus")),
    log:
        log_file("sample_corpus"),
    localrule: True
    conda:
        TORCH
    params:
        package=config["corpus_dir"].removeprefix(SAMPLE),
        code=code("sdg/sample_corpus.py"),
    message:
        "writing a sample corpus from the docstrings of {params.package}"
    script:
        "../scripts/sdg/sample_corpus.py"


def bundle_manifest(wildcards):
    """Parameter that follows the content of the bundle manifest."""
    path = config["sdg"]["multi_doc"] and config["sdg"]["multi_doc_manifest"]
    return digest_of_file(path) if path else None


rule chunk:
    input:
        corpus=branch(IS_SAMPLE, then=out(f"{SDG}/sample_corpus"), otherwise=[]),
    output:
        records=out(f"{SDG}/chunks/records.jsonl"),
        report=out(f"{SDG}/chunks/report.json"),
        groups=out(f"{SDG}/chunks/near_duplicates.json"),
    log:
        log_file("chunk"),
    conda:
        TORCH
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        corpus_dir=None if IS_SAMPLE else config["corpus_dir"],
        corpus=(
            digest_of_file(config["sdg"]["chunks_file"])
            if config["sdg"]["chunks_file"]
            else corpus_fingerprint
        ),
        options=options(
            "sdg",
            "file_extensions",
            "min_text_length",
            "max_file_size",
            "num_files",
            "sentences_per_chunk",
            "chunks_file",
            "near_duplicate_threshold",
            "num_sections",
            "multi_doc",
            "bundle_size",
            "bundle_strategy",
            "max_docs_per_bundle",
            "multi_doc_manifest",
        ),
        manifest=bundle_manifest,
        model=options(
            "model", "base_model", "revision", "passage_prefix", "passage_max_length"
        ),
        code=code("sdg/chunk.py"),
    message:
        "chunking the documents"
    script:
        "../scripts/sdg/chunk.py"


rule plan:
    input:
        records=rules.chunk.output.records,
    output:
        out(f"{SDG}/plan.json"),
    log:
        log_file("plan"),
    localrule: True
    conda:
        environment("llm")
    params:
        options=PROMPT_OPTIONS,
        roles={
            role: (config["sdg"][f"{role}_provider"], config["sdg"][f"{role}_model"])
            for role in ASKED_ROLES
        },
        llm=options("llm", "providers", "prices", "tokenizers"),
        allowed=config["allow_egress"],
        parallel=(config["sdg"]["max_parallel_requests_for_gen"] or 4),
        code=code("sdg/plan.py"),
    message:
        "planning the generation"
    script:
        "../scripts/sdg/plan.py"


# No rule reads the plan, so that prices make nothing stale; the default target asks for it
PLANNED = (
    []
    if config["prep"]["sdg_input_path"] or config["prep"]["train_input_file"]
    else rules.plan.output
)


rule fetch_generator:
    output:
        GENERATOR,
    log:
        log_file("fetch_generator"),
    localrule: True
    conda:
        environment("llm")
    message:
        "fetching the bundled generator's weights"
    script:
        "../scripts/sdg/fetch_generator.py"


rule llm_server:
    input:
        rules.fetch_generator.output,
    output:
        service(out(f"{SDG}/llm_server.json")),
    log:
        log_file("llm_server"),
    conda:
        environment("llm")
    # all cores but those of the generate jobs that run beside it; on a cluster, where cores have no limit, one
    threads: max(1, min(8, (workflow.resource_settings.cores or 2) - len(SHARDS)))
    resources:
        mem_mb=1500,
        runtime=720,
    params:
        name=config["sdg"]["qa_generation_model"],
        server=options("llm", "local")["local"],
    message:
        "serving {params.name} on loopback"
    # exec, so that Snakemake's signal reaches the server; the generate job beside it only waits, so its core is used too
    shell:
        "exec python -m scripts.sdg.llm_server --model {input:q} --address-file {output:q} --name {params.name:q}"
        " --port {params.server[port]} --parallel {params.server[parallel]} --context {params.server[context]}"
        " --threads $(({threads} + 1)) > {log:q} 2>&1"


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
        options={
            **PROMPT_OPTIONS,
            **options(
                "sdg",
                "llm_free_pairs",
                "llm_free_extra_pairs",
                "llm_free_test_queries",
            ),
        },
        models=rules.plan.params.roles,
        sampling=options("llm", "temperature", "top_p"),
        code=code("sdg/generate.py"),
    message:
        "generating questions, shard {wildcards.shard}"
    script:
        "../scripts/sdg/generate.py"


rule sdg:
    input:
        shards=expand(rules.generate.output, shard=SHARDS),
        contract=out("vectors/base/contract.json"),
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
