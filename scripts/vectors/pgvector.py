"""An index in PostgreSQL with pgvector: a table for each version, and a view that searches go to.

Everything happens in one transaction: searches of the view see the former vectors until all new ones are there and
counted, and a load that ends half-way leaves nothing. pgvector: https://github.com/pgvector/pgvector.
"""

from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.job import log
from scripts.common.llm import check_egress, read_key

# Rows sent at once
BATCH = 1000
# Longest name of a table, and most values of a vector in an HNSW index
LONGEST_NAME, MOST_INDEXED = 63, 2000
# What the comment of a table or view starts with that this workflow made; the version follows
OURS = "embed-recipe, version "


def connect(options: dict[str, Any], allowed: list[str]) -> Any:
    """A connection to the server of ``index.url`` (``postgresql://user@host:5432/database``).

    Args:
        options: Section ``index`` of the configuration.
        allowed: Hosts that text may go to.

    Raises:
        UserError: The address is none, holds a password or may not be reached, or no server with pgvector answers.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise UserError("index.database=pgvector needs the package psycopg. Install the extra `cpu`.") from error
    url = options["url"]
    if not url.startswith(("postgresql://", "postgres://")):
        raise UserError(
            f"index.database=pgvector needs an address like postgresql://user@host:5432/database; index.url is {url}."
        )
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # its message repeats the address, and with it what may be a password
        raise UserError("index.url is no address of PostgreSQL: postgresql://user@host:5432/database.") from None
    if parts.get("password"):
        raise UserError("index.url holds a password; put it into the variable that index.api_key_env names.")
    for host in f"{parts.get('host') or ''},{parts.get('hostaddr') or ''}".split(","):
        # an absolute path is the folder of a socket on this machine
        if host and not host.startswith("/"):
            check_egress(f"postgresql://[{host}]" if ":" in host else f"postgresql://{host}", allowed)
    try:
        connection = psycopg.connect(
            url,
            password=read_key(options["api_key_env"]),
            connect_timeout=30,
            application_name="embed-recipe",
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        why = str(error).strip()
        raise UserError(f"no PostgreSQL answers at {url} ({why}). Start it, or correct index.url.") from error
    known = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    if known is None:
        connection.close()
        raise UserError(f"the PostgreSQL at {url} has no extension `vector`. Install pgvector on that server.")
    return connection


def load(connection: Any, folder: Path, facts: dict[str, Any], view: str) -> dict[str, Any]:
    """Fill the table of this version and point the view at it.

    Args:
        connection: An open connection.
        folder: What rule ``index`` wrote.
        facts: Content of its ``index.json``.
        view: Name that searches use, with the columns ``id``, ``text`` and ``embedding``.

    Returns:
        What is there: ``collection`` (table), ``alias`` (view), ``passages``, ``former`` (table before, or ``None``).

    Raises:
        UserError: A name is taken or too long, or rows of another version are in the table.
    """
    from psycopg import sql

    table = f"{view}-{facts['version']}"
    if len(table.encode()) > LONGEST_NAME:
        longest = LONGEST_NAME - len(f"-{facts['version']}")
        raise UserError(
            f"PostgreSQL's names are short: index.collection may have {longest} characters, not {len(view)}."
        )
    names = {"table": sql.Identifier(table), "view": sql.Identifier(view)}
    with connection.transaction():
        # two loads of the same name follow each other
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [view])
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        former = _former(connection, view)
        is_new = _make_table(connection, table, facts)
        _fill(connection, folder, names)
        if is_new:
            _index(connection, facts["dimension"], names)
        (count,) = connection.execute(sql.SQL("SELECT count(*) FROM {table}").format(**names)).fetchone()
        if count != facts["passages"]:
            raise UserError(f"{table} has {count} passages after loading instead of {facts['passages']}. Run again.")
        connection.execute(sql.SQL("DROP VIEW IF EXISTS {view}").format(**names))
        connection.execute(sql.SQL("CREATE VIEW {view} AS SELECT id, text, embedding FROM {table}").format(**names))
        _comment(connection, "VIEW", view, facts["version"])
    log.info("%d passages in table %s; searches of %s go there", count, table, view)
    if former and former != table:
        log.warning("%s holds the former version and is still there; drop it when no program uses it", former)
    return {"collection": table, "alias": view, "passages": count, "former": former}


def _former(connection: Any, view: str) -> str | None:
    """The table behind the view, ``None`` where there is no view."""
    row = connection.execute(
        "SELECT c.relkind::text, obj_description(c.oid, 'pg_class') FROM pg_class c "
        "WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
        [view],
    ).fetchone()
    if row is None:
        return None
    if row[0] != "v" or not (row[1] or "").startswith(OURS):
        raise UserError(
            f"{view} is a table or view that this workflow did not make; it is left alone. Set index.collection to "
            "another name."
        )
    return f"{view}-{row[1].removeprefix(OURS)}"


def _make_table(connection: Any, table: str, facts: dict[str, Any]) -> bool:
    """Make the table unless it is there; returns whether it was made."""
    from psycopg import sql

    row = connection.execute(
        "SELECT obj_description(c.oid, 'pg_class'), a.atttypmod FROM pg_class c "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'embedding' "
        "WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
        [table],
    ).fetchone()
    if row is None:
        statement = "CREATE TABLE {table} (id text PRIMARY KEY, text text NOT NULL, embedding vector({size}) NOT NULL)"
        size = sql.Literal(facts["dimension"])
        connection.execute(sql.SQL(statement).format(table=sql.Identifier(table), size=size))
        _comment(connection, "TABLE", table, facts["version"])
        return True
    if row != (OURS + facts["version"], facts["dimension"]):
        raise UserError(
            f"{table} is there, but not as this workflow made it (version or dimension differ); versions are not "
            "mixed. Drop that table and run again."
        )
    return False


def _fill(connection: Any, folder: Path, names: dict[str, Any]) -> None:
    """Make the rows of the table those of the index."""
    from psycopg import sql
    from pyarrow import parquet

    connection.execute(sql.SQL("CREATE TEMP TABLE loaded (LIKE {table}) ON COMMIT DROP").format(**names))
    with connection.cursor().copy("COPY loaded (id, text, embedding) FROM STDIN") as copy:
        for part in parquet.ParquetFile(folder / "vectors.parquet").iter_batches(BATCH):
            for row in part.to_pylist():
                # PostgreSQL's text holds no NUL
                copy.write_row((row["id"], row["text"].replace("\0", " "), str(row["vector"])))
    gone = connection.execute(
        sql.SQL("DELETE FROM {table} t WHERE NOT EXISTS (SELECT FROM loaded WHERE loaded.id = t.id)").format(**names)
    ).rowcount
    if gone:
        log.info("%d passages that the corpus no longer has were removed", gone)
    connection.execute(
        sql.SQL(
            "INSERT INTO {table} SELECT * FROM loaded "
            "ON CONFLICT (id) DO UPDATE SET text = excluded.text, embedding = excluded.embedding"
        ).format(**names)
    )


def _index(connection: Any, dimension: int, names: dict[str, Any]) -> None:
    """An index for inner products; built after the rows, which is faster than growing it with each."""
    from psycopg import sql

    if dimension > MOST_INDEXED:
        log.warning("pgvector indexes up to %d values, not %d: searches are exact", MOST_INDEXED, dimension)
        return
    connection.execute(sql.SQL("CREATE INDEX ON {table} USING hnsw (embedding vector_ip_ops)").format(**names))


def _comment(connection: Any, kind: str, name: str, version: str) -> None:
    from psycopg import sql

    connection.execute(
        sql.SQL("COMMENT ON {kind} {name} IS {text}").format(
            kind=sql.SQL(kind), name=sql.Identifier(name), text=sql.Literal(OURS + version)
        )
    )
