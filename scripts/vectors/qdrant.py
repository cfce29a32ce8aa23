"""An index in Qdrant: a collection for each version, and an alias that searches go to.

A new version is loaded into a collection of its own beside the old one, is counted, and only then does the alias move.
"""

import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.common.errors import UserError
from scripts.common.job import log
from scripts.common.llm import check_egress, read_key

# Points a request
BATCH = 256
NAMESPACE = uuid.UUID("6f1f7c0e-6a55-4d7a-9a35-0c6a2d3b8f11")


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
