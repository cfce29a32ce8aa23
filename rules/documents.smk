"""Stage 0, first part: documents to chunks, and what asking about them would cost.

inputs: corpus_dir
optional inputs: sdg.chunks_file (own chunks), sdg.multi_doc_manifest
outputs: stage0_sdg/chunks/records.jsonl, report.json, near_duplicates.json, stage0_sdg/plan.json
"""

from scripts.common.corpus import SAMPLE

IS_SAMPLE = config["corpus_dir"].startswith(SAMPLE) and not config["sdg"]["chunks_file"]


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
        manifest=digest_if_named(
            config["sdg"]["multi_doc"] and config["sdg"]["multi_doc_manifest"]
        ),
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
        embed=(
            (config["sdg"]["embed_provider"], config["sdg"]["embed_model"])
            if config["sdg"]["embed_model"]
            else None
        ),
        llm=options("llm", "providers", "prices", "tokenizers"),
        allowed=config["allow_egress"],
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
