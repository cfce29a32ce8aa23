"""Stage 2: contrastive fine-tuning.

inputs: stage1_data_prep/train_mined.automodel_unrolled.json, val.json, the base model's contract
optional inputs: none
outputs: stage2_finetune/checkpoints/LATEST/model/consolidated/, training.jsonl, finetune.json
"""

TUNED = "stage2_finetune/checkpoints/LATEST/model/consolidated"


rule finetune:
    input:
        train=rules.prep.output[0],
        val=rules.split.output.val,
        corpus=rules.split.output.corpus,
        contract=out("vectors/base/contract.json"),
    output:
        weights=out(f"{TUNED}/model.safetensors"),
        contract=out(f"{TUNED}/contract.json"),
        training=out("stage2_finetune/training.jsonl"),
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
            if name != "num_gpus"
        },
        code=code("finetune/finetune.py"),
    message:
        "fine-tuning"
    script:
        "../scripts/finetune/finetune.py"
