"""Load the index into a vector database, a collection for each version, and switch searches over in one step.

Searches go to a name of their own, behind which the version changes: no search ever sees vectors of two models, or half
a corpus.
"""

from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.job import job, log
from scripts.vectors import pgvector, qdrant

# Modules with connect(options, allowed) and load(connection, folder, facts, alias)
DATABASES = {"qdrant": qdrant, "pgvector": pgvector}


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
    database = DATABASES[options["database"]]
    client = database.connect(options, allowed)
    try:
        return database.load(client, folder, facts, options["collection"])
    except UserError:
        raise
    except Exception as error:  # clients raise errors of several libraries
        raise UserError(f"the vector database at {options['url']} refused: {str(error).strip()[:500]}") from error
    finally:
        client.close()


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        reindex(
            Path(snakemake.input.facts).parent,  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            allowed=snakemake.config["allow_egress"],  # noqa: F821
        )
