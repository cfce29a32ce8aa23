"""The configuration: defaults and limits from the schema, checks across options, dotted overrides.

Read while the DAG is built, so nothing here imports more than PyYAML and jsonschema.
"""

import copy
import difflib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import Draft202012Validator

from scripts.common.errors import UserError
from scripts.common.redaction import HIDDEN

WANDB_HOST = "api.wandb.ai"
SCHEMA_FILE = Path(__file__).parents[2] / "config" / "schema" / "config.schema.yaml"


def load_schema(path: Path = SCHEMA_FILE) -> dict[str, Any]:
    """The JSON Schema of the configuration."""
    # as safe as safe_load and ten times as fast, where PyYAML has its C part
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def resolve(config: dict[str, Any], schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the complete configuration: dotted keys nested, types of overrides read, defaults in, everything checked.

    ``config`` is left as it was. Raises :class:`UserError` that lists every mistake with option and fix.
    """
    schema = schema or load_schema()
    full = _convert(expand_dotted(config), schema)
    problems = [_explain(error, schema) for error in Draft202012Validator(schema).iter_errors(full)]
    if not problems:
        full = _with_defaults(full, schema)
        problems = _cross_checks(full)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"The configuration has {len(problems)} mistake(s):\n{lines}")
    return full


def expand_dotted(config: dict[str, Any]) -> dict[str, Any]:
    """``{"finetune.num_epochs": 1}`` as ``{"finetune": {"num_epochs": 1}}``; dotted keys win over nested ones."""
    plain = copy.deepcopy({key: value for key, value in config.items() if "." not in key})
    for key, value in config.items():
        if "." not in key:
            continue
        *sections, option = key.split(".")
        node = plain
        for section in sections:
            child = node.get(section)
            node[section] = child if isinstance(child, dict) else {}
            node = node[section]
        node[option] = copy.deepcopy(value)
    return plain


def defaults(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration that the schema alone gives: the recipe's own values."""
    return _with_defaults({}, schema or load_schema())


def options(schema: dict[str, Any] | None = None, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every option by dotted name with its schema (for the option tables and for suggestions)."""
    schema = schema or load_schema()
    found: dict[str, dict[str, Any]] = {}
    for name, sub in schema.get("properties", {}).items():
        if sub.get("type") == "object" and "default" not in sub:
            found.update(options(sub, f"{prefix}{name}."))
        else:
            found[prefix + name] = sub
    return found


def _with_defaults(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    full = dict(value)
    for name, sub in schema.get("properties", {}).items():
        if "default" in sub:
            full.setdefault(name, copy.deepcopy(sub["default"]))
            if isinstance(full[name], dict):
                full[name] = _with_defaults(full[name], sub)
        elif sub.get("type") == "object":
            full[name] = _with_defaults(full.get(name, {}), sub)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for name, item in full.items():
            if name not in schema.get("properties", {}) and isinstance(item, dict):
                full[name] = _with_defaults(item, extra)
    return full


def _convert(value: Any, schema: dict[str, Any]) -> Any:
    """Read strings as the type the schema asks for.

    Snakemake hands nested ``--config`` values on as strings (it reads them with YAML's base loader), also to the jobs
    it starts; a string where the schema wants a number, a boolean or null is therefore read as YAML would.
    """
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, dict):
        known, extra = schema.get("properties", {}), schema.get("additionalProperties")
        fallback = extra if isinstance(extra, dict) else {}
        return {key: _convert(item, known.get(key, fallback)) for key, item in value.items()}
    if isinstance(value, list):
        return [_convert(item, schema.get("items", {})) for item in value]
    if isinstance(value, str) and kinds and "string" not in kinds:
        return _read_number(value)
    if isinstance(value, str) and "null" in kinds and value in {"null", "None", "~", ""}:
        return None
    if value is None and kinds == ["object"]:
        return {}
    if isinstance(value, (int, float)) and not isinstance(value, bool) and kinds == ["string"]:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and "number" in kinds:
        return float(value)
    return value


def _read_number(text: str) -> Any:
    if text.strip().lower() == "none":
        return None
    try:
        # YAML 1.1 reads 1e-5 as a string; Python's float does not
        return float(text) if "e" in text.lower() and text[0] in "+-.0123456789" else yaml.safe_load(text)
    except (ValueError, IndexError, yaml.YAMLError):
        return text


def _explain(error: Any, schema: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    sub, value = error.schema, error.instance
    help_line = f" ({sub['description']})" if isinstance(sub, dict) and "description" in sub else ""
    match error.validator:
        case "additionalProperties":
            unknown = [key for key in value if key not in sub.get("properties", {})]
            prefix = "" if name == "the configuration" else f"{name}."
            return "; ".join(f"unknown option {prefix}{key}{_suggest(prefix + str(key), schema)}" for key in unknown)
        case "type":
            wanted = sub["type"] if isinstance(sub["type"], str) else " or ".join(sub["type"])
            return f"{name} is {value!r}, but must be of type {wanted}{help_line}"
        case "enum":
            return f"{name} is {value!r}, but must be one of {', '.join(map(str, sub['enum']))}{help_line}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            sign = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}[error.validator]
            return f"{name} is {value!r}, but must be {sign} {error.validator_value}{help_line}"
        case "pattern" | "minLength":
            # a key that was put where the name of its variable belongs
            shown = HIDDEN if name.endswith("api_key_env") else repr(value)
            return f"{name} is {shown}, which has not the form it needs: {sub.get('description', error.message)}"
        case _:
            return f"{name}: {error.message}{help_line}"


def _suggest(key: str, schema: dict[str, Any]) -> str:
    known = options(schema)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        leaf = key.rsplit(".", 1)[-1]
        close = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
        close = close or difflib.get_close_matches(leaf, [name.rsplit(".", 1)[-1] for name in known], n=1)
    return f"; did you mean {close[0]}?" if close else ". Options are listed in config/README.md."


def _cross_checks(c: dict[str, Any]) -> list[str]:
    """Rules that join several options, as messages that name them and the fix."""
    return [
        problem
        for check in (_ratios, _orders, _training, _sources, _evaluation, _generation, _addresses, _budget)
        for problem in check(c)
    ]


def _ratios(c: dict[str, Any]) -> Iterator[str]:
    ratios = [c["prep"][f"{part}_ratio"] for part in ("train", "val", "test")]
    if abs(sum(ratios) - 1) > 1e-6:
        yield (
            f"prep.train_ratio + prep.val_ratio + prep.test_ratio is {sum(ratios):g}, but must be 1 "
            f"(now {ratios[0]:g} + {ratios[1]:g} + {ratios[2]:g}); change one of them"
        )


def _orders(c: dict[str, Any]) -> Iterator[str]:
    sdg, export = c["sdg"], c["export"]
    orders = [("sdg.min_hops", sdg["min_hops"], "sdg.max_hops", sdg["max_hops"])]
    for side in ("batch", "seq_len"):
        names = [f"trt_{part}_{side}" for part in ("min", "opt", "max")]
        present = [name for name in names if export[name] is not None]
        orders += [
            (f"export.{low}", export[low], f"export.{high}", export[high]) for low, high in itertools.pairwise(present)
        ]
    for low_name, low, high_name, high in orders:
        if low > high:
            yield f"{low_name} ({low}) is greater than {high_name} ({high}); lower the first or raise the second"
    longest = max(c["model"]["query_max_length"], c["model"]["passage_max_length"])
    if export["export_to_trt"] and export["trt_max_seq_len"] is not None and export["trt_max_seq_len"] < longest:
        yield (
            f"export.trt_max_seq_len ({export['trt_max_seq_len']}) is shorter than the longest trained sequence "
            f"({longest}): longer requests would fail; raise it or set it to null"
        )
    if export["quant_cfg"] and not export["export_to_trt"]:
        yield "export.quant_cfg needs export.export_to_trt=true; set it, or set quant_cfg to null"


def _training(c: dict[str, Any]) -> Iterator[str]:
    prep, finetune = c["prep"], c["finetune"]
    needed, mined = finetune["train_n_passages"] - 1, prep["hard_negatives_to_mine"]
    if mined < needed:
        yield (
            f"prep.hard_negatives_to_mine is {mined}, but training reads {needed} per question "
            f"(finetune.train_n_passages - 1): raise the first to {needed} or lower the second to {mined + 1}"
        )
    whole, part = finetune["global_batch_size"], finetune["local_batch_size"]
    if whole % part:
        yield (
            f"finetune.global_batch_size ({whole}) is not a multiple of finetune.local_batch_size ({part}); "
            f"set the first to {max(1, whole // part) * part} or lower the second"
        )
    if "wandb" in finetune["report_to"] and WANDB_HOST not in c["allow_egress"]:
        yield (
            f"finetune.report_to names wandb, which sends losses and options to {WANDB_HOST}, but allow_egress does "
            "not name that host; add it, or take wandb out"
        )
    if finetune["select"] == "validation" and not prep["val_ratio"]:
        yield "finetune.select=validation needs validation documents: set prep.val_ratio (0.1, say) or select=last"
    if finetune["general_set"] and finetune["select"] != "validation":
        yield "finetune.general_set guards the choice that validation makes: set finetune.select=validation"


def _sources(c: dict[str, Any]) -> Iterator[str]:
    prep = c["prep"]
    named = c["eval"]["eval_data_path"] or c["eval"]["test_sets"]
    if prep["sdg_input_path"] and prep["train_input_file"]:
        yield "prep.sdg_input_path and prep.train_input_file are both set; keep one (the other is null)"
    if prep["split_strategy"] == "groups" and not prep["groups_json"]:
        yield "prep.split_strategy=groups needs prep.groups_json"
    if prep["train_input_file"] and not named:
        yield "prep.train_input_file makes no test set: name one with eval.eval_data_path or eval.test_sets"
    if prep["train_input_file"] and prep["eval_beir_path"]:
        yield "prep.eval_beir_path needs conversion, which prep.train_input_file skips; use eval.eval_data_path instead"
    if prep["eval_beir_path"] and not prep["train_ratio"] + prep["val_ratio"]:
        yield "prep.eval_beir_path leaves all documents for training: set prep.train_ratio above 0"
    if not (prep["train_input_file"] or prep["test_ratio"] or prep["eval_beir_path"] or named):
        yield "prep.test_ratio is 0, so nothing is held out: raise it, or name a test set with eval.test_sets"
    yield from _own_outputs(c)


def _own_outputs(c: dict[str, Any]) -> Iterator[str]:
    """Inputs of stage 1 among what this run writes: Snakemake deletes a rule's outputs before it runs the rule."""
    written = {
        "sdg_input_path": ("stage0_sdg", "stage1_data_prep"),
        "train_input_file": ("stage1_data_prep",),
        "eval_beir_path": ("stage1_data_prep",),
    }
    for option, stages in written.items():
        named = c["prep"][option]
        if not named or named.startswith("hf://"):
            continue
        place = Path(named).resolve()
        for stage in stages:
            if place.is_relative_to(Path(c["output_dir"], stage).resolve()):
                yield (
                    f"prep.{option} is {named}, where this run writes its own files ({c['output_dir']}/{stage}) and "
                    "would delete them first: copy it elsewhere first, and name the copy"
                )


def has_heldout(c: dict[str, Any]) -> bool:
    """Whether there is a held-out test set: the split's, a frozen one, or a named one in its place."""
    prep = c["prep"]
    split = not prep["train_input_file"] and bool(prep["test_ratio"] or prep["eval_beir_path"])
    return split or bool(c["eval"]["eval_data_path"])


def _evaluation(c: dict[str, Any]) -> Iterator[str]:
    ev = c["eval"]
    if "heldout" in ev["test_sets"]:
        yield "eval.test_sets.heldout: that name stands for the held-out split; choose another"
    if not (ev["eval_base"] or ev["eval_finetuned"] or ev["eval_nim"] or ev["eval_onnx"] or ev["checkpoints"]):
        yield "eval.eval_base, eval.eval_finetuned and eval.eval_nim are all false; set one"
    taken = {"base", "finetuned", "onnx", "nim", "vllm", "bm25", "fusion", "comparison", "refused", "figures"}
    for name in sorted(taken & set(ev["checkpoints"])):
        yield f"eval.checkpoints.{name}: that name is taken; choose another"
    own = {"eval.finetuned_model_path": ev["finetuned_model_path"], "export.model_path": c["export"]["model_path"]}
    for option, folder in own.items():
        if folder and Path(folder).is_dir() and not Path(folder, "contract.json").is_file():
            yield (
                f"{option}: {folder} has no contract.json, which stage 2 writes beside the weights; copy that folder "
                "as a whole. A model from elsewhere is compared with eval.checkpoints"
            )
    known = {*(["heldout"] if has_heldout(c) else []), *ev["test_sets"]}
    if ev["decide_on"] is not None and ev["decide_on"] not in known:
        yield f"eval.decide_on is {ev['decide_on']!r}, which is no test set; there are {', '.join(sorted(known))}"
    judged = {"eval.judge_near_misses": ev["judge_near_misses"], "prep.hard_neg_judge": c["prep"]["hard_neg_judge"]}
    if any(judged.values()) and c["sdg"]["quality_judge_provider"] not in c["llm"]["providers"]:
        yield (
            f"{' and '.join(name for name, asked in judged.items() if asked)} needs a judge that is served: "
            f"sdg.quality_judge_provider is {c['sdg']['quality_judge_provider']!r}, which llm.providers does not define"
        )
    if ev["require"] and not (ev["eval_base"] and ev["eval_finetuned"]):
        yield "eval.require compares two models: set eval_base and eval_finetuned"
    if ev["fail_on_nim_metric_drift"] and not (ev["eval_nim"] and ev["eval_finetuned"]):
        yield "eval.fail_on_nim_metric_drift compares two evaluations: set eval_nim and eval_finetuned"


def _generation(c: dict[str, Any]) -> Iterator[str]:
    sdg = c["sdg"]
    for option in ("query_counts", "reasoning_counts"):
        counts = sdg[option]
        if counts and sum(counts.values()) != sdg["num_pairs"]:
            yield (
                f"sdg.{option} sums to {sum(counts.values())}, but sdg.num_pairs is {sdg['num_pairs']}; make them equal"
            )
    roles = ["qa_generation"]
    if sdg["style"] == "full":
        roles += ["artifact_extraction", "quality_judge"]
    if sdg["embed_model"]:
        roles.append("embed")
    for role in roles:
        provider = sdg[f"{role}_provider"]
        if provider != "local" and provider not in c["llm"]["providers"]:
            yield (
                f"sdg.{role}_provider is {provider!r}, which llm.providers does not define "
                f"(known: {', '.join(['local', *c['llm']['providers']])})"
            )


def _addresses(c: dict[str, Any]) -> Iterator[str]:
    for name, place in c["llm"]["providers"].items():
        if "@" in urlsplit(place["base_url"]).netloc or urlsplit(place["base_url"]).query:
            yield (
                f"llm.providers.{name}.base_url holds a user, password or query, which would end up in files and logs; "
                "put the key into an environment variable and name that in api_key_env"
            )


def _budget(c: dict[str, Any]) -> Iterator[str]:
    if c["llm"]["max_cost"] is None:
        return
    sdg = c["sdg"]
    roles = ["qa_generation"] + (["artifact_extraction", "quality_judge"] if sdg["style"] == "full" else [])
    hosted = {sdg[f"{role}_model"] for role in roles if sdg[f"{role}_provider"] != "local"}
    for model in sorted(hosted - set(c["llm"]["prices"])):
        yield f"llm.max_cost needs the price of {model}: add it to llm.prices, or set max_cost to null"
