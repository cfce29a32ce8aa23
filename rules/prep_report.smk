"""Stage 1, what came of it: sizes, what was left out, hard negatives, and leakage between training and test.

inputs: stage 1's files, the test sets, the base model's vectors of both
optional inputs: stage1_data_prep/split.json (not with an own training file)
outputs: stage1_data_prep/prep_report.json, stage1_data_prep/figures/
"""

# Test sets that the base model's vectors are made of anyway
COMPARED = list(TEST_SETS) if config["eval"]["eval_base"] else []


rule prep_report:
    input:
        mined=rules.mine.output[0],
        val=rules.split.output.val,
        corpus=rules.split.output.corpus,
        split=rules.mine.input.split,
        contract=CONTRACTS["base"],
        tests=[name for folder in TEST_SETS.values() for name in test_set_files(folder)],
        vectors=expand(
            out("vectors/base/{texts}.json"),
            texts=[
                "train_queries",
                "corpus",
                *(
                    f"{name}_{kind}"
                    for name in COMPARED
                    for kind in ("queries", "corpus")
                ),
            ],
        ),
    output:
        report=out(f"{PREP}/prep_report.json"),
        figures=report(
            directory(out(f"{PREP}/figures")),
            patterns=["{figure}.svg"],
            category="Stage 1: training data",
            labels={"what": "{figure}"},
        ),
    log:
        log_file("prep_report"),
    conda:
        environment("cpu")
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        test_sets=TEST_SETS,
        embedded=COMPARED,
        code=code("prep/prep_report.py"),
    message:
        "reporting on the training data"
    script:
        "../scripts/prep/prep_report.py"
