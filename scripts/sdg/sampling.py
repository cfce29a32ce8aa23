"""Which records are asked about, and in which shard: by hash, so that more documents move none of those there are."""

from collections.abc import Sequence
from typing import Any

from scripts.common.files import sha256_text

# Requests under way at once in a generation job, unless configured
PARALLEL = 4


def shard_of(source_id: str, shards: int) -> int:
    """A record's shard: the same however many records there are."""
    return int(sha256_text(source_id)[:16], 16) % shards


def sampled(records: Sequence[dict[str, Any]], options: dict[str, Any]) -> set[str]:
    """Ids of the records to ask about: the first in the order of a hash, so the sample grows in place.

    Args:
        records: All records.
        options: ``sample_documents`` and ``preview`` are read.
    """
    count = 1 if options["preview"] else options["sample_documents"]
    names = sorted((record["source_id"] for record in records if record["chunks"]), key=sha256_text)
    return set(names[:count])
