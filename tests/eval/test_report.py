"""The page without a browser: complete, self-contained, safe against what texts contain, tolerant of absent stages."""

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from scripts.common.redaction import redacted
from scripts.eval.report import marked
from tests.eval.report_parts import fill_output

NAMES = {"systems", "change", "breakdown"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_output(tmp_path_factory.mktemp("report"), other_stages=True)


def test_every_figure_is_there_as_svg_png_and_data(page: Path) -> None:
    text = page.read_text()
    expected = {f"{name}-{kind}" for name in NAMES for kind in ("heldout", "people")} | {"training", "mining", "yield"}
    folder = page.parent / "figures"
    assert {path.stem for path in folder.glob("*.svg")} == expected
    for name in expected:
        assert f'id="figure-{name}"' in text
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ET.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        rows = list(csv.reader((folder / f"{name}.csv").open()))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
    captions = re.findall(r"<figcaption>(.*?)<", text)
    assert len(captions) == len(expected)
    assert all(re.search(r"n = \d+", caption) for caption in captions)


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]*\b(?:src|href)="(?!data:)[^"]*"', text)
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)[^)]*\)", text)


def test_ids_are_there_once(page: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page.read_text())
    assert sorted(set(ids)) == sorted(ids)


def test_data_of_a_figure_is_what_the_evaluation_says(page: Path) -> None:
    import json

    comparison = json.loads((page.parent / "comparison" / "heldout.json").read_text())
    rows = list(csv.DictReader((page.parent / "figures" / "change-heldout.csv").open()))
    row = comparison["differences"][0]["metrics"]["NDCG@10"]
    assert rows[0]["what"] == "NDCG@10"
    assert float(rows[0]["delta_points"]) == pytest.approx(100 * row["delta"])
    assert float(rows[0]["high_points"]) == pytest.approx(100 * row["high"])


def test_all_test_sets_stand_in_one_table(page: Path) -> None:
    (table,) = re.findall(r'<table id="sets">.*?</table>', page.read_text(), re.DOTALL)
    assert re.findall(r'<tr><th scope="row">(\w+)</th><td class="number">(\d+)</td>', table) == [
        ("heldout", "36"),
        ("people", "18"),
    ]


def test_latency_is_told_with_its_conditions(page: Path) -> None:
    text = page.read_text()
    assert "milliseconds; n = 50 queries over 54 passages, 1 of 2 processors" in text
    assert '<td class="number">4.2</td><td class="number">6.1</td>' in text


def test_the_same_results_give_the_same_page(page: Path, tmp_path: Path) -> None:
    again = fill_output(tmp_path, other_stages=True)
    for path in sorted((page.parent / "figures").iterdir()):
        if path.suffix in {".svg", ".csv"}:
            assert path.read_bytes() == (again.parent / "figures" / path.name).read_bytes(), path.name


def test_no_secret_reaches_the_page(page: Path) -> None:
    assert "hunter2" not in page.read_text()
    assert redacted({"x": {"api_key": "s"}, "nim_api_key_env": "NAME"}) == {
        "x": {"api_key": "(not shown)"},
        "nim_api_key_env": "NAME",
    }


def test_texts_are_escaped() -> None:
    text = str(marked('<script>alert("wing")</script> Wings', {"wing"}, "english"))
    assert "<script>" not in text
    assert text.endswith("<mark>Wings</mark>")
    assert "<mark>wing</mark>" in text


def test_other_stages_may_be_absent_or_odd(tmp_path: Path) -> None:
    odd = tmp_path / "stage0_sdg" / "sdg_report.json"
    odd.parent.mkdir()
    odd.write_text("[1, 2")
    odd = tmp_path / "stage1_data_prep" / "train_mined.automodel.json"
    odd.parent.mkdir()
    odd.write_text('{"data": [{"question": "no scores"}]}')
    text = fill_output(tmp_path, other_stages=False).read_text()
    assert 'id="figure-change-heldout"' in text
    assert 'id="latency"' not in text
    for absent in ("training", "mining", "yield"):
        assert f'id="figure-{absent}"' not in text


def test_of_a_model_from_elsewhere_no_training_is_told(page: Path, tmp_path: Path) -> None:
    assert 'id="figure-training"' in page.read_text() and "trained here" in page.read_text()
    text = fill_output(tmp_path, other_stages=True, tuned_weights="trained elsewhere").read_text()
    assert "trained elsewhere" in text and "Chosen checkpoint" not in text
    assert 'id="figure-training"' not in text and 'id="figure-mining"' in text
