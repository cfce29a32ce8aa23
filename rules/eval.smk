"""Stage 3: base against tuned, against BM25 and others, on held-out questions and on test sets of the user.

inputs: the vectors of each model and test set, the test sets
optional inputs: eval.eval_data_path, eval.test_sets, eval.finetuned_model_path, eval.checkpoints
outputs: stage3_eval/: {system}/{test_set}.json, .parquet, .trec; comparison/{test_set}.json; eval_results.json
"""

EVAL = "stage3_eval"
MODELS = [
    *(["base"] if config["eval"]["eval_base"] else []),
    *(["finetuned"] if config["eval"]["eval_finetuned"] else []),
    *(["onnx"] if config["eval"]["eval_onnx"] else []),
    *([SERVED] if config["eval"]["eval_nim"] else []),
    *config["eval"]["checkpoints"],
]
# Fused with BM25
FUSED = "finetuned" if "finetuned" in MODELS else MODELS[0]
REFERENCES = ["bm25", "fusion"] if config["eval"]["eval_bm25"] else []
# Candidate and baseline of each comparison; the first pair decides and is shown by examples
COMPARED = [
    (candidate, baseline)
    for candidate, baseline in (
        ("finetuned", "base"),
        *((name, "base") for name in config["eval"]["checkpoints"]),
        ("onnx", "finetuned"),
        (SERVED, "finetuned"),
        (FUSED, "bm25"),
        ("fusion", FUSED),
    )
    if {candidate, baseline} <= {*MODELS, *REFERENCES}
]


include: "systems.smk"


rule evaluate:
    input:
        unpack(files_of_set),
        contract=lambda wildcards: CONTRACTS[wildcards.model],
        vectors=lambda wildcards: expand(
            out("vectors/{model}/{test_set}_{side}.json"),
            model=wildcards.model,
            test_set=wildcards.test_set,
            side=["corpus", "queries"],
        ),
    output:
        metrics=out(f"{EVAL}/{{model}}/{{test_set}}.json"),
        queries=out(f"{EVAL}/{{model}}/{{test_set}}.parquet"),
        run=out(f"{EVAL}/{{model}}/{{test_set}}.trec"),
    log:
        log_file("evaluate_{model}_{test_set}"),
    wildcard_constraints:
        model="|".join(CONTRACTS),
        test_set="|".join(TEST_SETS),
    conda:
        environment("cpu")
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        k_values=config["eval"]["k_values"],
        code=code("eval/evaluate.py"),
    message:
        "evaluating {wildcards.model} on {wildcards.test_set}"
    script:
        "../scripts/eval/evaluate.py"


rule compare:
    input:
        unpack(files_of_set),
        evaluations=expand(
            out(f"{EVAL}/{{system}}/{{{{test_set}}}}.json"),
            system=[*MODELS, *REFERENCES],
        ),
        details=expand(
            out(f"{EVAL}/{{system}}/{{{{test_set}}}}.{{kind}}"),
            system=[*MODELS, *REFERENCES],
            kind=["parquet", "trec"],
        ),
    output:
        out(f"{EVAL}/comparison/{{test_set}}.json"),
    log:
        log_file("compare_{test_set}"),
    wildcard_constraints:
        test_set="|".join(TEST_SETS),
    conda:
        environment("cpu")
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        pairs=COMPARED,
        k_values=config["eval"]["k_values"],
        confidence=config["eval"]["confidence"],
        language=config["eval"]["bm25_language"],
        code=code("eval/compare.py"),
    message:
        "comparing the systems on {wildcards.test_set}"
    script:
        "../scripts/eval/compare.py"


rule eval:
    input:
        evaluations=expand(
            out(f"{EVAL}/{{system}}/{{test_set}}.json"),
            system=[*MODELS, *REFERENCES],
            test_set=TEST_SETS,
        ),
        comparisons=expand(rules.compare.output, test_set=TEST_SETS),
        served=SERVED_FILES,
    output:
        out(f"{EVAL}/eval_results.json"),
    log:
        log_file("eval"),
    localrule: True
    conda:
        environment("cpu")
    params:
        metadata={
            "eval_data_path": TEST_SETS.get("heldout"),
            "test_sets": config["eval"]["test_sets"],
            "k_values": config["eval"]["k_values"],
            "base_model": config["model"]["base_model"],
            "finetuned_model_path": CONSOLIDATED,
            **(
                options("eval", "nim_url", "nim_model", "embedding_api_backend")
                if SERVED in MODELS
                else {}
            ),
        },
        gate={
            "served": SERVED,
            "tolerance": config["eval"]["nim_metric_tolerance"],
            "low_k_tolerance": config["eval"]["nim_metric_low_k_tolerance"],
            "fail": config["eval"]["fail_on_nim_metric_drift"],
        },
        limits=options("eval", "decide_on", "worthwhile_gain", "min_queries"),
        require=config["eval"]["require"],
        code=code("eval/eval.py"),
    message:
        "gathering the evidence"
    script:
        "../scripts/eval/eval.py"


include: "report.smk"
