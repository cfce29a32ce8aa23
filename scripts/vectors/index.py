"""The corpus as vectors of the tuned model, to search with: parquet, a FAISS index, and the version that both bear.

Vectors of two models do not go together, though they may have the same length and no program complains. So every file
names its version (the digest of all that decides a vector), and :func:`open_index` refuses another one.
"""

from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import atomic_path, read_json, write_json
from scripts.common.job import job, log
from scripts.common.vector_store import VectorStore

VERSION = "embed-recipe.version"
# Rows of vectors at once
BLOCK = 50_000


def version_of(contract: Contract) -> str:
    """The tag of a model's corpus vectors."""
    return contract.key("passage")


def write_index(
    corpus: str | Path, contract_file: str | Path, targets: dict[str, Path], *, store: str | Path, factory: str
) -> dict[str, Any]:
    """Write the vectors of all passages.

    Args:
        corpus: Parquet with ``id`` and ``text``.
        contract_file: The tuned model's contract.
        targets: ``vectors`` (parquet with ``id``, ``text``, ``vector``), ``faiss`` (row ``i`` is row ``i`` of the
            parquet) and ``facts`` (JSON).
        store: Folder of the vector store, which has the vectors.
        factory: FAISS's description of the index, such as ``Flat`` or ``HNSW32``.

    Raises:
        UserError: The corpus is empty, the store lacks vectors, or FAISS does not know the description.
    """
    import faiss
    import pyarrow as pa
    from pyarrow import parquet

    contract = Contract.load(contract_file)
    table = parquet.read_table(corpus, columns=["id", "text"])
    if not len(table):
        raise UserError(f"{corpus} has no passages to index.")
    metric = faiss.METRIC_INNER_PRODUCT
    try:
        index = faiss.index_factory(contract.dimension, factory, metric)
    except RuntimeError as error:
        raise UserError(f"FAISS knows no index {factory!r} (option index.faiss_factory).") from error
    stored, tag = VectorStore(store, contract, "passage"), version_of(contract)
    field = pa.field("vector", pa.list_(pa.float32(), contract.dimension))
    schema = pa.schema([table.schema.field("id"), table.schema.field("text"), field], {VERSION: tag})
    with atomic_path(targets["vectors"]) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for part in table.to_batches(BLOCK):
            vectors = stored.gather(part["text"].to_pylist())
            if not index.is_trained:
                train(index, vectors, factory)
            index.add(vectors)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), contract.dimension)
            writer.write_table(pa.table([part["id"], part["text"], column], schema=schema))
    with atomic_path(targets["faiss"]) as temporary:
        faiss.write_index(index, str(temporary))
    facts = {
        "schema_version": 1,
        "version": tag,
        # of the checkpoint, also where a graph of it made the vectors: what /v1/metadata of a service shows
        "source_version": contract.index_version(),
        "passages": len(table),
        "dimension": contract.dimension,
        "metric": "inner product",
        "faiss_factory": factory,
        "model": contract.model,
        "weights_sha256": contract.weights_sha256,
    }
    write_json(targets["facts"], facts)
    log.info("%d passages, version %s, %s", len(table), tag, targets["faiss"])
    return facts


def train(index: Any, vectors: np.ndarray, factory: str) -> None:
    """Fit an index that needs it; :class:`UserError` when the passages are too few for the description."""
    try:
        index.train(vectors)
    except RuntimeError as error:
        # before it FAISS names its function, file and condition
        reason = str(error).strip().rsplit(": ", 1)[-1]
        raise UserError(
            f"index.faiss_factory is {factory}, which FAISS cannot fit to {len(vectors)} passages ({reason}). Choose "
            "one for fewer passages, such as Flat or HNSW32."
        ) from error


def open_index(folder: str | Path, contract: Contract) -> tuple[Any, list[str]]:
    """The FAISS index of a folder and the passage id of each row, for queries of this model or of a graph of it.

    Raises:
        UserError: The folder's files are of another model, or of two.
    """
    import faiss
    from pyarrow import parquet

    folder = Path(folder)
    facts = read_json(folder / "index.json", "index")
    table = parquet.read_table(folder / "vectors.parquet", columns=["id"])
    index = faiss.read_index(str(folder / "corpus.faiss"))
    wanted = version_of(contract)
    found = {facts["version"], (table.schema.metadata or {}).get(VERSION.encode(), b"").decode()}
    related = len(found) == 1 and facts.get("source_version") == contract.index_version()
    if found != {wanted} and not related:
        raise UserError(
            f"the index in {folder} is of version {' and '.join(sorted(found))}, but the model is {wanted}: their "
            "vectors do not go together. Run `snakemake reindex`."
        )
    if not index.ntotal == len(table) == facts["passages"]:
        raise UserError(f"the files in {folder} are of different runs. Delete the folder and run `snakemake reindex`.")
    return index, table["id"].to_pylist()


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        write_index(
            snakemake.input.corpus,  # noqa: F821
            snakemake.input.contract,  # noqa: F821
            {name: Path(snakemake.output[name]) for name in ("vectors", "faiss", "facts")},  # noqa: F821
            store=f"{snakemake.config['output_dir']}/cache/vectors",  # noqa: F821
            factory=snakemake.params.factory,  # noqa: F821
        )
