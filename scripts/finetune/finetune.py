"""Stage 2: contrastive fine-tuning, selection on validation, and a model folder that others can load."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from scripts.common.beir import read_beir
from scripts.common.contract import Contract
from scripts.common.encoder import TorchEncoder, load_model, pick_device, require_weights
from scripts.common.files import sha256_file, write_json
from scripts.common.job import job, log
from scripts.common.models import resolve_model
from scripts.finetune.adapters import with_adapters
from scripts.finetune.card import model_card
from scripts.finetune.consolidate import consolidate, point_latest, publish, remove_checkpoints
from scripts.finetune.examples import Tokens, read_training_data, share_of_documents, usable
from scripts.finetune.layout import BaseScores
from scripts.finetune.options import WITHOUT_EFFECT
from scripts.finetune.schedule import make_plan
from scripts.finetune.selection import METRIC, Row, Scores, Selection
from scripts.finetune.state import StateFolder
from scripts.finetune.teacher import FusionTeacher
from scripts.finetune.trainer import Teacher, Trainer
from scripts.finetune.validation import Validation
from scripts.finetune.watch import Silent, Watch, draw
from scripts.finetune.world import World, start_processes


def finetune(
    train_file: str | Path,
    val_file: str | Path,
    contract_file: str | Path,
    output: str | Path,
    *,
    cache: str | Path,
    options: dict[str, Any],
    device: str,
    attention: str | None,
    code: str,
    teacher: Teacher | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Train, select, and publish under ``output``; returns what ``finetune.json`` says.

    Args:
        train_file: ``train_mined.automodel_unrolled.json``.
        val_file: ``val.json``.
        contract_file: The base model's contract.
        output: Folder of stage 2.
        cache: The workflow's cache folder (training states, vectors of the base model).
        options: The ``finetune`` section by name.
        device: ``auto``, ``cpu`` or ``cuda``.
        attention: Attention kernel, or ``None`` for the best there is.
        code: Digest of the code, so that a state is never continued by another program.
        teacher: Scores to learn from; by default, with ``distill_weight``, BM25 fused with the base model.
        world: The processes that train together; only the first publishes and returns a result.
    """
    world = world or World()
    contract = Contract.load(contract_file)
    folder = resolve_model(contract.model, contract.revision, relative_to=Path(contract_file).parent)
    require_weights(contract, folder, contract_file)
    device = pick_device(device)
    torch.use_deterministic_algorithms(device == "cpu")
    data = read_training_data(train_file)
    examples = share_of_documents(data, options["document_share"])
    examples = usable(examples, in_batch=options["in_batch_negatives"], most=options["max_examples"])
    facts = {
        "contract": dataclasses.asdict(contract),
        "data": _digests(train_file, val_file, options["general_set"]),
        "options": {name: value for name, value in options.items() if name not in WITHOUT_EFFECT},
        "device": device,
        "code": code,
        "examples": len(examples),
    }
    states = StateFolder(Path(cache, "finetune"), facts)
    watch = Watch(Path(output), options["report_to"], options, states.folder.name) if world.first else Silent()
    model = load_model(folder, contract, attention)
    encoder = TorchEncoder(contract, folder, device=device, model=model)
    vectors = Path(cache, "vectors")
    base = None
    if options["in_batch_negatives"] and options["in_batch_margin"] is not None:
        base = BaseScores(vectors, contract, examples, data, encoder)
    if teacher is None and options["distill_weight"]:
        teacher = FusionTeacher(
            vectors,
            data,
            encoder,
            lexical_weight=options["distill_lexical_weight"],
            language=options["distill_language"],
        )
    # the process that selects mixes with them
    kept = model.state_dict() if world.first else {}
    base_weights = {name: value.detach().cpu().clone() for name, value in kept.items()}
    _set_dropout(model, options["dropout"])
    adapted = with_adapters(model, options["lora_rank"], options["lora_alpha"], options["seed"])
    trainer = Trainer(
        adapted,
        contract,
        Tokens(contract, folder),
        data,
        make_plan(len(examples), options),
        options,
        device,
        states,
        watch,
        base,
        teacher,
        world,
    )
    scores = Scores(states.folder / "validation.jsonl", _validation(val_file, options), watch)

    def protect() -> None:
        states.protected = {row["step"] for row in scores.tuned()[: options["save_total_limit"]]}

    def validate(step: int) -> bool:
        adapted.eval()
        scores.of(step, 1.0, TorchEncoder(contract, folder, device=device, model=adapted).encode)
        protect()
        return bool(scores.tuned()) and scores.stalled(options["early_stop_patience"])

    # a resumed run knows its best checkpoints
    protect()
    trainer.run(examples, validate)
    if not world.first:
        return {}
    encoder = TorchEncoder(contract, folder, device=device, model=load_model(folder, contract, attention))
    general = (
        Validation.of_test_set(read_beir(options["general_set"]), options["seed"]) if options["general_set"] else None
    )
    selection = Selection(encoder, base_weights, scores, states, options, vectors, general)
    chosen = {"step": trainer.step, "share": 1.0, METRIC: None} if scores.validation is None else selection.choose()
    selection.load(chosen["step"], chosen["share"])
    result = _publish(Path(output), trainer, folder, selection, chosen, facts)
    watch.close()
    return result


