"""Stage 2: contrastive fine-tuning.

inputs: stage1_data_prep/train_mined.automodel_unrolled.json, val.json, the base model's contract
optional inputs: finetune.general_set
outputs: stage2_finetune/checkpoints/LATEST/model/consolidated/, training.jsonl, validation.jsonl, training.svg,
    finetune.json
"""

# Options that change no weights (scripts/finetune/finetune.py names them too: WITHOUT_EFFECT)
WITHOUT_EFFECT = {
    "checkpoint_every_steps",
    "save_total_limit",
    "report_to",
    "num_gpus",
    "sweep",
    "data_curve",
}
TUNED = "stage2_finetune/checkpoints/LATEST/model/consolidated"


rule finetune:
    input:
        train=rules.prep.output[0],
        val=rules.split.output.val,
        corpus=rules.split.output.corpus,
        contract=out("vectors/base/contract.json"),
        # the base model's vectors in the store, for masks
        queries=out("vectors/base/train_queries.json"),
        passages=out("vectors/base/corpus.json"),
        general=(
            multiext(
                f"{config['finetune']['general_set']}/",
                "corpus.jsonl",
                "queries.jsonl",
                "qrels/test.tsv",
            )
            if config["finetune"]["general_set"]
            else []
        ),
    output:
        weights=out(f"{TUNED}/model.safetensors"),
        contract=out(f"{TUNED}/contract.json"),
        training=out("stage2_finetune/training.jsonl"),
        validation=out("stage2_finetune/validation.jsonl"),
        figure=out("stage2_finetune/training.svg"),
        report=out("stage2_finetune/finetune.json"),
    log:
        log_file("finetune"),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(config["finetune"]["num_gpus"]),
        mem_mb=16000,
        runtime=1440,
    params:
        output=folder_of("report"),
        options={
            name: value
            for name, value in config["finetune"].items()
            if name not in WITHOUT_EFFECT
        },
        code=code("finetune/finetune.py"),
    message:
        "fine-tuning"
    script:
        "../scripts/finetune/finetune.py"
