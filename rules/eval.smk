"""Stage 3: base against tuned on held-out questions and on test sets of the user.

inputs: the vectors of each model and test set, the test sets
optional inputs: eval.eval_data_path, eval.test_sets, eval.finetuned_model_path
outputs: stage3_eval/{model}/{test_set}.json and .trec, stage3_eval/eval_results.json
"""

EVAL = "stage3_eval"
EVALUATED = [
    name
    for name, wanted in (
        ("base", config["eval"]["eval_base"]),
        ("finetuned", config["eval"]["eval_finetuned"]),
        (SERVED, config["eval"]["eval_nim"]),
    )
    if wanted
]


rule evaluate:
    input:
        contract=lambda wildcards: CONTRACTS[wildcards.model],
        corpus=lambda wildcards: f"{TEST_SETS[wildcards.test_set]}/corpus.jsonl",
        queries=lambda wildcards: f"{TEST_SETS[wildcards.test_set]}/queries.jsonl",
        qrels=lambda wildcards: f"{TEST_SETS[wildcards.test_set]}/qrels/test.tsv",
        vectors=lambda wildcards: expand(
            out("vectors/{model}/{test_set}_{side}.json"),
            model=wildcards.model,
            test_set=wildcards.test_set,
            side=["corpus", "queries"],
        ),
    output:
        metrics=out(f"{EVAL}/{{model}}/{{test_set}}.json"),
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


rule eval:
    input:
        evaluations=expand(
            rules.evaluate.output.metrics, model=EVALUATED, test_set=TEST_SETS
        ),
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
        },
        gate={
            "served": SERVED,
            "tolerance": config["eval"]["nim_metric_tolerance"],
            "low_k_tolerance": config["eval"]["nim_metric_low_k_tolerance"],
            "fail": config["eval"]["fail_on_nim_metric_drift"],
        },
        code=code("eval/eval.py"),
    message:
        "comparing the models"
    script:
        "../scripts/eval/eval.py"
