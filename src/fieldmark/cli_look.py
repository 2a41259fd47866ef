"""The commands `fieldmark predict` and `eval`, what a finished run says; part of `cli`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.progress import track

from fieldmark.errors import SettingError
from fieldmark.metrics import wilson_interval
from fieldmark.terminal import Format, console, errors, listing, share

if TYPE_CHECKING:
    from fieldmark.errors import DataError
    from fieldmark.predict import Prediction

SPLITS = ("val", "minitrain", "train", "test")
Where = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Where its photos are now, as in data.folder=photos."
    ),
]
METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_top1": "mean-class top-1",
    "calibration_error": "calibration error",
    "loss": "loss (nats)",
}


def predict(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, folders or lists of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Name the likeliest classes of photos; those that can't be read are told at the end."""
    from fieldmark.predict import Predictor, find_photos

    predictor, paths = Predictor(run), find_photos(photos)
    left_out: list[DataError] = []
    said = track(
        predictor.predict(paths, top, left_out.append),
        description="photos",
        total=len(paths),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
    rows = [_row(found, how) for found in said]
    if rows:
        listing(console, rows, title=f"What {run} sees", how=how)
    if left_out:
        lines = [f"{len(left_out)} of {len(paths)} photos are left out:", *map(str, left_out)]
        errors.print("\n  ".join(lines), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _row(found: "Prediction", how: Format) -> dict[str, object]:
    """A photo and its classes; in a table, class and probability share a cell."""
    row: dict[str, object] = {"photo": str(found.path)}
    for rank, (name, likely) in enumerate(zip(found.classes, found.probabilities, strict=True), 1):
        if how == "table":
            row[f"class {rank}"] = f"{name} {likely:.1%}"
        else:
            row |= {f"class {rank}": name, f"probability {rank}": likely}
    return row


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    where: Where = None,
    split: Annotated[str, typer.Option(help="val, minitrain, train or test.")] = "val",
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Needed to measure on test. Counted.")
    ] = False,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure a finished run on one of its splits."""
    if split not in SPLITS:
        raise SettingError(
            f"--split must be {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, got {split}."
        )
    from fieldmark.evaluate import evaluate_run
    from fieldmark.studies.run import Run

    found = evaluate_run(run, cast("Any", split), where=where or [], open_test=open_test)
    known = Run(run)
    photos = known.predictions(split).height
    if how != "table":
        row: dict[str, object] = {"run": str(run), "split": split, "photos": photos}
        row |= {"test_openings": known.test_openings, **found}
        for key in ("top1", "top5"):
            if key in found:
                low, high = wilson_interval(found[key], photos)
                row |= {f"{key}_low": low, f"{key}_high": high}
        listing(console, [row], title="", how=how)
        return
    opened = f", opened {known.test_openings}x" if split == "test" else ""
    title = f"{run} on {split} ({photos:,} photos{opened})"
    listing(console, _metric_rows(found, photos), title=title, how=how)


def _metric_rows(found: Mapping[str, float], photos: int) -> list[dict[str, object]]:
    """The metrics in words; of shares of photos also the 95 % interval."""
    rows: list[dict[str, object]] = []
    for key, word in METRICS.items():
        if key not in found:
            continue
        told = f"{found[key]:.3f}" if key == "loss" else f"{found[key]:.1%}"
        if key.startswith("top"):
            told = share(found[key], photos)
        rows.append({"metric": word, "value (95 % interval)": told})
    return rows
