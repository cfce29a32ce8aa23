"""Stage 5: an embeddings service. Its life is no file, so these rules run whenever they are asked for.

inputs: stage4_export/export.json and what it vouches for
optional inputs: deploy.model_dir (own exported folder; stage 4 then does not run, unless it is a variant of its export)
outputs: none declared; stage5_deploy/deployment.json says what runs and how to stop it
"""

DEPLOY = config["deploy"]
# Variants of the export are the workflow's own, too
VARIANT = is_below(DEPLOY["model_dir"], rules.export_variants.output[0])
OWN_EXPORT = bool(DEPLOY["model_dir"]) and not is_below(
    DEPLOY["model_dir"], out(EXPORT)
)
SERVES_PLAN = DEPLOY["backend"] == "nim" and not DEPLOY["use_onnx"]
SERVES_CHECKPOINT = DEPLOY["backend"] == "vllm"
CONTRACT_FOLDER = DEPLOY["model_dir"] or (
    CHECKPOINT if SERVES_CHECKPOINT else out(f"{EXPORT}/onnx")
)
SERVED_FOLDER = (
    out(f"{EXPORT}/tensorrt")
    if SERVES_PLAN and not DEPLOY["model_dir"]
    else CONTRACT_FOLDER
)


rule deploy:
    input:
        variants=branch(VARIANT, then=rules.export_variants.output[0], otherwise=[]),
        parity=branch(
            OWN_EXPORT or VARIANT or SERVES_CHECKPOINT,
            then=[],
            otherwise=rules.export.output[0],
        ),
        model=branch(
            OWN_EXPORT or VARIANT,
            then=[],
            otherwise=branch(
                SERVES_PLAN,
                then=rules.export_tensorrt.output[0],
                otherwise=f"{CONTRACT_FOLDER}/contract.json",
            ),
        ),
    log:
        log_file("deploy"),
    localrule: True
    conda:
        environment("cpu")
    threads: 8
    params:
        options=DEPLOY,
        model_dir=lambda wildcards: SERVED_FOLDER,
        contract=lambda wildcards: os.path.join(CONTRACT_FOLDER, "contract.json"),
        corpus_id=config["corpus_id"],
        alone=lambda wildcards: set(workflow.dag_settings.targets) == {"deploy"},
    message:
        "starting the embeddings service"
    script:
        "../scripts/deploy/deploy.py"


rule undeploy:
    log:
        log_file("undeploy"),
    localrule: True
    conda:
        environment("cpu")
    message:
        "stopping the embeddings service"
    script:
        "../scripts/deploy/undeploy.py"
