"""Several trainings in one table: `snakemake sweep`, and `snakemake data_curve` (would more documents help?).

inputs: those of stage 2, the test sets
optional inputs: none
outputs: stage2_finetune/sweep.md and .json, stage2_finetune/data_curve.md and .json
"""

VARIANT = f"{STAGE2}/variants/lr{{lr}}_epochs{{epochs}}_passages{{passages}}_documents{{share}}"
VALUES = {
    name: config["finetune"]["sweep"][name] or [config["finetune"][name]]
    for name in ("learning_rate", "num_epochs", "train_n_passages")
}


# What each table compares
TABLES = {
    "sweep": ([config["finetune"]["document_share"]], VALUES),
    "data_curve": (
        config["finetune"]["data_curve"],
        {name: [config["finetune"][name]] for name in VALUES},
    ),
}


use rule finetune as finetune_variant with:
    output:
        weights=out(f"{VARIANT}/{TUNED}/model.safetensors"),
        contract=out(f"{VARIANT}/{TUNED}/contract.json"),
        report=out(f"{VARIANT}/finetune.json"),
    log:
        log_file("finetune_lr{lr}_epochs{epochs}_passages{passages}_documents{share}"),
    wildcard_constraints:
        lr=r"[0-9.e+-]+",
        epochs=r"\d+",
        passages=r"\d+",
        share=r"[0-9.]+",
    params:
        output=folder_of("report"),
        options=lambda wildcards: {
            **TRAINING,
            "learning_rate": float(wildcards.lr),
            "num_epochs": int(wildcards.epochs),
            "train_n_passages": int(wildcards.passages),
            "document_share": float(wildcards.share),
        },
        code=code("finetune/finetune.py"),
    message:
        "fine-tuning: rate {wildcards.lr}, {wildcards.epochs} epochs, {wildcards.passages} passages"


rule sweep:
    input:
        reports=variants(
            f"{VARIANT}/finetune.json", TABLES["sweep"][0], **TABLES["sweep"][1]
        ),
        contracts=variants(
            f"{VARIANT}/{TUNED}/contract.json",
            TABLES["sweep"][0],
            **TABLES["sweep"][1],
        ),
        base=CHECKPOINTS["base"],
        test_sets=[
            file for folder in TEST_SETS.values() for file in test_set_files(folder)
        ],
    output:
        data=out(f"{STAGE2}/sweep.json"),
        table=out(f"{STAGE2}/sweep.md"),
    log:
        log_file("sweep"),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(),
        mem_mb=8000,
        runtime=720,
    params:
        title="Sweep",
        test_sets=TEST_SETS,
        code=code("finetune/sweep.py"),
    message:
        "comparing the trainings"
    script:
        "../scripts/finetune/sweep.py"


use rule sweep as data_curve with:
    input:
        reports=variants(
            f"{VARIANT}/finetune.json",
            TABLES["data_curve"][0],
            **TABLES["data_curve"][1],
        ),
        contracts=variants(
            f"{VARIANT}/{TUNED}/contract.json",
            TABLES["data_curve"][0],
            **TABLES["data_curve"][1],
        ),
        base=CHECKPOINTS["base"],
        test_sets=[
            file for folder in TEST_SETS.values() for file in test_set_files(folder)
        ],
    output:
        data=out(f"{STAGE2}/data_curve.json"),
        table=out(f"{STAGE2}/data_curve.md"),
    log:
        log_file("data_curve"),
    params:
        title="Data-size curve",
        test_sets=TEST_SETS,
        code=code("finetune/sweep.py"),
