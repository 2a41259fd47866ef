"""A page whose connection is lost says so, and has caught up once it is back.

In the console stands what the browser itself prints of a failed request, and nothing of ours.
"""

import shutil

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]

UNREACHABLE = "Failed to load resource: net::ERR_"
REFUSED = "Failed to load resource: the server responded with a status of "
LOST = "connection lost, trying again"


def opened(page: Page) -> Page:
    """The page once it listens, marked so that one can tell whether it was loaded anew."""
    expect(page.locator("#link")).to_have_text("live")
    page.evaluate("window.stays = true")
    return page


def assert_caught_up(page: Page, runs: int) -> None:
    expect(page.locator("#runs-rows tr")).to_have_count(runs)
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#link.off")).to_have_count(0)
    assert page.evaluate("window.stays")


def test_a_server_that_ends_is_missed_and_caught_up_with(
    open_page, server, folder, make_run, excused
):
    excused.append(UNREACHABLE)
    page = opened(open_page())
    page.get_by_label("Filter").fill("toy")
    server.stop()
    expect(page.locator("#link.off")).to_have_text(LOST)
    make_run(folder / "runs" / "toy-3")  # what the new server has seen from its first look on
    server.start()
    assert_caught_up(page, 3)
    expect(page.locator("#shown")).to_have_text("3 of 3")
    make_run(folder / "runs" / "toy-4")
    assert_caught_up(page, 4)


def test_a_stream_that_is_cut_is_taken_up_again(open_page, server, folder, make_run, excused):
    excused.append(UNREACHABLE)
    page = opened(open_page())
    for runs in (3, 4):
        server.cut()
        expect(page.locator("#link.off")).to_have_text(LOST)
        make_run(folder / "runs" / f"toy-{runs}")
        assert_caught_up(page, runs)


def test_a_server_that_refuses_is_asked_again(open_page, server, folder, make_run, excused):
    """After such an answer a browser gives its stream up for good; the page does not."""
    excused += [UNREACHABLE, f"{REFUSED}403"]
    page = opened(open_page())
    server.stop()
    with page.expect_response(lambda answer: answer.status == 403):
        server.start("another", private=True)
    expect(page.locator("#link.off")).to_have_text(LOST)
    make_run(folder / "runs" / "toy-3")
    server.stop()
    server.start()
    assert_caught_up(page, 3)


def test_silence_is_no_connection(open_page, server, folder, make_run):
    """A machine that vanished sends no word, not even that the connection is closed."""
    page = opened(open_page(clock=True))
    page.clock.fast_forward(39_000)
    expect(page.locator("#link")).to_have_text("live")
    server.app.state.feed.every = 60  # tells nothing by itself
    page.clock.pause_at(page.evaluate("Date.now()") + 41_000)
    expect(page.locator("#link.off")).to_have_text(LOST)
    server.app.state.feed.every = 0.1
    make_run(folder / "runs" / "toy-3")
    page.clock.resume()
    assert_caught_up(page, 3)


def test_a_page_that_is_left_and_returned_to_listens_again(open_page, folder, make_run):
    page = opened(open_page())
    page.get_by_role("link", name="runs/toy-1").click()
    expect(page.locator("h1")).to_have_text("toy-1")
    make_run(folder / "runs" / "toy-3")
    page.go_back()
    expect(page.locator("#runs-rows tr")).to_have_count(3)
    make_run(folder / "runs" / "toy-4")
    expect(page.locator("#runs-rows tr")).to_have_count(4)


def test_a_run_that_is_removed_is_told(open_page, folder, excused):
    excused.append(f"{REFUSED}404")
    page = opened(open_page("/page/runs/toy-1"))
    shutil.rmtree(folder / "runs" / "toy-1")
    expect(page.locator("#link.off")).to_have_text("this is no longer there")
