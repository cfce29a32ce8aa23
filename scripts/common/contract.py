"""The embedding contract: everything besides the weights that decides what vector a text gets.

Written once, as ``contract.json`` beside the weights and as sentence-transformers files, and read by mining, training,
evaluation, export and serving. A model used with other prefixes or pooling than it was trained with gets worse
silently; here a mismatch is an error.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from scripts.common.errors import UserError
from scripts.common.files import read_json, sha256_file, write_json
from scripts.common.models import is_local_folder

Side = Literal["query", "passage"]
# The recipe's names of sentence-transformers' poolings (1_Pooling/config.json)
POOLINGS = {"mean": "avg", "cls": "cls", "lasttoken": "last"}
# Up to sentence-transformers 5 each pooling had a switch of its own there
LEGACY_POOLINGS = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
# What sentence-transformers writes beside the weights, see check_against_folder
STATED = ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")
# Steps of a sentence-transformers model (modules.json) that the contract expresses
MODULES = {"Transformer", "Pooling", "Normalize"}
# These number positions from 2, so that a model with 514 of them reads 512 tokens
OFFSET_POSITIONS = {"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
    """How texts become vectors.

    Attributes:
        model: The model folder: ``.`` beside the contract, a path, ``package:NAME``, or a hub id.
        revision: Hub revision of ``model``.
        weights_sha256: Digest of the weight files' digests.
        dimension: Length of a vector.
        pooling: ``avg``, ``cls`` or ``last`` token states.
        l2_normalize: Whether vectors have unit length.
        query_prefix, passage_prefix: Put before each text, one space apart unless they end with white space.
        query_max_length, passage_max_length: Tokens, prefix and special tokens included.
        trust_remote_code: Whether code beside the weights may run.
        backend: ``torch``, ``onnx``, or a served model's ``nim`` or ``vllm``.
        url: Address of a served model.
        source_sha256: Of a graph: ``weights_sha256`` of the checkpoint that it was made from.
    """

    model: str
    weights_sha256: str
    dimension: int
    pooling: str
    l2_normalize: bool
    query_prefix: str
    passage_prefix: str
    query_max_length: int
    passage_max_length: int
    revision: str | None = None
    trust_remote_code: bool = False
    backend: str = "torch"
    url: str | None = None
    source_sha256: str | None = None

    def text(self, text: str, side: Side) -> str:
        """The text as the model sees it."""
        prefix = self.query_prefix if side == "query" else self.passage_prefix
        return join_prefix(prefix) + text

    def max_length(self, side: Side) -> int:
        """Longest input in tokens."""
        return self.query_max_length if side == "query" else self.passage_max_length

    def key(self, side: Side) -> str:
        """Digest of all that decides a vector of this side (where the weights lie does not)."""
        facts = (
            self.weights_sha256,
            self.backend,
            self.pooling,
            self.l2_normalize,
            self.text("", side),
            self.max_length(side),
        )
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]

    def index_version(self) -> str:
        """Tag of corpus vectors that go with this model's queries; a graph has that of its checkpoint."""
        if self.source_sha256 is None:
            return self.key("passage")
        return dataclasses.replace(self, weights_sha256=self.source_sha256, backend="torch").key("passage")

    def of_graph(self, folder: Path) -> "Contract":
        """The contract of an ONNX graph of this model, which with its tokenizer is all that ``folder`` has."""
        return dataclasses.replace(
            self,
            model=".",
            revision=None,
            backend="onnx",
            weights_sha256=weights_digest(folder),
            source_sha256=self.weights_sha256,
        )

    def save(self, path: str | Path) -> None:
        """Write ``contract.json``."""
        write_json(path, {"schema_version": 1, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> "Contract":
        """Read ``contract.json``; :class:`UserError` names what is missing or unknown."""
        values = read_json(path, "embedding contract")
        if not isinstance(values, dict) or values.pop("schema_version", None) != 1:
            raise UserError(f"embedding contract {path} is not of schema_version 1; rebuild it with this workflow.")
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"embedding contract {path} has unknown fields ({', '.join(sorted(unknown))}); rebuild it.")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"embedding contract {path} is incomplete: {error}") from error

    def same_meaning(self, other: "Contract") -> list[str]:
        """Names of the fields, weights aside, in which two contracts differ."""
        fields = ("pooling", "l2_normalize", "query_max_length", "passage_max_length")
        different = [name for name in fields if getattr(self, name) != getattr(other, name)]
        sides: tuple[Side, Side] = ("query", "passage")
        return different + [f"{side}_prefix" for side in sides if self.text("", side) != other.text("", side)]


