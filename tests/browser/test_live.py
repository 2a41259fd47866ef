"""The live page in a real browser: it grows, filters, compares, and shuts nobody out."""

import re

import pytest
from playwright.sync_api import Page, expect

from fieldmark.studies import control

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]

sizes = pytest.mark.parametrize("width", [1280, 390], ids=["wide", "narrow"])
themes = pytest.mark.parametrize("theme", ["light", "dark"])


# Numbers all that can be used, and tells the numbers.
EVERYTHING = """() => {
    const usable = "a[href], button:not(:disabled), input:not([type=hidden]), select, summary," +
        "[tabindex='0']";
    const closed = "details:not([open]) > :not(summary)";
    return [...document.querySelectorAll(usable)]
        .filter((each) => each.checkVisibility() && !each.closest(closed))
        .map((each, number) => (each.dataset.number = number));
}"""
# The number of what has the focus, and whether one can see that it has.
FOCUSED = """() => {
    const it = document.activeElement;
    const seen = it.matches(":focus-visible") && getComputedStyle(it).outlineStyle !== "none";
    return [it.dataset.number, seen];
}"""


def draw(page: Page, chart: str) -> None:
    """Scroll to a chart, which draws it."""
    page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#chart-{chart} .plot.drawn svg")


def points(page: Page, chart: str) -> int:
    """How many points the longest line of a drawn chart has."""
    lines = page.locator(f"#chart-{chart} .plot svg .mark-line path")
    drawn = [line.get_attribute("d") or "" for line in lines.all()]
    return max((len(re.findall("[ML]", path)) for path in drawn), default=0)


def test_a_run_that_starts_appears_and_its_curve_grows(open_page, folder, make_run):
    page = open_page()
    page.evaluate("window.stays = true")
    expect(page.locator("#runs-rows tr")).to_have_count(2)
    with make_run(folder / "runs" / "new", finish=False) as writer:
        expect(page.locator("#runs-rows tr")).to_have_count(3)
        expect(page.locator("#now")).to_contain_text("step 40 of 100")
        assert page.evaluate("window.stays")  # it was not loaded anew
        page.locator("#runs-rows").get_by_text("runs/new").click()
        draw(page, "top1")
        page.evaluate("window.stays = true")
        before = points(page, "top1")
        assert before == 5
        for step in (50, 60, 70):
            writer.record({"val/top1": 0.9, "minitrain/top1": 0.9}, step=step, stage="head")
        expect(page.locator("#now")).to_contain_text("step 70 of 100")
        expect(page.locator("#answer")).to_contain_text("90.0%")
        draw(page, "top1")
        assert points(page, "top1") == before + 3
        writer.finish()
        expect(page.locator("#now")).to_have_count(0)
        expect(page.locator("#head .state")).to_have_text("finished")
        assert page.evaluate("window.stays")


def test_a_chart_whose_numbers_are_the_same_stays_as_it_is(open_page, folder, make_run):
    with make_run(folder / "runs" / "new", finish=False) as writer:
        page = open_page("/page/runs/new")
        draw(page, "loss")
        page.evaluate("document.querySelector('#chart-loss svg').dataset.same = 'yes'")
        control.ask(writer.folder, "pause", "ada@finch")
        expect(page.locator("#now")).to_contain_text("ada@finch")
        assert page.evaluate("document.querySelector('#chart-loss svg').dataset.same") == "yes"


def test_filtering_keeps_to_what_was_typed_while_the_list_grows(open_page, folder, make_run):
    page = open_page()
    page.get_by_label("Filter").fill("toy-2 finished")
    expect(page.locator("#runs-rows tr:visible")).to_have_count(1)
    expect(page.locator("#shown")).to_have_text("1 of 2")
    make_run(folder / "runs" / "toy-22")
    expect(page.locator("#runs-rows tr:visible")).to_have_count(2)
    expect(page.locator("#shown")).to_have_text("2 of 3")
    expect(page.get_by_label("Filter")).to_be_focused()
    page.get_by_label("Filter").fill("")
    expect(page.locator("#runs-rows tr:visible")).to_have_count(3)


def test_two_are_compared(open_page, folder, make_run):
    page = open_page()
    button = page.get_by_role("button", name="Compare")
    expect(button).to_be_disabled()
    page.get_by_label("Compare runs/toy-1").check()
    page.get_by_label("Compare runs/toy-2").check()
    make_run(folder / "runs" / "toy-3")  # what is ticked stays so
    expect(page.locator("#runs-rows tr")).to_have_count(3)
    button.click()
    expect(page.locator("#answer")).to_contain_text("Real:")
    expect(page.locator("#answer")).to_contain_text(
        "names 20.0 points fewer photos rightly than runs/toy-2"
    )
    draw(page, "difference")


def test_hovering_shows_the_number(open_page):
    page = open_page("/page/runs/toy-2")
    draw(page, "top1")
    point = page.locator("#chart-top1 .plot svg .mark-symbol path").nth(2)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("#vg-tooltip-element.visible")
    expect(told).to_contain_text("57.0%")  # 95 % times 3 / 5


