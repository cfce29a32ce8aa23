"""embed-recipe: documents in, a better embedding model out, with the evidence.

`snakemake` runs everything up to the exported model; README.md says more.
"""

from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/sdg.smk"
include: "rules/vectors.smk"
include: "rules/prep.smk"
include: "rules/finetune.smk"
include: "rules/eval.smk"
include: "rules/export.smk"
include: "rules/deploy.smk"
include: "rules/index.smk"


rule all:
    default_target: True
    input:
        *PLANNED,
        (
            rules.preview.output
            if config["sdg"]["preview"]
            else [
                out("stage1_data_prep/prep_report.json"),
                out("stage3_eval/eval_results.json"),
                out("stage4_export/export.json"),
            ]
        ),
    localrule: True