def join_prefix(prefix: str) -> str:
    """A prefix with the space that separates it from the text, so that ``query:`` and ``query: `` mean the same."""
    return prefix if not prefix or prefix[-1].isspace() else prefix + " "


def weights_digest(folder: Path) -> str:
    """Digest over the files of a model folder that decide its vectors: weights, tokenizer, configuration and code."""
    lines = [f"{name} {sha256_file(folder / name)}" for name in _deciding_files(folder)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def contract_inputs(spec: str) -> list[str]:
    """Files of a model folder here that its contract is made from; none of a package or a hub model.

    Raises:
        UserError: The folder has no weights.
    """
    if not is_local_folder(spec):
        return []
    folder = Path(spec)
    stated = [name for name in STATED if (folder / name).is_file()]
    return [str(folder / name) for name in sorted({"config.json", *_deciding_files(folder), *stated})]


def _deciding_files(folder: Path) -> list[str]:
    def names(*patterns: str) -> list[str]:
        return [path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)]

    # as transformers chooses: *.bin beside safetensors is not read, and another program may add it to the hub cache
    weights = (names("*.safetensors") or names("*.bin")) + names("*.onnx")
    if not weights:
        raise UserError(f"model folder {folder} has no weights (*.safetensors, *.bin or *.onnx).")
    tokenizer = names("tokenizer.json") or names("tokenizer/tokenizer.json")
    return sorted([*weights, *tokenizer, *names("*.onnx.data", "config.json", "*.py")])


def check_against_folder(options: dict[str, Any], folder: Path) -> None:
    """Compare the configured contract with the sentence-transformers files beside the weights, where there are any.

    Raises:
        UserError: The model says another pooling, normalisation or prefix, has fewer positions than the configuration
            wants, or needs a step that this workflow has not.
    """
    problems = [
        *_pooling_problems(options, folder),
        *_module_problems(options, folder),
        *_length_problems(options, folder),
        *_prefix_problems(options, folder),
    ]
    if problems:
        raise UserError(f"The configuration does not fit the model in {folder}:\n  - " + "\n  - ".join(problems))


def _pooling_problems(options: dict[str, Any], folder: Path) -> list[str]:
    stated = _stated(folder / "1_Pooling" / "config.json")
    modes = stated.get("pooling_mode") or [
        mode for key, mode in LEGACY_POOLINGS.items() if stated.get(f"pooling_mode_{key}")
    ]
    theirs = [POOLINGS.get(mode, mode) for mode in ([modes] if isinstance(modes, str) else modes)]
    if theirs and theirs != [options["pooling"]]:
        hint = "" if set(theirs) <= set(POOLINGS.values()) and len(theirs) == 1 else ", which this workflow has not"
        return [f"model.pooling is {options['pooling']}, but the model was trained with {' and '.join(theirs)}{hint}"]
    return []


def _module_problems(options: dict[str, Any], folder: Path) -> list[str]:
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = [str(module.get("type")).rsplit(".", 1)[-1] for module in read_json(file)]
    problems = [
        f"the model has a {name} module, which this workflow does not apply; choose a model without it"
        for name in modules
        if name not in MODULES
    ]
    dot = _stated(folder / "config_sentence_transformers.json").get("similarity_fn_name") == "dot"
    if "Normalize" in modules and not options["l2_normalize"]:
        problems.append("model.l2_normalize is false, but the model was trained with vectors of unit length")
    if "Normalize" not in modules and dot and options["l2_normalize"]:
        problems.append("model.l2_normalize is true, but the model was trained with dot products of unscaled vectors")
    return problems


def _length_problems(options: dict[str, Any], folder: Path) -> list[str]:
    config = read_json(folder / "config.json", "model configuration")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in OFFSET_POSITIONS:
        positions -= 2
    return [
        f"model.{side}_max_length is {options[f'{side}_max_length']}, but the model has {positions} positions"
        for side in ("query", "passage")
        if positions and options[f"{side}_max_length"] > positions
    ]


def _prefix_problems(options: dict[str, Any], folder: Path) -> list[str]:
    prompts = _stated(folder / "config_sentence_transformers.json").get("prompts") or {}
    # sentence-transformers writes empty prompts for every model; they say something only beside one that is not empty
    prompts = prompts if any(prompts.get(name) for name in ("query", "passage", "document")) else {}
    problems = []
    for side, names in (("query", ("query",)), ("passage", ("passage", "document"))):
        stated = [prompts[name] for name in names if prompts.get(name) is not None]
        if stated and join_prefix(options[f"{side}_prefix"]) not in {join_prefix(prefix) for prefix in stated}:
            problems.append(
                f"model.{side}_prefix is {options[f'{side}_prefix']!r}, but the model was trained with {stated[0]!r}"
            )
    return problems


def _stated(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
