"""Vectors: computed once by model and text, asked for by several stages.

inputs: the text files named in TEXTS, the contract of a model
optional inputs: test sets of the user
outputs: vectors/{model}/contract.json, {backend}.json (contract of an ONNX graph), {texts}.json (what is there)
"""

TEST_SETS = {
    "heldout": config["eval"]["eval_data_path"] or out("stage1_data_prep/eval_beir"),
    **config["eval"]["test_sets"],
}
if not has_heldout(config):
    del TEST_SETS["heldout"]
CONSOLIDATED = config["eval"]["finetuned_model_path"] or out(
    "stage2_finetune/checkpoints/LATEST/model/consolidated"
)
SERVED = config["eval"]["embedding_api_backend"]
# Of the models as they are trained
CHECKPOINTS = {
    "base": out("vectors/base/contract.json"),
    "finetuned": f"{CONSOLIDATED}/contract.json",
    **{
        name: out(f"vectors/{name}/contract.json")
        for name in config["eval"]["checkpoints"]
    },
}
# What texts are encoded with: the same, or ONNX graphs of them
BACKEND = config["vectors"]["backend"]
CONTRACTS = {
    **{
        name: contract if BACKEND == "torch" else out(f"vectors/{name}/{BACKEND}.json")
        for name, contract in CHECKPOINTS.items()
    },
    SERVED: out(f"vectors/{SERVED}/contract.json"),
    "onnx": out("stage4_export/onnx/contract.json"),
}
# What is embedded: side and files
TEXTS = {
    "chunks": ("passage", [rules.chunk.output.records]),
    "questions": ("query", expand(rules.generate.output, shard=SHARDS)),
    "corpus": ("passage", [out("stage1_data_prep/corpus/train.parquet")]),
    "train_queries": (
        "query",
        [out("stage1_data_prep/train.json"), out("stage1_data_prep/val.json")],
    ),
    **{
        f"{name}_{kind}": (side, [f"{folder}/{kind}.jsonl"])
        for name, folder in TEST_SETS.items()
        for kind, side in (("corpus", "passage"), ("queries", "query"))
    },
}
# The split's held-out passages are nearly all of the corpus: both jobs at once would encode them twice
OWN_SPLIT = TEST_SETS.get("heldout") == out("stage1_data_prep/eval_beir")


rule contract:
    input:
        weights=lambda wildcards: or_end(contract_inputs, config["model"]["base_model"]),
    output:
        CHECKPOINTS["base"],
    log:
        log_file("contract"),
    localrule: True
    conda:
        TORCH
    params:
        model=config["model"],
        code=code("vectors/contract.py"),
    message:
        "writing the base model's contract"
    script:
        "../scripts/vectors/contract.py"


rule served_contract:
    input:
        base=CHECKPOINTS["base"],
    output:
        CONTRACTS[SERVED],
    log:
        log_file("served_contract"),
    localrule: True
    conda:
        environment("cpu")
    params:
        served=options(
            "eval", "nim_url", "nim_model", "nim_api_key_env", "embedding_api_backend"
        ),
        code=code("vectors/served_contract.py"),
    message:
        "asking {params.served[nim_url]} for its model"
    script:
        "../scripts/vectors/served_contract.py"


rule graph:
    input:
        contract=lambda wildcards: CHECKPOINTS[wildcards.model],
    output:
        out("vectors/{model}/{backend}.json"),
    log:
        log_file("graph_{model}_{backend}"),
    wildcard_constraints:
        model="|".join(CHECKPOINTS),
        backend="onnx|onnx_int8",
    conda:
        TORCH
    threads: 8
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        code=code("vectors/graph.py"),
    message:
        "writing the {wildcards.backend} graph of the {wildcards.model} model"
    script:
        "../scripts/vectors/graph.py"


rule embed:
    input:
        contract=lambda wildcards: CONTRACTS[wildcards.model],
        texts=lambda wildcards: TEXTS[wildcards.texts][1],
        earlier=lambda wildcards: (
            out(f"vectors/{wildcards.model}/heldout_corpus.json")
            if OWN_SPLIT and wildcards.texts == "corpus"
            else []
        ),
    output:
        out("vectors/{model}/{texts}.json"),
    log:
        log_file("embed_{model}_{texts}"),
    wildcard_constraints:
        model="|".join(CONTRACTS),
        texts="|".join(TEXTS),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(config["vectors"]["num_gpus"]),
        mem_mb=8000,
        runtime=720,
    params:
        side=lambda wildcards: TEXTS[wildcards.texts][0],
        dtype=config["vectors"]["dtype"],
        code=code("vectors/embed.py"),
    message:
        "vectors of {wildcards.texts} by the {wildcards.model} model"
    script:
        "../scripts/vectors/embed.py"
