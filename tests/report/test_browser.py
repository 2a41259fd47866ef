"""The page in a real browser, off the network: drawn under its own policy, at any width."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(text: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text["en"], encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file, request):
    """The page, its width and theme as asked, with all it complained of and asked for."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            page.heard.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
        ),
    )
    page.goto(file.as_uri())
    page.evaluate("fieldmark.all()")
    yield page
    context.close()


@pytest.mark.parametrize(
    "opened", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], indirect=True
)
def test_every_chart_is_drawn_and_nothing_complains(opened):
    figures = opened.locator("figure.chart").count()
    assert figures >= 9
    assert opened.locator(".plot.drawn svg").count() == figures
    assert opened.heard == []
    wide = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0  # tables and charts scroll by themselves


@pytest.mark.parametrize("opened", [(1280, "light"), (1280, "dark")], indirect=True)
def test_the_colours_follow_the_theme(opened):
    paper, ink = opened.evaluate(
        "(s => [s.getPropertyValue('--paper'), s.getPropertyValue('--ink')])"
        "(getComputedStyle(document.documentElement))"
    )
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (paper < ink) == dark  # '#18…' on dark, '#FF…' on light


def test_hovering_shows_the_number_in_every_chart(opened):
    told = opened.locator("#vg-tooltip-element.visible")
    for figure in opened.locator("figure.chart").all():
        figure.scroll_into_view_if_needed()
        opened.mouse.move(0, 0)
        playwright.expect(told).to_have_count(0)
        marks = figure.locator(".plot svg [role='graphics-symbol'], .plot svg .mark-symbol path")
        for mark in marks.all()[::3]:
            box = mark.bounding_box()
            opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            if told.count():
                break
        assert re.search(r"\d", told.inner_text()), figure.get_attribute("id")


def test_printed_every_chart_is_there(opened):
    opened.emulate_media(media="print", color_scheme="dark")
    assert opened.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert opened.locator("nav").is_hidden()
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    opened.set_viewport_size({"width": 690, "height": 990})  # of A4 between its margins
    assert opened.evaluate("document.documentElement.scrollWidth") <= 690
