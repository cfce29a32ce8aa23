"""Stage 3, for readers: the report page with its figures, and search side by side (a page served until Ctrl-C).

inputs: stage3_eval/eval_results.json, stage3_eval/comparison/{test_set}.json
optional inputs: files of other stages (stage0_sdg/sdg_report.json, stage1_data_prep/train_mined.automodel.json,
    stage2_finetune/training.jsonl and finetune.json, stage4_export/export.json), shown as far as they are there
outputs: stage3_eval/report.html, stage3_eval/figures/ (asked for by `snakemake report`)
"""

CAPTIONS = "../scripts/eval/captions"


rule report:
    input:
        results=rules.eval.output[0],
        comparisons=expand(rules.compare.output, test_set=TEST_SETS),
    output:
        page=report(
            out(f"{EVAL}/report.html"),
            caption=f"{CAPTIONS}/page.rst",
            category="Evaluation",
            labels={"what": "report page"},
        ),
        figures=report(
            directory(out(f"{EVAL}/figures")),
            patterns=["{figure}.svg"],
            caption=f"{CAPTIONS}/figures.rst",
            category="Evaluation",
            subcategory="Figures",
            labels={"what": "{figure}"},
        ),
    log:
        log_file("report"),
    localrule: True
    conda:
        environment("cpu")
    params:
        language=config["eval"]["bm25_language"],
        code=code("eval/report.py"),
        page=[
            digest_of_file(workflow.source_path(f"../scripts/eval/page/{name}"))
            for name in ("report.html.j2", "report.css", "report.js")
        ],
    message:
        "writing the report"
    script:
        "../scripts/eval/report.py"


EXPLORED = next(iter(TEST_SETS))
EXPLORERS = [name for name in MODELS if name in ("base", "finetuned")] or MODELS[:1]


rule explore:
    input:
        queries=f"{TEST_SETS[EXPLORED]}/queries.jsonl",
        contracts=[CONTRACTS[name] for name in EXPLORERS],
        vectors=expand(
            out(f"vectors/{{model}}/{EXPLORED}_corpus.json"), model=EXPLORERS
        ),
    log:
        log_file("explore"),
    localrule: True
    conda:
        TORCH
    params:
        models=EXPLORERS,
    message:
        "serving the search page"
    script:
        "../scripts/eval/explore.py"
