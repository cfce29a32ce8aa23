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

Side = Literal["query", "passage"]
# sentence-transformers' names (1_Pooling/config.json) of the recipe's poolings
POOLING_KEYS = {"avg": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


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

    def save(self, path: str | Path) -> None:
        """Write ``contract.json``."""
        write_json(path, {"schema_version": 1, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> "Contract":
        """Read ``contract.json``; :class:`UserError` names what is missing or unknown."""
        values = read_json(path, "embedding contract")
        version = values.pop("schema_version", None)
        known = {field.name for field in dataclasses.fields(cls)}
        if version != 1 or set(values) - known:
            raise UserError(f"embedding contract {path} is of another version ({version}); rebuild it with this one.")
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
    """Digest over the weight and tokenizer files of a model folder."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for pattern in ("*.safetensors", "*.bin", "*.onnx", "*.onnx.data", "tokenizer.json", "config.json")
        for path in folder.glob(pattern)
    )
    if not any(name.endswith((".safetensors", ".bin", ".onnx")) for name in names):
        raise UserError(f"model folder {folder} has no weights (*.safetensors, *.bin or *.onnx).")
    lines = [f"{name} {sha256_file(folder / name)}" for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_against_folder(options: dict[str, Any], folder: Path) -> None:
    """Compare the configured contract with the sentence-transformers files beside the weights, where there are any.

    Raises:
        UserError: The model says another pooling, normalisation or prefix, or a shorter length, than the configuration.
    """
    problems = []
    pooling_file = folder / "1_Pooling" / "config.json"
    if pooling_file.is_file():
        stated = read_json(pooling_file)
        mode = stated.get("pooling_mode")
        names = {"mean": "avg", "cls": "cls", "lasttoken": "last"}
        theirs = [names[mode]] if mode in names else [name for name, key in POOLING_KEYS.items() if stated.get(key)]
        if theirs and theirs != [options["pooling"]]:
            problems.append(f"model.pooling is {options['pooling']}, but the model was trained with {theirs[0]}")
    length_file = folder / "config.json"
    positions = read_json(length_file).get("max_position_embeddings")
    for side in ("query", "passage"):
        if positions and options[f"{side}_max_length"] > positions:
            problems.append(
                f"model.{side}_max_length is {options[f'{side}_max_length']}, but the model has {positions} positions"
            )
    st_file = folder / "config_sentence_transformers.json"
    prompts = (read_json(st_file).get("prompts") or {}) if st_file.is_file() else {}
    for side, names in (("query", ("query",)), ("passage", ("passage", "document"))):
        stated_prefix = next((prompts[name] for name in names if prompts.get(name)), None)
        if stated_prefix is not None and join_prefix(options[f"{side}_prefix"]) != join_prefix(stated_prefix):
            problems.append(
                f"model.{side}_prefix is {options[f'{side}_prefix']!r}, but the model was trained with {stated_prefix!r}"
            )
    if problems:
        raise UserError(f"The configuration does not fit the model in {folder}:\n  - " + "\n  - ".join(problems))
