"""The index in a real PostgreSQL with pgvector: versions side by side, searches through the view, nothing half done."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pgserver
import psycopg
import pytest

from scripts.common.errors import UserError
from scripts.vectors import pgvector
from scripts.vectors.reindex import reindex
from tests.eval.conftest import hash_vectors
from tests.vectors.test_index import TEXTS, make

OPTIONS = {"database": "pgvector", "collection": "mine", "api_key_env": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL of our own, on a socket."""
    running = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def options(server: str) -> dict[str, str | None]:
    """Of an empty database."""
    with psycopg.connect(server) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return {**OPTIONS, "url": server}


def found(options: dict, vector: np.ndarray) -> str:
    with psycopg.connect(options["url"]) as connection:
        query = "SELECT id FROM mine ORDER BY embedding <#> %s::vector LIMIT 1"
        return connection.execute(query, [str(vector.tolist())]).fetchone()[0]


def test_a_new_version_gets_a_table_of_its_own_and_the_view_moves(options: dict, tmp_path: Path) -> None:
    first = reindex(make(tmp_path, "one"), options=options, allowed=[])
    assert first["passages"] == 30
    assert found(options, hash_vectors([TEXTS["d_3"]], seed=3)[0]) == "d_3"
    # again, with fewer passages: what the corpus no longer has goes
    fewer = dict(list(TEXTS.items())[:20])
    assert reindex(make(tmp_path, "one", fewer), options=options, allowed=[])["passages"] == 20
    second = reindex(make(tmp_path, "other"), options=options, allowed=[])
    assert second["former"] == first["collection"] != second["collection"]
    assert found(options, hash_vectors([TEXTS["d_25"]], seed=5)[0]) == "d_25"
    with psycopg.connect(options["url"]) as connection:
        assert connection.execute(f'SELECT count(*) FROM "{first["collection"]}"').fetchone() == (20,)
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN SELECT id FROM mine ORDER BY embedding <#> (SELECT embedding FROM mine LIMIT 1)"
        )
        assert "Index Scan using" in str(plan.fetchall()), "searches of the view use the index"


def test_a_load_that_fails_leaves_the_former_version(options: dict, tmp_path: Path) -> None:
    reindex(make(tmp_path, "one"), options=options, allowed=[])
    broken = make(tmp_path, "other")
    whole = (broken / "vectors.parquet").read_bytes()
    (broken / "vectors.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="refused"):
        reindex(broken, options=options, allowed=[])
    assert found(options, hash_vectors([TEXTS["d_3"]], seed=3)[0]) == "d_3"
    with psycopg.connect(options["url"]) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (1,)


def test_what_this_workflow_did_not_make_is_left_alone(options: dict, tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    table = reindex(folder, options=options, allowed=[])["collection"]
    with psycopg.connect(options["url"]) as connection:
        connection.execute("CREATE TABLE taken (x int)")
        connection.execute(f"""COMMENT ON TABLE "{table}" IS 'embed-recipe, version another'""")
    with pytest.raises(UserError, match="did not make"):
        reindex(folder, options={**options, "collection": "taken"}, allowed=[])
    with pytest.raises(UserError, match="versions are not mixed"):
        reindex(folder, options=options, allowed=[])
    with pytest.raises(UserError, match="may have 38 characters, not 39"):
        reindex(folder, options={**options, "collection": "n" * 39}, allowed=[])


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost:6333", "postgresql://user@host"),
        ("postgresql://u@db.example/x", "allow_egress"),
        ("postgresql://u@localhost/x?hostaddr=10.1.2.3", "allow_egress"),
        ("postgresql://u:hunter2@localhost/x", "password"),
        ("postgresql://u:hunter2@localhost:port/x?y=z", "no address of PostgreSQL"),
        ("postgresql://u@127.0.0.1:9/x", "no PostgreSQL answers"),
    ],
)
def test_servers_that_cannot_or_may_not_be_reached(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        reindex(make(tmp_path, "one"), options={**OPTIONS, "url": url}, allowed=[])
    assert "hunter2" not in str(caught.value)


def test_a_password_comes_from_the_environment(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_SECRET", raising=False)
    with pytest.raises(UserError, match="PG_SECRET is not set"):
        pgvector.connect({**options, "api_key_env": "PG_SECRET"}, [])
    monkeypatch.setenv("PG_SECRET", "hunter2")
    with pgvector.connect({**options, "api_key_env": "PG_SECRET"}, []) as connection:
        assert connection.info.password == "hunter2"
