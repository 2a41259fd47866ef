"""What to try next: from findings to commands, each with what it will cost, most worth first."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, gather
from fieldmark.diagnosis.finding import Finding
from fieldmark.recipe import Stage
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study

Changes = Mapping[str, object]


@dataclass(frozen=True)
class Experiment:
    """One thing to try.

    Attributes:
        check: Whose finding it answers.
        command: To be copied into a terminal.
        seconds: What it will take, by the times recorded so far; None: not known.
        refuted_by: Which result would show that the finding is wrong.
    """

    check: str
    command: str
    seconds: float | None
    refuted_by: str


def _times(key: str, factor: float) -> Callable[[Stage, Finding], Changes]:
    """Another value of one of the stage's numbers."""
    return lambda stage, _: {key: float(f"{getattr(stage, key) * factor:.3g}")}


def _length(factor: float) -> Callable[[Stage, Finding], Changes]:
    return lambda stage, _: {"length": f"{factor * stage.length.amount:g} {stage.length.unit}"}


def _gentler(stage: Stage, _: Finding) -> Changes:
    """A tenth of the rate, reached by a warm-up."""
    schedule = stage.schedule.model_dump(mode="json", exclude_none=True)
    return {"lr": float(f"{stage.lr / 10:.3g}"), "schedule": schedule | {"warmup": "10 %"}}


def _cut(_: Stage, finding: Finding) -> Changes:
    return {"length": f"{float(finding.numbers['cut']):.0f} epochs"}


def _calmer(stage: Stage, _: Finding) -> Changes:
    """A rate that falls to 0; where it does, averaged weights."""
    falls = stage.schedule.name in {"cosine", "one_cycle", "polynomial"}
    return {"average": 0.99} if falls else {"schedule": "cosine"}


def _clipped(_: Stage, finding: Finding) -> Changes:
    return {"clip_norm": float(f"{finding.numbers['clip']:.2g}")}


# Check -> what to change in its stage.
CHANGES: Mapping[str, Callable[[Stage, Finding], Changes]] = {
    "lr_too_low": _times("lr", 10),
    "lr_too_high": _times("lr", 0.1),
    "diverged_early": _gentler,
    "diverged_midway": _clipped,
    "loss_spikes": _clipped,
    "stage_collapses": _gentler,
    "decay_too_strong": _times("weight_decay", 0.1),
    "decayed_too_early": lambda *_: {"schedule": "cosine"},
    "too_short": _length(2),
    "too_long": _cut,
    "second_half_idle": _cut,
    "underfitting": _times("lr", 3),
    "overfitting": lambda *_: {"label_smoothing": 0.1},
    "overconfident": lambda *_: {"label_smoothing": 0.1},
    "restless_val": _calmer,
}
REHEARSED = {"cannot_overfit_few", "blank_photos_do_as_well", "no_band_of_rates"}


def next_experiments(run: Run, findings: Sequence[Finding]) -> list[Experiment]:
    """What to train next, one command for each finding that a setting can answer."""
    evidence = gather(run)
    stages = {stage.name: stage for stage in evidence.stages}
    found: dict[str, Experiment] = {}
    for finding in findings:
        stage = stages.get(str(finding.numbers.get("stage", _last(evidence))))
        if finding.outcome != "fires" or stage is None:
            continue
        change = CHANGES.get(finding.check)
        keys = change(stage.settings, finding) if change and stage.settings else {}
        about = f"{stage.name} {next(iter(keys), 'rehearsal')}"
        experiment = _experiment(evidence, stage, finding, keys)
        if experiment:
            found.setdefault(about, experiment)  # the first to change a key says by how much
    return list(found.values())


def _last(evidence: RunEvidence) -> str:
    return evidence.stages[-1].name if evidence.stages else ""


def _experiment(
    run: RunEvidence, stage: StageEvidence, finding: Finding, changes: Changes
) -> Experiment | None:
    recipe = shlex.quote(run.recipe_name)
    if finding.check in REHEARSED:
        command = f"fieldmark rehearse {recipe} --stage {stage.name}"
        return Experiment(finding.check, command, None, finding.refuted_by)
    if not changes:
        return None
    words = [shlex.quote(f"stages.{stage.name}.{key}={_text(v)}") for key, v in changes.items()]
    command = " ".join(["fieldmark train", recipe, *words])
    return Experiment(finding.check, command, _seconds(run, stage, changes), finding.refuted_by)


def _text(value: object) -> str:
    """As YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(each)}' for key, each in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seconds(run: RunEvidence, changed: StageEvidence, changes: Changes) -> float | None:
    """What all stages took, the changed one by its new length."""
    seconds = 0.0
    for stage in run.stages:
        took = stage.note.get("seconds_training")
        if took is None:
            return None
        share = 1.0
        if stage is changed and "length" in changes and stage.settings and stage.steps_per_epoch:
            length = type(stage.settings.length).parse(changes["length"])
            share = length.steps(steps_per_epoch=stage.steps_per_epoch) / max(1, stage.steps)
        seconds += stage.note.get("seconds_preparing", 0.0) + share * took
    return seconds


def next_experiments_of_study(study: Study, findings: Sequence[Finding]) -> list[Experiment]:
    """How to go on with a study: more seeds, trials or settings; what is done is kept."""
    file, results = study.design.file, study.results().values()
    finished = [result.seconds for result in results if result.status == "finished"]
    each = sum(finished) / len(finished) if finished else None
    found = []
    for finding in findings:
        if finding.outcome != "fires":
            continue
        change, runs = None, 0
        if finding.check == "best_is_luck":
            more = max(2, file.seeds)
            change, runs = f"seeds={file.seeds + more}", more * len(study.cells)
        elif finding.check == "too_few_trials":
            change = f"search.trials={max(20, 2 * file.search.trials)}"
            runs = max(0, 20 - file.search.trials) * file.seeds
        elif finding.check in {"best_at_the_edge", "decay_at_the_edge"}:
            change, runs = _wider(study, finding)
        if change:
            seconds = each * runs if each is not None else None
            command = study_command(study, change)
            found.append(Experiment(finding.check, command, seconds, finding.refuted_by))
    return found


def _wider(study: Study, finding: Finding) -> tuple[str | None, int]:
    """The axis with the next setting added, and how many runs that makes."""
    for number, axis in enumerate(study.design.file.axes):
        if axis.name == finding.numbers["axis"] and axis.values is not None:
            values = [*axis.values, float(finding.numbers["next"])]
            shown = ", ".join(_text(float(v)) for v in sorted(float(str(v)) for v in values))
            runs = len(study.slots()) // max(1, len(axis.values))
            return f"axes.{number}.values=[{shown}]", runs
    return None, 0


def study_command(study: Study, change: str) -> str:
    """The command that goes on with a study, one key changed."""
    folder = study.folder
    words = [*study.design.texts[2], f"base={folder / 'base.yaml'}", change]
    last = {word.partition("=")[0]: word for word in words}  # of a key that is set twice
    shown = " ".join(shlex.quote(word) for word in last.values())
    out = shlex.quote(str(folder))
    return f"fieldmark study run {shlex.quote(str(folder / 'study.yaml'))} {shown} --out {out}"
