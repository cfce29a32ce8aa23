"""Stage 4: the tuned model as ONNX, on request as a TensorRT plan, checked against PyTorch.

inputs: the tuned model's folder (or export.model_path, an own one with contract.json), a test set
optional inputs: none
outputs: stage4_export/: onnx/, tensorrt/ (export.export_to_trt), export.json with parity.svg, .png and .csv, and when
asked for (rule export_variants) variants/
"""

EXPORT = "stage4_export"
CHECKPOINT = config["export"]["model_path"] or CONSOLIDATED
PARITY_SET = TEST_SETS.get("heldout") or next(iter(TEST_SETS.values()))
TENSORRT = config["export"]["export_to_trt"]
QUANTIZED = bool(config["export"]["quant_cfg"])


rule export_onnx:
    input:
        contract=f"{CHECKPOINT}/contract.json",
        weights=f"{CHECKPOINT}/model.safetensors",
    output:
        model=out(f"{EXPORT}/onnx/model.onnx"),
        contract=out(f"{EXPORT}/onnx/contract.json"),
    log:
        log_file("export_onnx"),
    conda:
        TORCH
    threads: 8
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        options=options(
            "export",
            "opset",
            "export_dtype",
            "attn_implementation",
            "use_dimension_arg",
            "for_loaders",
        ),
        code=code("export/export_onnx.py"),
    message:
        "exporting to ONNX"
    script:
        "../scripts/export/export_onnx.py"


rule export_tensorrt:
    input:
        model=rules.export_onnx.output.model,
        exported=rules.export_onnx.output.contract,
        checkpoint=branch(
            QUANTIZED, then=rules.export_onnx.input.contract, otherwise=[]
        ),
        corpus=branch(QUANTIZED, then=f"{PARITY_SET}/corpus.jsonl", otherwise=[]),
        queries=branch(QUANTIZED, then=f"{PARITY_SET}/queries.jsonl", otherwise=[]),
        qrels=branch(QUANTIZED, then=f"{PARITY_SET}/qrels/test.tsv", otherwise=[]),
    output:
        out(f"{EXPORT}/tensorrt/model.plan"),
    log:
        log_file("export_tensorrt"),
    conda:
        environment("tensorrt")
    threads: 8
    resources:
        gpu=1,
        slurm_partition=config["gpu_partition"],
        mem_mb=32000,
        runtime=240,
    params:
        options=options(
            "export",
            "opset",
            "attn_implementation",
            "use_dimension_arg",
            "quant_cfg",
            "calibration_batch_size",
            "override_layernorm_precision_to_fp32",
            "override_layers_to_fp32",
            "trt_min_batch",
            "trt_opt_batch",
            "trt_max_batch",
            "trt_min_seq_len",
            "trt_opt_seq_len",
            "trt_max_seq_len",
        ),
        code=code("export/export_tensorrt.py"),
    message:
        "building the TensorRT plan"
    script:
        "../scripts/export/export_tensorrt.py"


rule export:
    input:
        model=rules.export_onnx.output.model,
        exported=rules.export_onnx.output.contract,
        checkpoint=rules.export_onnx.input.contract,
        weights=rules.export_onnx.input.weights,
        corpus=f"{PARITY_SET}/corpus.jsonl",
        queries=f"{PARITY_SET}/queries.jsonl",
        qrels=f"{PARITY_SET}/qrels/test.tsv",
        plan=branch(TENSORRT, then=rules.export_tensorrt.output[0], otherwise=[]),
    output:
        out(f"{EXPORT}/export.json"),
        svg=out(f"{EXPORT}/parity.svg"),
        png=out(f"{EXPORT}/parity.png"),
        csv=out(f"{EXPORT}/parity.csv"),
    log:
        log_file("export"),
    conda:
        TORCH
    threads: 8
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        options=options("export", "parity", "parity_samples"),
        code=code("export/export.py"),
    message:
        "comparing the export with PyTorch"
    script:
        "../scripts/export/export.py"


rule export_variants:
    input:
        model=rules.export_onnx.output.model,
        exported=rules.export_onnx.output.contract,
        checkpoint=rules.export_onnx.input.contract,
        weights=rules.export_onnx.input.weights,
        corpus=f"{PARITY_SET}/corpus.jsonl",
        queries=f"{PARITY_SET}/queries.jsonl",
        qrels=f"{PARITY_SET}/qrels/test.tsv",
    output:
        directory(out(f"{EXPORT}/variants")),
    log:
        log_file("export_variants"),
    conda:
        TORCH
    threads: 8
    resources:
        mem_mb=16000,
        runtime=240,
    params:
        options=options("export", "variants", "parity"),
        code=code("export/variants.py"),
    message:
        "variants of the export: quality, speed and size"
    script:
        "../scripts/export/variants.py"
