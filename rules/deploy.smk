"""Stage 5: an embeddings service. Its life is no file, so these rules run whenever they are asked for.

inputs: stage4_export/export.json and what it vouches for
optional inputs: deploy.model_dir (own exported folder; stage 4 then does not run)
outputs: none declared; stage5_deploy/deployment.json says what runs and how to stop it
"""

DEPLOY = config["deploy"]
OWN_EXPORT = bool(DEPLOY["model_dir"])
SERVES_PLAN = DEPLOY["backend"] == "nim" and not DEPLOY["use_onnx"]
SERVED_FOLDER = DEPLOY["model_dir"] or out(
    f"{EXPORT}/{'tensorrt' if SERVES_PLAN else 'onnx'}"
)


rule deploy:
    input:
        parity=branch(OWN_EXPORT, then=[], otherwise=rules.export.output[0]),
        model=branch(
            OWN_EXPORT,
            then=[],
            otherwise=branch(
                SERVES_PLAN,
                then=rules.export_tensorrt.output[0],
                otherwise=rules.export_onnx.output.contract,
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
        contract=lambda wildcards: os.path.join(
            DEPLOY["model_dir"] or out(f"{EXPORT}/onnx"), "contract.json"
        ),
        corpus_id=config["corpus_id"],
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
