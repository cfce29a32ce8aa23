"""Stage 3, what base and tuned model are compared with: more checkpoints, BM25, and BM25 with a dense model.

inputs: the test sets, the run of the dense model
optional inputs: eval.checkpoints
outputs: vectors/{checkpoint}/contract.json, stage3_eval/bm25/{test_set}.*, stage3_eval/fusion/{test_set}.*
"""

# Contract of the served model and what was written on its vectors, for the diagnostics
SERVED_FILES = (
    [
        CONTRACTS[SERVED],
        *expand(
            out(f"vectors/{SERVED}/{{test_set}}_{{side}}.json"),
            test_set=TEST_SETS,
            side=["corpus", "queries"],
        ),
    ]
    if SERVED in MODELS
    else []
)
# Input functions
files_of_set = lambda wildcards: {
    "corpus": f"{TEST_SETS[wildcards.test_set]}/corpus.jsonl",
    "queries": f"{TEST_SETS[wildcards.test_set]}/queries.jsonl",
    "qrels": f"{TEST_SETS[wildcards.test_set]}/qrels/test.tsv",
}


rule checkpoint_contract:
    input:
        weights=lambda wildcards: or_end(
            contract_inputs, config["eval"]["checkpoints"][wildcards.checkpoint]
        ),
    output:
        out("vectors/{checkpoint}/contract.json"),
    log:
        log_file("checkpoint_contract_{checkpoint}"),
    wildcard_constraints:
        checkpoint="|".join(config["eval"]["checkpoints"]) or "none",
    localrule: True
    conda:
        TORCH
    params:
        model=lambda wildcards: {
            **config["model"],
            "base_model": config["eval"]["checkpoints"][wildcards.checkpoint],
            "revision": None,
        },
        code=code("vectors/contract.py"),
    message:
        "writing the contract of checkpoint {wildcards.checkpoint}"
    script:
        "../scripts/vectors/contract.py"


rule evaluate_bm25:
    input:
        unpack(files_of_set),
    output:
        metrics=out(f"{EVAL}/bm25/{{test_set}}.json"),
        queries=out(f"{EVAL}/bm25/{{test_set}}.parquet"),
        run=out(f"{EVAL}/bm25/{{test_set}}.trec"),
    log:
        log_file("evaluate_bm25_{test_set}"),
    wildcard_constraints:
        test_set="|".join(TEST_SETS),
    conda:
        environment("cpu")
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        k_values=config["eval"]["k_values"],
        language=config["eval"]["bm25_language"],
        code=code("eval/reference.py"),
    message:
        "evaluating BM25 on {wildcards.test_set}"
    script:
        "../scripts/eval/reference.py"


rule evaluate_fusion:
    input:
        unpack(files_of_set),
        runs=[
            out(f"{EVAL}/{FUSED}/{{test_set}}.trec"),
            out(f"{EVAL}/bm25/{{test_set}}.trec"),
        ],
    output:
        metrics=out(f"{EVAL}/fusion/{{test_set}}.json"),
        queries=out(f"{EVAL}/fusion/{{test_set}}.parquet"),
        run=out(f"{EVAL}/fusion/{{test_set}}.trec"),
    log:
        log_file("evaluate_fusion_{test_set}"),
    wildcard_constraints:
        test_set="|".join(TEST_SETS),
    conda:
        environment("cpu")
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        k_values=config["eval"]["k_values"],
        system="fusion",
        code=code("eval/reference.py"),
    message:
        "fusing BM25 and the dense model on {wildcards.test_set}"
    script:
        "../scripts/eval/reference.py"
