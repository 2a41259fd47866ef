"""How to go on with a study: from findings to commands, each with its cost, most worth first."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fieldmark.diagnosis.advice import Changes, Experiment, as_text, changes_of
from fieldmark.diagnosis.finding import Finding
from fieldmark.duration import Duration
from fieldmark.recipe import Stage
from fieldmark.studies.space import Axis
from fieldmark.studies.study import Study


class Asked(NamedTuple):
    """How a study is to be asked again.

    Attributes:
        changes: `key=value` of the study or its base.
        runs: How many that makes, each as long as those so far.
        keeps: Whether what was run still belongs.
    """

    changes: tuple[str, ...]
    runs: float
    keeps: bool = True


def next_experiments_of_study(
    study: Study, findings: Sequence[Finding], corrections: Path | None = None
) -> list[Experiment]:
    """More seeds, trials or settings, by which what is done is kept; or the study anew, changed.

    Of what its runs share, only what touches the answer: no setting that was not chosen is mended.

    Args:
        study: What was asked so far.
        findings: Of its checks.
        corrections: The file that the labels likely to be wrong are written to, where they are.
    """
    results = study.results().values()
    finished = [result.seconds for result in results if result.status == "finished"]
    each = sum(finished) / len(finished) if finished else None
    found: dict[str, Experiment] = {}
    for finding in findings:
        if finding.suspects:
            seconds = each * len(study.slots()) if each is not None else None
            found["labels"] = _mend_labels(study, finding, corrections, seconds)
        asked = _asked(study, finding) if finding.outcome == "fires" else None
        if asked is None:
            continue
        seconds = each * asked.runs if each is not None else None
        command = study_command(study, *asked.changes, anew=not asked.keeps)
        one = Experiment(finding.check, command, seconds, finding.refuted_by)
        found.setdefault(asked.changes[0].partition("=")[0], one)  # the first says by how much
    return list(found.values())


def _mend_labels(
    study: Study, finding: Finding, corrections: Path | None, seconds: float | None
) -> Experiment:
    """Write the labels down; where that is done, ask anew with them."""
    folder = study.folder
    if corrections:
        command = study_command(study, f"data.corrections={corrections}", anew=True)
        return Experiment(finding.check, command, seconds, finding.refuted_by)
    words = ("fieldmark", "diagnose", str(folder), "--corrections", f"{folder}-labels.csv")
    return Experiment(finding.check, shlex.join(words), None, finding.refuted_by)


def _asked(study: Study, finding: Finding) -> Asked | None:
    file = study.design.file
    if finding.among:
        return None if finding.is_elsewhere else _of_runs(study, finding)
    if finding.check == "best_is_luck":
        more = max(2, file.seeds)
        return Asked((f"seeds={file.seeds + more}",), more * len(study.cells))
    if finding.check == "too_few_trials":
        trials = max(20, 2 * file.search.trials)
        more = (trials - file.search.trials) * len(study.design.grid())
        return Asked((f"search.trials={trials}",), more * file.seeds)
    if finding.check in {"best_at_the_edge", "decay_at_the_edge"}:
        number = [axis.name for axis in file.axes].index(str(finding.numbers["axis"]))
        return _wider(study, number, float(finding.numbers["next"]))
    return None


def _wider(study: Study, number: int, setting: float) -> Asked | None:
    """An axis of numbers with one more of them; None where it has that already, or is no such."""
    known = _numbers(study.design.file.axes[number])
    values = sorted({*known, setting})
    if not known or len(values) == len(known):
        return None
    shown = ", ".join(map(as_text, values))
    return Asked((f"axes.{number}.values=[{shown}]",), len(study.slots()) / len(known))


def _numbers(axis: Axis) -> list[float]:
    values = [value for value in axis.values or () if type(value) in {int, float}]
    return [float(value) for value in values] if len(values) == len(axis.values or ()) else []


def _of_runs(study: Study, finding: Finding) -> Asked | None:
    """What its runs share is answered by an axis, where one sets the key, or by its base."""
    stage = _stage(study, finding)
    if stage is None or not (changes := changes_of(finding, stage)):
        return None
    keys = {f"stages.{stage.name}.{key}": value for key, value in changes.items()}
    for number, axis in enumerate(study.design.file.axes):
        for key in keys.keys() & {key for change in axis.changes() for key in change}:
            value = keys[key]
            return _wider(study, number, value) if isinstance(value, int | float) else None
    overrides = tuple(f"{key}={as_text(value)}" for key, value in keys.items())
    return Asked(overrides, len(study.slots()) * _times_as_long(stage, changes), keeps=False)


def _stage(study: Study, finding: Finding) -> Stage | None:
    """The stage a run's finding is about, as the run's cell has it."""
    cell = next((c for c in study.cells if finding.among and c.hash == finding.among.cell), None)
    stages = cell.recipe.stages if cell else ()
    name = finding.numbers.get("stage", stages[-1].name if stages else "")
    return next((stage for stage in stages if stage.name == name), None)


def _times_as_long(stage: Stage, changes: Changes) -> float:
    """A new length against the old one; 1 where they can't be compared."""
    length = Duration.parse(changes.get("length", stage.length))
    return length.amount / stage.length.amount if length.unit == stage.length.unit else 1.0


def study_command(study: Study, *changes: str, anew: bool = False) -> str:
    """The command that goes on with a study, some keys changed; or begins it anew beside it."""
    folder = study.folder
    words = [*study.design.texts[2], f"base={folder / 'base.yaml'}", *changes]
    last = {word.partition("=")[0]: word for word in words}  # of a key that is set twice
    shown = " ".join(shlex.quote(word) for word in last.values())
    out = shlex.quote(f"{folder}-again" if anew else str(folder))
    return f"fieldmark study run {shlex.quote(str(folder / 'study.yaml'))} {shown} --out {out}"
