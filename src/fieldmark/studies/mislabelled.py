"""Which labels are likely wrong, by what models say of photos they were not trained on.

A model that was not trained on a photo may contradict its label because the label is wrong, or
because the model is. Its own mistakes are foreseen by its probabilities, once these are as sure as
they are right: softmax(log p / T), Guo et al., arXiv 1706.04599. What contradicts beyond them has
another source. So a label j of K is given with probability

    (1 - e) q_j + e (1 - q_j) / (K - 1),   q = softmax(log p / T),

e the share of wrong labels, each wrong one falling on any other class alike; T and e are the
likeliest, the interval of e is that of the likelihood ratio. This is Copas' contaminated model
("Binary regression models for contaminated data", J. R. Stat. Soc. B 50 (1988)) for K classes.
Bayes' rule then says of each label how likely it is to be wrong.

Confident learning (Northcutt et al., J. Artif. Intell. Res. 70 (2021)) counts every confident
contradiction, and so counts a model's own mistakes as wrong labels: of look-alikes named at 45 %,
all labels sound, it calls half of the labels wrong (docs/LOG.md). Here, in turn, labels that people
gave to look-alikes by mistake pass for the model's own mistakes: the share is a least.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar
from scipy.special import chdtri, logsumexp

from fieldmark.errors import SettingError
from fieldmark.studies.judged import Judged, judged
from fieldmark.studies.run import Run
from fieldmark.studies.spread import LEVEL

Row = NDArray[np.float64]
TEMPERATURES = np.geomspace(0.1, 30, 33)  # of T; between them splines are true to 1e-4 nats
MOST = 0.9  # of labels: beyond there is nothing to tell them by
LEAST_P = 1e-12  # of a class: a model that is surer than that is no better for it
BEYOND = float(chdtri(1, 1 - LEVEL)) / 2  # below the highest log-likelihood, still inside
LIKELY = 0.5  # that a label is wrong, to be listed


@dataclass(frozen=True, eq=False)
class WrongLabels:
    """How many labels are wrong, and which most likely.

    Attributes:
        share: Of all labels, as a fraction; 0 where the model's own mistakes explain all.
        low, high: Its 95 % interval.
        temperature: What log-probabilities are divided by, so that they are as sure as right.
        wrong: (N,), probability that a photo's label is wrong.
        suggested: (N,), the likeliest class but the given one.
    """

    share: float
    low: float
    high: float
    temperature: float
    wrong: Row
    suggested: NDArray[np.int64]

    def listed(self) -> list[int]:
        """Positions of the labels that are more likely wrong than right, most sure first."""
        order = np.argsort(-self.wrong, kind="stable").tolist()
        return [i for i in order if self.wrong[i] > LIKELY]


class Suspect(NamedTuple):
    """A photo whose label is more likely wrong than right.

    Attributes:
        path: As the data names it.
        given: Its label.
        suggested: The likeliest other class.
        probability: That the label is wrong.
    """

    path: str
    given: str
    suggested: str
    probability: float


def suspects(found: Judged, wrong: WrongLabels) -> tuple[Suspect, ...]:
    """The photos to look at, most sure first."""
    return tuple(
        Suspect(
            found.paths[i],
            found.classes[found.labels[i]],
            found.classes[wrong.suggested[i]],
            float(wrong.wrong[i]),
        )
        for i in wrong.listed()
    )


def judged_together(runs: Sequence[Run]) -> Judged | None:
    """What a recipe's runs say of the photos they were judged by, mean over the runs.

    None where a run has no answers yet, or they are of other photos, labels or classes.
    """
    each = [found for run in runs if (found := judged(run))]
    if not each or len(each) < len(runs):
        return None
    ordered = [_by_path(found) for found in each]
    first = ordered[0]
    for other in ordered[1:]:
        same = (other.split, other.classes, other.paths) == (
            first.split,
            first.classes,
            first.paths,
        )
        if not same or not np.array_equal(other.labels, first.labels):
            return None
    mean = np.mean([found.probabilities for found in ordered], axis=0)
    return Judged(first.split, first.classes, first.paths, first.labels, mean.argmax(1), mean)


def _by_path(found: Judged) -> Judged:
    order = np.argsort(found.paths, kind="stable")
    return Judged(
        found.split,
        found.classes,
        tuple(found.paths[i] for i in order),
        found.labels[order],
        found.guesses[order],
        found.probabilities[order],
    )


def wrong_labels(labels: NDArray[np.int64], probabilities: Row) -> WrongLabels:
    """How many labels are wrong, and which.

    Args:
        labels: (N,) class indices, some of them wrong.
        probabilities: (N, K), of models that were not trained on the photo.

    Raises:
        SettingError: there are not two photos and two classes, or the shapes do not fit.
    """
    if probabilities.ndim != 2 or min(probabilities.shape) < 2:
        raise SettingError(
            "`probabilities` must be (photos, classes), two or more of each, got shape "
            f"{probabilities.shape}."
        )
    if labels.shape != probabilities.shape[:1]:
        raise SettingError(
            f"`labels` must be one for each of {len(probabilities)} photos, got {labels.shape}."
        )
    logs = np.log(np.maximum(probabilities, LEAST_P))
    rows, others = np.arange(len(labels)), probabilities.shape[1] - 1
    table = [(logs / t)[rows, labels] - logsumexp(logs / t, axis=1) for t in TEMPERATURES]
    fit = _Fit(CubicSpline(np.log(TEMPERATURES), table), others)
    share, low, high = fit.interval()
    temperature = fit.temperature(share)
    given = fit.given(temperature)
    rest = logs.copy()
    rest[rows, labels] = -np.inf
    return WrongLabels(
        share,
        low,
        high,
        float(np.exp(temperature)),
        share * (1 - given) / others / fit.chance(share, temperature),
        rest.argmax(1),
    )


class _Fit:
    """The likelihood of a share of wrong labels, at the temperature that suits it best.

    Args:
        given: Log of T to log q of each photo's label.
        others: Classes but the given one.
    """

    def __init__(self, given: CubicSpline, others: int) -> None:
        self._given, self._others = given, others

    def given(self, temperature: float) -> Row:
        """Probability of each photo's label, would no label be wrong."""
        q: Row = np.exp(self._given(temperature))
        return q.clip(1e-300, 1.0)

    def chance(self, share: float, temperature: float) -> Row:
        """Probability of each photo's label."""
        q = self.given(temperature)
        return ((1 - share) * q + share * (1 - q) / self._others).clip(1e-300)

    def temperature(self, share: float) -> float:
        """Log of the likeliest T."""
        ends = np.log(TEMPERATURES[[0, -1]])
        found = minimize_scalar(
            lambda t: -np.log(self.chance(share, t)).sum(), bounds=ends, method="bounded"
        )
        return float(found.x)

    def likelihood(self, share: float) -> float:
        """Its logarithm."""
        return float(np.log(self.chance(share, self.temperature(share))).sum())

    def interval(self) -> tuple[float, float, float]:
        """The likeliest share, and both ends of its interval."""
        none = self.likelihood(0.0)
        found = minimize_scalar(
            lambda e: -self.likelihood(e),
            bounds=(0, MOST),
            method="bounded",
            options={"xatol": 1e-5},
        )
        share, best = (float(found.x), -float(found.fun))
        if none >= best:
            share, best = 0.0, none

        def inside(e: float) -> float:
            return self.likelihood(e) - best + BEYOND

        low = 0.0 if inside(0.0) >= 0 else float(brentq(inside, 0.0, share, xtol=1e-5))
        high = MOST if inside(MOST) >= 0 else float(brentq(inside, share, MOST, xtol=1e-5))
        return share, low, high
