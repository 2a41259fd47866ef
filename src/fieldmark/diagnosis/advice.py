"""What to try next after a run: from findings to commands, each with its cost, most worth first."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, gather
from fieldmark.diagnosis.finding import Finding
from fieldmark.duration import Duration
from fieldmark.recipe import Stage
from fieldmark.studies.run import Run

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


def _freer(stage: Stage, finding: Finding) -> Changes:
    """Three times the rate; of an exact head, which has none, a tenth of the decay."""
    is_exact = stage.solver == "lbfgs"
    return (_times("weight_decay", 0.1) if is_exact else _times("lr", 3))(stage, finding)


def _cut(_: Stage, finding: Finding) -> Changes:
    return {"length": Duration(round(float(finding.numbers["cut"])), "epochs").words}


def _calmer(stage: Stage, _: Finding) -> Changes:
    """A rate that falls to 0; where it does, averaged weights."""
    falls = stage.schedule.name in {"cosine", "one_cycle", "polynomial"}
    return {"average": 0.99} if falls else {"schedule": "cosine"}


def _clipped(_: Stage, finding: Finding) -> Changes:
    return {"clip_norm": float(f"{finding.numbers['clip']:.2g}")}


# Check -> what to change in its stage.
CHANGES: Mapping[str, Callable[[Stage, Finding], Changes]] = {
    "lr_too_low": lambda _, finding: {"lr": float(f"{finding.numbers['higher']:.3g}")},
    "lr_too_high": _times("lr", 0.1),
    "rate_far_above_range": lambda _, finding: {"lr": float(f"{finding.numbers['lower']:.2g}")},
    "diverged_early": _gentler,
    "diverged_midway": _clipped,
    "loss_spikes": _clipped,
    "stage_collapses": _gentler,
    "decay_too_strong": _times("weight_decay", 0.1),
    "decayed_too_early": lambda *_: {"schedule": "cosine"},
    "too_short": _length(2),
    "too_long": _cut,
    "second_half_idle": _cut,
    "underfitting": _freer,
    "overfitting": lambda *_: {"label_smoothing": 0.1},
    "overconfident": lambda *_: {"label_smoothing": 0.1},
    "restless_val": _calmer,
}
REHEARSED = {
    *("cannot_overfit_few", "blank_photos_do_as_well", "photos_off_scale", "no_band_of_rates"),
}


def next_experiments(run: Run, findings: Sequence[Finding]) -> list[Experiment]:
    """What to train next, one command for each finding that a setting can answer."""
    evidence = gather(run)
    stages = {stage.name: stage for stage in evidence.stages}
    found: dict[str, Experiment] = {}
    for finding in findings:
        stage = stages.get(str(finding.numbers.get("stage", _last(evidence))))
        if finding.outcome != "fires" or stage is None:
            continue
        keys = changes_of(finding, stage.settings) if stage.settings else {}
        about = f"{stage.name} {next(iter(keys), 'rehearsal')}"
        experiment = _experiment(evidence, stage, finding, keys)
        if experiment:
            found.setdefault(about, experiment)  # the first to change a key says by how much
    return list(found.values())


def changes_of(finding: Finding, stage: Stage) -> Changes:
    """What a finding asks to change in its stage; nothing where no setting answers it."""
    change = CHANGES.get(finding.check)
    return change(stage, finding) if change else {}


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
    words = [shlex.quote(f"stages.{stage.name}.{key}={as_text(v)}") for key, v in changes.items()]
    command = " ".join(["fieldmark train", recipe, *words])
    return Experiment(finding.check, command, _seconds(run, stage, changes), finding.refuted_by)


def as_text(value: object) -> str:
    """As YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_text(each)}' for key, each in value.items())}}}"
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
