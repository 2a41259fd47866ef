"""Checks of the labels, by what models say of photos they were not trained on: R33."""

from collections.abc import Sequence
from dataclasses import replace

from fieldmark.diagnosis.finding import Check, Finding, Number, Seen, check, clear, fires, unknown
from fieldmark.diagnosis.study_evidence import StudyEvidence
from fieldmark.studies.mislabelled import Suspect, suspects, wrong_labels

FEWEST = 100  # photos
MOST_BY_CHANCE = 0.005  # of the labels: where the interval must lie above; ours
FIRST = 20  # photos by which a person tells whether the list is right


@check(
    "wrong_labels",
    "R33",
    "problem",
    "out of fold",
    "split",
    label="Labels that are likely wrong",
    title="About {share:.1%} of {photos} labels are likely wrong (95 % interval {low:.1%} to "
    "{high:.1%}): models that were not trained on a photo contradict its label more surely than "
    "their own mistakes explain. {listed} photos are more likely mislabelled than not.",
    cause="Photos were sorted into a wrong folder or list, or their list was made from others' "
    "names. Wrong labels between look-alikes pass for the models' mistakes, so there may be more.",
    advice="Look at the photos that are listed, most sure first. `fieldmark diagnose STUDY "
    "--corrections FILE` writes them down for `data.corrections`: delete the rows of labels that "
    "are right. No photo is touched.",
    refuted_by="Of the first {some} that are listed, over half are rightly labelled.",
    otherwise="the models' own mistakes explain what contradicts the {photos} labels: {share:.1%} "
    "wrong, {low:.1%} to {high:.1%}",
)
def wrong_labels_found(evidence: StudyEvidence) -> Seen:
    """Copas' contaminated model on the best cell's answers, mean over its seeds."""
    found = evidence.best_answers
    if found is None:
        return unknown("not_recorded", key="answers photo by photo")
    if len(found.labels) < FEWEST:
        return unknown("too_few_photos", needed=FEWEST, split=found.split, found=len(found.labels))
    wrong = wrong_labels(found.labels, found.probabilities)
    listed = suspects(found, wrong)
    numbers: dict[str, Number] = {
        "share": wrong.share,
        "low": wrong.low,
        "high": wrong.high,
        "photos": len(found.labels),
        "listed": len(listed),
        "some": min(FIRST, len(listed)),
        "temperature": wrong.temperature,
    }
    if wrong.low <= MOST_BY_CHANCE or not listed:
        return clear(**numbers)
    return replace(fires(**numbers), suspects=listed)


def suspects_of(findings: Sequence[Finding]) -> tuple[Suspect, ...]:
    """The photos whose labels are likely wrong, most sure first; none where that is not shown."""
    return next((finding.suspects for finding in findings if finding.suspects), ())


CHECKS: tuple[Check[StudyEvidence], ...] = (wrong_labels_found,)
