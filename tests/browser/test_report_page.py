"""The report in a real browser: readable without a network, the filter works, wide and narrow, light and dark."""

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eval.report_parts import fill_output

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Contrast ratio of text and what lies under it (WCAG 2.2, 1.4.3) of the first element of each selector
CONTRASTS = """(names) => {
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (text) => text.match(/\\d+/g).slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return names.map((name) => {
    const node = document.querySelector(name);
    let under = node;
    while (/, 0\\)$|transparent/.test(getComputedStyle(under).backgroundColor)) under = under.parentElement;
    const found = [getComputedStyle(node).color, getComputedStyle(under).backgroundColor].map(light);
    return (Math.max(...found) + 0.05) / (Math.min(...found) + 0.05);
  });
}"""
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.path.exists(CHROMIUM), reason="needs Chromium (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_output(tmp_path_factory.mktemp("page"), other_stages=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, "light"), (400, "dark")], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    address = report.resolve().as_uri()
    opened.on("request", lambda asked: None if asked.url == address else problems.append(asked.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert problems == []


def test_verdict_and_figures_are_seen(page: Any) -> None:
    verdict = page.locator("#verdict h1")
    assert verdict.is_visible()
    assert verdict.inner_text() in {"Ship it", "Do not ship it", "Too little data to say"}
    assert verdict.bounding_box()["y"] < 400
    drawings = page.locator("figure svg[role=img]")
    assert drawings.count() == 9
    for index in range(drawings.count()):
        drawings.nth(index).scroll_into_view_if_needed()
        box = drawings.nth(index).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 60


def test_the_page_is_not_wider_than_the_window(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_filter_shows_what_it_says(page: Any) -> None:
    everything = page.locator(".example").count()
    page.select_option("#kind", "wins")
    wins = page.locator(".example:visible")
    assert 0 < wins.count() < everything
    assert {wins.nth(i).get_attribute("data-kind") for i in range(wins.count())} == {"wins"}
    assert page.locator("#count").inner_text() == f"{wins.count()} of {everything} shown"
    page.select_option("#set", "people")
    assert {wins.nth(i).get_attribute("data-set") for i in range(wins.count())} <= {"people"}
    page.fill("#words", "no such words anywhere")
    assert page.locator(".example:visible").count() == 0
    page.select_option("#kind", "")
    page.select_option("#set", "")
    page.fill("#words", "")
    assert page.locator(".example:visible").count() == everything


def test_gold_passages_are_marked(page: Any) -> None:
    assert page.locator(".sides .gold").count() > 0
    assert page.locator(".sides mark").count() > 0


def test_ink_and_paper_contrast_in_both_schemes(page: Any) -> None:
    ratio = page.evaluate(CONTRASTS, ["h1", ".summary", ".help", "a[href='#scores']"])
    assert min(ratio) >= 4.5, ratio


def test_every_control_has_a_name_and_headings_are_in_order(page: Any) -> None:
    assert page.evaluate("[...document.querySelectorAll('select, input')].every((node) => node.labels.length === 1)")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((node) => Number(node.tagName[1]))")
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_print_leaves_out_what_only_a_screen_can_use(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert page.locator("#verdict h1").is_visible()


def test_paper_has_no_folds(page: Any) -> None:
    folded = page.locator(".example:not([open])").count()
    assert folded
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".example:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator(".example:not([open])").count() == folded


def test_the_verdict_stands_with_its_numbers(page: Any) -> None:
    numbers = page.locator("#verdict .headline dd")
    assert numbers.count() == 4
    assert re.fullmatch(r"0\.\d{3}", numbers.nth(0).inner_text())
    assert re.fullmatch(r"[+−]\d+\.\d [+−]\d+\.\d to [+−]\d+\.\d", numbers.nth(2).inner_text())
