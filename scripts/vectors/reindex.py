"""Load the index into a vector database, a collection for each version, and switch searches over in one step.

Searches go to an alias. A new version is loaded into a collection of its own beside the old one, is counted, and only
then does the alias move: no search ever sees vectors of two models, or half a corpus.
"""

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.job import job, log
from scripts.common.llm import check_egress, read_key

# Points a request
BATCH = 256
NAMESPACE = uuid.UUID("6f1f7c0e-6a55-4d7a-9a35-0c6a2d3b8f11")


def reindex(folder: str | Path, *, options: dict[str, Any], allowed: list[str]) -> dict[str, Any] | None:
    """Load an index into the configured database; returns what is there, or ``None`` when none is configured.

    Doing it twice is fine: passages of the same version are written again, those no longer in the corpus are removed.

    Args:
        folder: What rule ``index`` wrote.
        options: Section ``index`` of the configuration.
        allowed: Hosts that text may go to.

    Raises:
        UserError: The database does not answer, the collection's name is taken, or it holds another version.
    """
    folder = Path(folder)
    facts = read_json(folder / "index.json", "index")
    if options["database"] is None:
        log.info(
            "%d passages in %s, version %s; index.database names no database",
            facts["passages"],
            folder,
            facts["version"],
        )
        return None
    client = connect(options, allowed)
    try:
        return load(client, folder, facts, options["collection"])
    except UserError:
        raise
    except Exception as error:  # its client raises errors of several libraries
        raise UserError(f"the vector database at {options['url']} refused: {str(error).strip()[:500]}") from error
    finally:
        client.close()


def connect(options: dict[str, Any], allowed: list[str]) -> Any:
    """A Qdrant client of a server (``http://…``) or of a local folder; :class:`UserError` when there is none."""
    try:
        import qdrant_client
    except ImportError as error:
        raise UserError("index.database=qdrant needs the package qdrant-client. Install the extra `cpu`.") from error
    url = options["url"]
    if not url.startswith(("http://", "https://")):
        return qdrant_client.QdrantClient(path=url)
    if "@" in urlsplit(url).netloc:
        raise UserError("index.url holds a password; put the key into the variable that index.api_key_env names.")
    check_egress(url, allowed)
    client = qdrant_client.QdrantClient(
        url=url, api_key=read_key(options["api_key_env"]), timeout=60, check_compatibility=False
    )
    try:
        client.get_collections()
    except Exception as error:
        client.close()
        raise UserError(f"no Qdrant answers at {url} ({error}). Start it, or correct index.url.") from error
    return client


def load(client: Any, folder: Path, facts: dict[str, Any], alias: str) -> dict[str, Any]:
    """Fill the collection of this version and point the alias at it."""
    from qdrant_client import models

    name = f"{alias}-{facts['version']}"
    if client.collection_exists(alias) and alias not in _aliases(client):
        raise UserError(
            f"{alias} is a collection that this workflow did not make; it is left alone. Set index.collection to "
            "another name."
        )
    if not client.collection_exists(name):
        client.create_collection(
            name,
            vectors_config=models.VectorParams(size=facts["dimension"], distance=models.Distance.DOT),
            metadata={"version": facts["version"], "weights_sha256": facts["weights_sha256"]},
        )
    check_version(client, name, facts)
    present = _upload(client, name, folder, facts["version"])
    _remove_others(client, name, present)
    count = client.count(name, exact=True).count
    if count != facts["passages"]:
        raise UserError(f"{name} has {count} passages after loading instead of {facts['passages']}. Run again.")
    before = _aliases(client).get(alias)
    client.update_collection_aliases(
        [
            *([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))] if before else []),
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=name, alias_name=alias),
            ),
        ]
    )
    log.info("%d passages in %s; searches of %s go there", count, name, alias)
    if before and before != name:
        log.warning("%s holds the former version and is still there; delete it when no program uses it", before)
    return {"collection": name, "alias": alias, "passages": count, "former": before}


def check_version(client: Any, name: str, facts: dict[str, Any]) -> None:
    """:class:`UserError` when a collection has vectors of another length or a passage of another version."""
    from qdrant_client import models

    size = client.get_collection(name).config.params.vectors.size
    ours = models.FieldCondition(key="version", match=models.MatchValue(value=facts["version"]))
    foreign = client.count(name, count_filter=models.Filter(must_not=[ours]), exact=True).count
    if size != facts["dimension"] or foreign:
        raise UserError(
            f"{name} holds {foreign} passages of another version, or vectors of {size} instead of "
            f"{facts['dimension']} dimensions; versions are not mixed. Delete that collection and run again."
        )


def _upload(client: Any, name: str, folder: Path, version: str) -> set[str]:
    from pyarrow import parquet
    from qdrant_client import models

    present = set()
    for part in parquet.ParquetFile(folder / "vectors.parquet").iter_batches(BATCH):
        rows = part.to_pylist()
        points = [
            models.PointStruct(
                id=point_id(row["id"]),
                vector=row["vector"],
                payload={"id": row["id"], "text": row["text"], "version": version},
            )
            for row in rows
        ]
        client.upsert(name, points, wait=True)
        present |= {str(point.id) for point in points}
    return present


def _remove_others(client: Any, name: str, present: set[str]) -> None:
    from qdrant_client import models

    gone, place = [], None
    while True:
        points, place = client.scroll(name, limit=1000, offset=place, with_payload=False, with_vectors=False)
        gone += [point.id for point in points if str(point.id) not in present]
        if place is None:
            break
    if gone:
        client.delete(name, points_selector=models.PointIdsList(points=gone))
        log.info("%d passages that the corpus no longer has were removed", len(gone))


def point_id(passage: str) -> str:
    """The database's id of a passage: Qdrant takes UUIDs and numbers only."""
    return str(uuid.uuid5(NAMESPACE, passage))


def _aliases(client: Any) -> dict[str, str]:
    return {item.alias_name: item.collection_name for item in client.get_aliases().aliases}


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        reindex(
            Path(snakemake.input.facts).parent,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            allowed=snakemake.config["allow_egress"],  # noqa: F821
        )
