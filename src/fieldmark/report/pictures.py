"""The figures of a page as PNG, without a browser."""

from pathlib import Path

from fieldmark import durable
from fieldmark.charts.draw import draw
from fieldmark.charts.look import Theme
from fieldmark.charts.picture import save_chart
from fieldmark.language import Words
from fieldmark.report.page import Figure, Page


def figures_of(page: Page) -> list[Figure]:
    """Every figure, in the order of the page."""
    return [figure for section in page.sections for figure in getattr(section, "figures", ())]


def save_pictures(
    page: Page, folder: Path, say: Words, theme: Theme = "light"
) -> tuple[list[Path], list[str]]:
    """Write a PNG for each figure, named after it.

    Returns:
        The files, and a warning for each script that no font here can draw.
    """
    durable.make_folder(folder)
    written: list[Path] = []
    warnings: dict[str, None] = {}
    for figure in figures_of(page):
        name = "".join(letter if letter.isalnum() else "-" for letter in figure.id)[:80]
        path = folder / f"{name}.png"
        warnings |= dict.fromkeys(save_chart(draw(figure.data, say), path, theme))
        written.append(path)
    return written, list(warnings)
