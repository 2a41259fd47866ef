"""Other people's dashboards: what a run records is told to TensorBoard, W&B, MLflow … as well.

accelerate knows how to speak to each of them. The run's folder stays the truth: a dashboard that
fails is told of in one line and left alone, and the training goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML

from fieldmark.errors import SettingError
from fieldmark.ledger import Reporter
from fieldmark.studies.run import RECIPE

PROJECT = "fieldmark"
_PACKAGES = {"comet_ml": "comet-ml"}  # the others are installed under their own names
# What a dashboard calls the name of one run, where accelerate passes it on.
_NAMED_BY = {"wandb": "name", "mlflow": "run_name", "trackio": "name", "swanlab": "experiment_name"}


class Dashboards:
    """A reporter that tells each record to dashboards too, opened with the first of them.

    Args:
        reporter: Is told everything, and of a dashboard that fails.
        names: Of dashboards, as accelerate calls them.
        folder: The run's; TensorBoard and Aim write below it.

    Raises:
        SettingError: one is unknown or not installed; says which are, and how to install it.
    """

    def __init__(self, reporter: Reporter, names: Sequence[str], folder: Path) -> None:
        if names:
            _check(names)
        self.reporter = reporter
        self.folder = folder
        self.say, self.progress = reporter.say, reporter.progress
        self._waiting = list(names)
        self._open: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._open.items()):
            self._attempt(name, tracker.finish)

    def record(self, metrics: Mapping[str, float], step: int) -> None:
        """Tell the reporter and each dashboard."""
        self.reporter.record(metrics, step)
        while self._waiting:
            name = self._waiting.pop(0)
            self._attempt(name, partial(self._begin, name))
        for name, tracker in list(self._open.items()):
            self._attempt(name, partial(tracker.log, dict(metrics), step=step))

    def _begin(self, name: str) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # noqa: PLC0415 - takes long

        make = LOGGER_TYPE_TO_CLASS[name]
        named = {_NAMED_BY[name]: self.folder.name} if name in _NAMED_BY else {}
        local = make.requires_logging_directory  # then it makes a folder of its name
        tracker = make(name, self.folder) if local else make(PROJECT, **named)
        tracker.start()
        self._open[name] = tracker
        tracker.store_init_configuration(_flat(YAML(typ="safe").load(self.folder / RECIPE)))

    def _attempt(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever a foreign service raises
            self._open.pop(name, None)
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            self.say(f"{name} is told no more: {first}. The run's own records are whole.")


def _check(names: Sequence[str]) -> None:
    from accelerate.tracking import (  # noqa: PLC0415 - takes long
        LOGGER_TYPE_TO_CLASS,
        get_available_trackers,
    )

    known, installed = sorted(LOGGER_TYPE_TO_CLASS), {str(t) for t in get_available_trackers()}
    for name in names:
        if name not in known:
            raise SettingError(f"--track must be one of {', '.join(known)}, got {name!r}.")
        if name not in installed:
            package = _PACKAGES.get(name, name)
            raise SettingError(f"--track {name} needs its package: pip install {package}")


def _flat(values: Any, prefix: str = "") -> dict[str, str | float]:
    """Nested values by dotted keys, as the command line names them; lists by their position."""
    if isinstance(values, list):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {prefix: values if isinstance(values, int | float) else str(values)}
    dot = prefix and f"{prefix}."
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{dot}{key}").items()}
