"""Stage 1: questions to training data and a held-out test set.

inputs: stage 0's generation_result.json
optional inputs: see split.smk; eval.eval_data_path, whose answers are no negatives
outputs: stage1_data_prep/train.json, val.json, corpus/, eval_beir/, train_mined.automodel.json,
    train_mined.automodel_unrolled.json
"""

PREP = "stage1_data_prep"
OWN_TRAIN = config["prep"]["train_input_file"]
# Held-out set that is not the split's own, so that no document of it is known
OTHER_HELDOUT = (
    TEST_SETS.get("heldout")
    if OWN_TRAIN or config["prep"]["eval_beir_path"] or config["eval"]["eval_data_path"]
    else None
)
JUDGE = options("sdg", "quality_judge_provider", "quality_judge_model")
KEPT_FROM_MINING = None if config["prep"]["hard_neg_test_documents"] else OTHER_HELDOUT


include: "split.smk"


rule mine:
    input:
        train=rules.split.output.train,
        corpus=rules.split.output.corpus,
        split=branch(OWN_TRAIN, then=[], otherwise=out(f"{PREP}/split.json")),
        test_set=test_set_files(KEPT_FROM_MINING),
        contract=CONTRACTS["base"],
        queries=out("vectors/base/train_queries.json"),
        passages=out("vectors/base/corpus.json"),
    output:
        out(f"{PREP}/train_mined.automodel.json"),
    log:
        log_file("mine"),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(),
        llm=int(config["prep"]["hard_neg_judge"]),
        mem_mb=8000,
        runtime=240,
    params:
        model_name=config["model"]["base_model"],
        test_set=KEPT_FROM_MINING,
        judge=JUDGE if config["prep"]["hard_neg_judge"] else None,
        options=options(
            "prep",
            "hard_negatives_to_mine",
            "hard_neg_margin",
            "hard_neg_margin_type",
            "hard_neg_same_document",
            "hard_neg_test_documents",
            "hard_neg_max_skipped",
            "hard_neg_max_similarity",
            "hard_neg_bm25_top",
            "hard_neg_bm25_language",
            "mining_search",
        ),
        code=code("prep/mine.py"),
    message:
        "mining hard negatives"
    script:
        "../scripts/prep/mine.py"


rule prep:
    input:
        mined=rules.mine.output[0],
    output:
        out(f"{PREP}/train_mined.automodel_unrolled.json"),
    log:
        log_file("prep"),
    conda:
        environment("cpu")
    resources:
        mem_mb=by_input(2000, per_mb=12),
    params:
        code=code("prep/prep.py"),
    message:
        "unrolling"
    script:
        "../scripts/prep/prep.py"


include: "prep_report.smk"