def test_the_keyboard_alone_reaches_everything(open_page, folder, make_run, study):
    with make_run(folder / "runs" / "new", finish=False):
        for place in ("/", "/page/runs/new", study, "/compare?run=runs/toy-1&run=runs/toy-2"):
            page = open_page(place)
            everything = page.evaluate(EVERYTHING)
            reached = set()
            for _ in range(len(everything) + 5):
                page.keyboard.press("Tab")
                found = page.evaluate(FOCUSED)
                if found[0] is not None:
                    assert found[1], "where the focus is can be seen"
                    reached.add(int(found[0]))
            assert reached == set(everything), place


def test_the_keyboard_pauses_a_run_sets_it_going_and_stops_it(open_page, folder, make_run):
    with make_run(folder / "runs" / "new", finish=False) as writer:
        page = open_page("/page/runs/new")
        page.get_by_role("button", name="Pause").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#now")).to_contain_text("A pause was asked for by a reader at 127.0")
        assert control.newest(writer.folder).wish == "pause"
        page.get_by_role("button", name="Go on").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        assert control.newest(writer.folder).wish == "go on"
        page.get_by_role("button", name="Stop").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#now")).to_contain_text("To stop was asked for by a reader at 127.0")
        assert control.newest(writer.folder).wish == "stop"
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_what_failed_in_a_study_is_run_again(open_page, study):
    page = open_page(study)
    again = page.get_by_role("button", name="Run again")
    expect(again).to_have_count(4)
    again.first.click()
    expect(again).to_have_count(3)
    expect(page.locator("#now .states")).to_contain_text("1 waiting")


def test_focus_and_open_details_outlive_an_update(open_page, folder, make_run):
    with make_run(folder / "runs" / "new", finish=False) as writer:
        page = open_page("/page/runs/new")
        page.locator("#origin summary").first.click()
        page.locator("#head nav a").nth(2).focus()
        name = page.evaluate("document.activeElement.textContent")
        writer.record({"val/top1": 0.9}, step=50, stage="head")
        expect(page.locator("#answer")).to_contain_text("90.0%")
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.locator("#origin details").first.get_attribute("open") is not None


def test_clocks_run_by_themselves(open_page, folder, make_run):
    with make_run(folder / "runs" / "new", finish=False):
        page = open_page("/page/runs/new")
        clock = page.locator(".clock[data-since]").first
        before = clock.inner_text()
        expect(clock).not_to_have_text(before)
        assert clock.inner_text() > before


def test_no_text_is_run_as_code(open_page):
    page = open_page("/page/runs/toy-1")
    draw(page, "top1")  # and yet the charts are drawn
    tried = """() => [() => Function("return 1")(), () => (0, eval)("1")].map(f => {
        try { return f(); } catch (error) { return error.name; } })"""
    assert page.evaluate(f"() => new Promise(done => setTimeout(() => done(({tried})())))") == [
        "EvalError",
        "EvalError",
    ]


def test_a_hostile_name_runs_nothing(open_page, folder, make_run):
    name = "<img src=x onerror=document.title='HACKED'>"
    make_run(folder / name)
    page = open_page()
    expect(page.locator("#runs-rows")).to_contain_text(name)
    page.get_by_role("link", name=name).click()
    expect(page.locator("h1")).to_have_text(name)
    draw(page, "top1")
    assert "HACKED" not in page.title()[:6]
    assert page.locator("img[src=x]").count() == 0


def test_a_photo_is_named(open_page):
    page = open_page("/predict")
    expect(page.locator("#preview")).to_be_hidden()
    dot = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
    )
    photo = {"name": "x.png", "mimeType": "image/png", "buffer": dot}
    page.get_by_label("Photo", exact=True).set_input_files(photo)
    page.get_by_role("button", name="Name it").click()
    expect(page.locator("#guesses li")).to_have_text(["raven: 75.0 %", "crow: 25.0 %"])
    expect(page.locator("#preview")).to_be_visible()


@sizes
def test_no_page_is_wider_than_the_window(open_page, folder, make_run, study, width):
    with make_run(folder / "runs" / ("n" * 120), finish=False):
        for place in ("/", "/page/runs/toy-1", study, "/compare?run=runs/toy-1&run=runs/toy-2"):
            page = open_page(place, width=width)
            page.evaluate("window.fieldmark.all()")
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place


@sizes
@themes
def test_axe_finds_no_serious_fault(open_page, folder, make_run, study, axe, width, theme):
    with make_run(folder / "runs" / "new", finish=False):
        places = ("/", "/page/runs/new", study, "/predict")
        for place in (*places, "/compare?run=runs/toy-1&run=runs/toy-2"):
            page = open_page(place, width=width, theme=theme)
            page.evaluate("window.fieldmark.all()")
            page.wait_for_timeout(200)
            page.evaluate(axe)
            found = page.evaluate("axe.run()")["violations"]
            serious = [
                (fault["id"], node["html"][:120], node["failureSummary"][:300])
                for fault in found
                if fault["impact"] in {"serious", "critical"}
                for node in fault["nodes"][:3]
            ]
            assert not serious, place
