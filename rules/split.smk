"""Stage 1, first half: questions to training, validation and test, or the user's own training file in their place.

inputs: stage 0's generation_result.json
optional inputs: prep.sdg_input_path or prep.train_input_file (then stage 0 does not run), prep.groups_json,
    prep.eval_beir_path
outputs: stage1_data_prep/train.json, val.json, corpus/, eval_beir/ (not with an own training file)
"""

from scripts.prep.adopt import corpus_file
from scripts.prep.sources import source_files

OWN_QUESTIONS = config["prep"]["sdg_input_path"]


if OWN_TRAIN:

    rule split:
        input:
            source=OWN_TRAIN,
            corpus=lambda wildcards: or_end(corpus_file, OWN_TRAIN),
        output:
            train=out(f"{PREP}/train.json"),
            val=out(f"{PREP}/val.json"),
            corpus=out(f"{PREP}/corpus/train.parquet"),
            metadata=out(f"{PREP}/corpus/merlin_metadata.json"),
        log:
            log_file("split"),
        conda:
            environment("cpu")
        resources:
            mem_mb=by_input(2000, per_mb=12),
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
            source=branch(
                OWN_QUESTIONS,
                then=lambda wildcards: or_end(source_files, OWN_QUESTIONS),
                otherwise=rules.sdg.output.manifest,
            ),
            records=[] if OWN_QUESTIONS else rules.sdg.output.records,
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
        resources:
            mem_mb=by_input(4000, per_mb=12),
        params:
            output=folder_of("train"),
            corpus_id=config["corpus_id"],
            source=OWN_QUESTIONS,
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
