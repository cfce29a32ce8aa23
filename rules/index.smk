"""After the tuning: the corpus as vectors of the tuned model, and whether the running service equals the checkpoint.

inputs: stage1_data_prep/corpus/, vectors/finetuned/corpus.json, the test sets
optional inputs: stage5_deploy/deployment.json (verify)
outputs: index/vectors.parquet, index/corpus.faiss, index/index.json; rules `reindex` (loads them into index.database) and
`verify` (writes stage5_deploy/verify.json) declare none and run whenever they are asked for
"""


rule index:
    input:
        corpus=TEXTS["corpus"][1][0],
        vectors=out("vectors/finetuned/corpus.json"),
        contract=CONTRACTS["finetuned"],
    output:
        vectors=out("index/vectors.parquet"),
        faiss=out("index/corpus.faiss"),
        facts=out("index/index.json"),
    log:
        log_file("index"),
    conda:
        environment("cpu")
    threads: 8
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        factory=config["index"]["faiss_factory"],
        code=code("vectors/index.py"),
    message:
        "writing the index of the tuned model"
    script:
        "../scripts/vectors/index.py"


rule reindex:
    input:
        facts=rules.index.output.facts,
        vectors=rules.index.output.vectors,
    log:
        log_file("reindex"),
    localrule: True
    conda:
        environment("cpu")
    params:
        options=config["index"],
    message:
        "loading the index into the vector database"
    script:
        "../scripts/vectors/reindex.py"


rule verify:
    input:
        checkpoint=CONTRACTS["finetuned"],
        evaluations=expand(
            out(f"{EVAL}/finetuned/{{test_set}}.json"), test_set=TEST_SETS
        ),
    log:
        log_file("verify"),
    localrule: True
    conda:
        environment("cpu")
    threads: 8
    params:
        record=out("stage5_deploy/deployment.json"),
        test_sets=TEST_SETS,
    message:
        "evaluating the running service against the checkpoint"
    script:
        "../scripts/eval/verify.py"
