"""Stage 2: contrastive fine-tuning.

inputs: stage1_data_prep/train_mined.automodel_unrolled.json, val.json, the base model's contract
optional inputs: finetune.general_set
outputs: stage2_finetune/checkpoints/LATEST/model/consolidated/, training.jsonl, validation.jsonl, training.svg,
    finetune.json
"""

from scripts.finetune.options import WITHOUT_EFFECT

STAGE2 = "stage2_finetune"
TUNED = "checkpoints/LATEST/model/consolidated"


TRAINING = {
    name: value
    for name, value in config["finetune"].items()
    if name not in WITHOUT_EFFECT
}
TRAINING_INPUT = {
    "train": rules.prep.output[0],
    "val": rules.split.output.val,
    "corpus": rules.split.output.corpus,
    "contract": CHECKPOINTS["base"],
    # the base model's vectors in the store, for masks
    "queries": out("vectors/base/train_queries.json"),
    "passages": out("vectors/base/corpus.json"),
    "general": test_set_files(config["finetune"]["general_set"]),
}


rule finetune:
    input:
        **TRAINING_INPUT,
    output:
        weights=out(f"{STAGE2}/{TUNED}/model.safetensors"),
        contract=out(f"{STAGE2}/{TUNED}/contract.json"),
        training=out(f"{STAGE2}/training.jsonl"),
        validation=out(f"{STAGE2}/validation.jsonl"),
        figure=out(f"{STAGE2}/training.svg"),
        report=out(f"{STAGE2}/finetune.json"),
    log:
        log_file("finetune"),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(config["finetune"]["num_gpus"]),
        nodes=config["finetune"]["num_nodes"],
        # weights in float32 twice, and the state that is saved; more when a try ran out of it
        mem_mb=lambda wildcards, attempt: 16000 * 2 ** (attempt - 1),
        runtime=1440,
    params:
        output=folder_of("report"),
        options=TRAINING,
        code=code("finetune/finetune.py"),
    message:
        "fine-tuning"
    script:
        "../scripts/finetune/finetune.py"


include: "sweep.smk"
