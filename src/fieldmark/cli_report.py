"""The command `fieldmark report`; part of `cli`."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.errors import SettingError
from fieldmark.terminal import console


def report(
    folder: Annotated[Path, typer.Argument(help="A study, a run, a rehearsal, or a folder.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; FOLDER/report.html unless given.")
    ] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
) -> None:
    """Write one page that opens offline: the answer, what to do next, and all behind it."""
    from fieldmark import durable
    from fieldmark.language import LANGUAGES
    from fieldmark.report.content import page_of
    from fieldmark.report.render import render
    from fieldmark.study_looks import see_shown_run

    if lang not in LANGUAGES:
        raise SettingError(f"--lang must be one of {', '.join(LANGUAGES)}, got {lang}.")
    out = out or folder / "report.html"
    if out.suffix.lower() not in {".html", ".htm"}:
        raise SettingError(f"A page is an .html file, got `{out}`.")
    if not out.parent.is_dir():
        raise SettingError(
            f"There is no folder `{out.parent}` for the page; make it, or give another --out."
        )
    see_shown_run(console, folder, only_from_kept=True)
    page = page_of(folder)
    durable.replace(out, render(page, lang=lang).encode(errors="replace"))
    console.print(f"Wrote {out}", highlight=False)
