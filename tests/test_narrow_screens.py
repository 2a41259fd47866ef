"""On a narrow screen rows are told line by line, and no column of single letters is drawn."""

import io

import pytest
from rich.console import Console

from fieldmark.terminal import LONG_WORD, listing

ROWS = [
    {"learning rate": "1", "state": "finished", "photos": 12, "seconds": "0.4", "reason": ""},
    {
        "learning rate": "3e+38",
        "state": "failed",
        "photos": 0,
        "seconds": "0.4",
        "reason": "It rose.",
    },
]


def shown(rows, width):
    console = Console(file=io.StringIO(), width=width)
    listing(console, rows, title="", how="table")
    return console.file.getvalue()


def test_a_row_is_a_block_where_words_would_be_broken():
    told = [line.rstrip() for line in shown(ROWS, 40).splitlines()]
    assert told == [
        "learning rate  1",
        "state          finished",
        "photos         12",
        "seconds        0.4",
        "",
        "learning rate  3e+38",
        "state          failed",
        "photos         0",
        "seconds        0.4",
        "reason         It rose.",
        "",
    ]


@pytest.mark.parametrize("width", range(28, 121, 4))
def test_no_word_is_broken_at_any_width(width):
    told = shown(ROWS, width)
    assert max(map(len, told.splitlines())) <= width
    for word in ("learning", "finished", "seconds", "failed", "3e+38", "rose."):
        assert word in told


def test_a_wide_screen_has_a_table():
    assert "┃ learning rate ┃" in shown(ROWS, 80)


def test_a_long_path_alone_makes_no_blocks():
    told = shown([{"photo": "x" * 3 * LONG_WORD, "class": "owl"}], 30)
    assert "┃ photo" in told
    assert told.count("x") == 3 * LONG_WORD


def test_a_table_of_nothing_is_drawn():
    assert shown([], 40).strip() == ""
