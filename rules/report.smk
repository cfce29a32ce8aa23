"""Stage 3, for readers: the report page with its figures, and search side by side (a page served until Ctrl-C).

inputs: stage3_eval/eval_results.json, stage3_eval/comparison/{test_set}.json
optional inputs: files of other stages (stage0_sdg/sdg_report.json, stage1_data_prep/train_mined.automodel.json,
    stage2_finetune/training.jsonl and finetune.json of the tuned model), shown as far as they are there
outputs: stage3_eval/judged/{test_set}.json (eval.judge_near_misses), latency.json, stage3_eval/report.html, stage3_eval/figures/ (asked for by `snakemake report`)
"""

CAPTIONS = "../scripts/eval/captions"
# What is searched by hand and timed
EXPLORED = next(iter(TEST_SETS))
EXPLORERS = [name for name in MODELS if name in ("base", "finetuned")] or MODELS[:1]
TIMED = [name for name in MODELS if name in ("base", "finetuned", "onnx")]


rule judge:
    input:
        unpack(files_of_set),
        comparison=rules.compare.output[0],
        evaluations=rules.compare.input.evaluations,
        details=rules.compare.input.details,
    output:
        out(f"{EVAL}/judged/{{test_set}}.json"),
    log:
        log_file("judge_{test_set}"),
    wildcard_constraints:
        test_set="|".join(TEST_SETS),
    conda:
        environment("cpu")
    resources:
        llm=1,
        mem_mb=2000,
        runtime=60,
    params:
        provider=config["sdg"]["quality_judge_provider"],
        model=config["sdg"]["quality_judge_model"],
        k_values=config["eval"]["k_values"],
        code=code("eval/judge.py"),
    message:
        "judging the near misses of {wildcards.test_set}"
    script:
        "../scripts/eval/judge.py"


rule latency:
    input:
        queries=f"{TEST_SETS[EXPLORED]}/queries.jsonl",
        contracts=[CONTRACTS[name] for name in TIMED],
        vectors=expand(out(f"vectors/{{model}}/{EXPLORED}_corpus.json"), model=TIMED),
    output:
        out(f"{EVAL}/latency.json"),
    log:
        log_file("latency"),
    conda:
        TORCH
    threads: 8
    resources:
        **on_gpu(),
        mem_mb=8000,
        runtime=60,
    params:
        models=TIMED,
        code=code("eval/latency.py"),
    message:
        "timing single queries"
    script:
        "../scripts/eval/latency.py"


rule report:
    input:
        latency=rules.latency.output[0] if TIMED else [],
        results=rules.eval.output[0],
        judged=(
            expand(rules.judge.output, test_set=TEST_SETS)
            if config["eval"]["judge_near_misses"]
            else []
        ),
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