def _digests(train_file: str | Path, val_file: str | Path, general_set: str | None) -> list[str]:
    files = [Path(train_file), Path(val_file), Path(train_file).parent / "corpus" / "train.parquet"]
    if general_set:
        files += [Path(general_set, name) for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")]
    return [sha256_file(path) for path in files if path.is_file()]


def _validation(val_file: str | Path, options: dict[str, Any]) -> Validation | None:
    if options["select"] != "validation":
        return None
    validation = Validation.build(read_training_data(val_file), options["seed"])
    if validation is None:
        log.warning("no validation question is left: the last weights are taken unseen. Raise prep.val_ratio.")
    return validation


def _set_dropout(model: torch.nn.Module, share: float | None) -> None:
    """Give every dropout of the model this share; attention keeps its own in an attribute of its module."""
    if share is None:
        return
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)


def _publish(
    output: Path, trainer: Trainer, base_folder: Path, selection: Selection, chosen: Row, facts: dict[str, Any]
) -> dict[str, Any]:
    states, plan, options, scores = trainer.states, trainer.plan, selection.options, selection.scores
    losses = {row["step"]: row["loss"] for row in trainer.rows}
    summary = {
        "examples": facts["examples"],
        "plan": dataclasses.asdict(plan),
        "steps": trainer.step,
        "stopped_early": trainer.step < plan.total_steps,
        "first_loss": trainer.rows[0]["loss"],
        "last_loss": trainer.rows[-1]["loss"],
        "chosen": chosen,
        "base_won": chosen["share"] == 0,
        "validation": scores.rows,
        "validation_questions": len(scores.validation.questions) if scores.validation else 0,
        "general": selection.general_scores,
        "options": facts["options"],
    }
    consolidated = states.folder / "consolidated"
    card = model_card(trainer.contract, summary, facts)
    tuned = consolidate(selection.encoder.model, base_folder, trainer.contract, consolidated, card)
    checkpoints = output / "checkpoints"
    remove_checkpoints(checkpoints)
    best = [row["step"] for row in scores.tuned()[: options["save_total_limit"]]]
    values = {row["step"]: row[METRIC] for row in scores.tuned()}
    for step in dict.fromkeys([*best, chosen["step"]]):
        is_chosen = step == chosen["step"]
        said = {"train_loss": losses.get(step, trainer.rows[0]["loss"])}
        folder = publish(
            checkpoints,
            f"epoch_{max(0, step - 1) // plan.steps_per_epoch}_step_{step}",
            weights=states.weights_file(step),
            consolidated=consolidated if is_chosen else None,
            state=states.state_file(step),
            config=facts["options"],
            losses={**said, f"val_{METRIC}": values[step]} if step in values else said,
        )
        if is_chosen:
            point_latest(checkpoints, folder)
            summary["checkpoint"] = folder.name
    draw(output / "training.svg", trainer.rows, scores.rows)
    trainer.watch.validated(scores.rows)
    states.keep({*best, chosen["step"], trainer.step} - {0})
    return {**summary, "weights_sha256": tuned.weights_sha256}


def run(arguments: dict[str, Any], processes: int, nodes: int = 1) -> dict[str, Any]:
    """:func:`finetune` in this process, or in several: one on each GPU of each node."""
    if processes > 1 or nodes > 1:
        return start_processes(arguments, max(1, processes), Path(arguments["cache"], "finetune"), nodes)
    return finetune(**arguments)


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        options = {**snakemake.config["finetune"], **snakemake.params.options}  # noqa: F821
        result = run(
            {
                "train_file": snakemake.input.train,  # noqa: F821
                "val_file": snakemake.input.val,  # noqa: F821
                "contract_file": snakemake.input.contract,  # noqa: F821
                "output": snakemake.params.output,  # noqa: F821
                "cache": f"{snakemake.config['output_dir']}/cache",  # noqa: F821
                "options": options,
                "device": snakemake.config["vectors"]["device"],  # noqa: F821
                "attention": snakemake.config["model"]["attn_implementation"],  # noqa: F821
                "code": snakemake.params.code,  # noqa: F821
            },
            int(snakemake.resources.get("gpu", 0)),  # noqa: F821
            options["num_nodes"],
        )
        write_json(snakemake.output.report, result)  # noqa: F821
