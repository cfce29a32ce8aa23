"""Stage 1: questions to training data and a held-out test set.

inputs: stage 0's generation_result.json
optional inputs: prep.sdg_input_path or prep.train_input_file (then stage 0 does not run), prep.groups_json,
    prep.eval_beir_path
outputs: stage1_data_prep/train.json, val.json, corpus/, eval_beir/, train_mined.automodel.json,
    train_mined.automodel_unrolled.json
"""

PREP = "stage1_data_prep"
OWN_TRAIN = config["prep"]["train_input_file"]


if OWN_TRAIN:

    rule split:
        input:
            source=OWN_TRAIN,
        output:
            train=out(f"{PREP}/train.json"),
            val=out(f"{PREP}/val.json"),
            corpus=out(f"{PREP}/corpus/train.parquet"),
            metadata=out(f"{PREP}/corpus/merlin_metadata.json"),
        log:
            log_file("split"),
        conda:
            environment("cpu")
        params:
            output=folder_of("train"),
            corpus_id=config["corpus_id"],
            code=code("prep/adopt.py"),
        message:
            "checking {input.source}"
        script:
            "../scripts/prep/adopt.py"

else:

    rule split:
        input:
            source=(
                []
                if str(config["prep"]["sdg_input_path"]).startswith("hf://")
                else config["prep"]["sdg_input_path"] or rules.sdg.output.manifest
            ),
            records=[] if config["prep"]["sdg_input_path"] else rules.sdg.output.records,
            frozen=test_set_files(config["prep"]["eval_beir_path"]),
        output:
            train=out(f"{PREP}/train.json"),
            val=out(f"{PREP}/val.json"),
            corpus=out(f"{PREP}/corpus/train.parquet"),
            metadata=out(f"{PREP}/corpus/merlin_metadata.json"),
            test_corpus=out(f"{PREP}/eval_beir/corpus.jsonl"),
            test_queries=out(f"{PREP}/eval_beir/queries.jsonl"),
            test_qrels=out(f"{PREP}/eval_beir/qrels/test.tsv"),
            report=out(f"{PREP}/split.json"),
        log:
            log_file("split"),
        conda:
            environment("cpu")
        params:
            output=folder_of("train"),
            corpus_id=config["corpus_id"],
            source=config["prep"]["sdg_input_path"],
            options=options(
                "prep",
                "quality_threshold",
                "min_sub_score",
                "train_ratio",
                "val_ratio",
                "test_ratio",
                "min_test_questions",
                "conversion_seed",
                "max_pos_docs",
                "use_group_id_in_eval",
                "split_strategy",
                "groups_json",
                "split_assignment",
                "split_near_duplicates",
                "eval_beir_path",
            ),
            groups=digest_if_named(config["prep"]["groups_json"]),
            code=code("prep/split.py"),
        message:
            "converting and splitting"
        script:
            "../scripts/prep/split.py"


rule mine:
    input:
        train=rules.split.output.train,
        corpus=rules.split.output.corpus,
        split=branch(OWN_TRAIN, then=[], otherwise=out(f"{PREP}/split.json")),
        contract=CONTRACTS["base"],
        queries=out("vectors/base/train_queries.json"),
        passages=out("vectors/base/corpus.json"),
    output:
        out(f"{PREP}/train_mined.automodel.json"),
    log:
        log_file("mine"),
    conda:
        environment("cpu")
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        model_name=config["model"]["base_model"],
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
    params:
        code=code("prep/prep.py"),
    message:
        "unrolling"
    script:
        "../scripts/prep/prep.py"


include: "prep_report.smk"
