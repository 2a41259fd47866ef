"""Checks of curves that rise again, jitter or swing: R4, R15 and R30."""

import numpy as np

from fieldmark.diagnosis.curve import Curve, running_mean
from fieldmark.diagnosis.evidence import (
    RunEvidence,
    StageEvidence,
    any_stage,
    lacks,
    last_stage,
)
from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown

RISE_LASTS = 0.25  # of the run; the playbook's loss that rises
RISE = 0.05  # of the loss it began with: less is nothing to act on; ours
RISE_SURE = 4.0  # standard deviations of Kendall's tau under no trend; ours
RESTLESS = 1.5  # times the sampling error; ours
FEWEST_LOOKS = 24  # of val, for a period to be told from chance
PERIOD_SURE = 1e-4


@check(
    "train_loss_rises",
    "R4",
    "problem",
    "running loss",
    "lr",
    "schedule",
    label="Training loss that rises again",
    title="The running loss rises from {lowest:.3f} to {end:.3f} nats over the last "
    "{share:.0%} of stage {stage}, though lr does not.",
    cause="Usually a mistake in the training: the order of the data, a resume from the wrong "
    "place, a wrong schedule; else a learning rate that is too high.",
    advice="Look at lr and at where the run was resumed; then train the stage again at a third of "
    "the rate.",
    refuted_by="The loss rises at a third of the rate too: then it is no matter of the rate.",
    otherwise="the running loss ends at {end:.3f} nats, its lowest was {lowest:.3f}",
)
@any_stage
def train_loss_rises(stage: StageEvidence) -> Seen:
    """Google tuning playbook: "usually indicates a bug in the training pipeline"."""
    loss, rates = stage.curve("train/loss"), stage.curve("train/lr")
    if short := lacks(loss, 12):
        return short
    smooth = running_mean(loss.values, max(3, len(loss) // 10 | 1))
    low = int(smooth.argmin())
    rest = loss[low:]
    share = (loss.steps[-1] - loss.steps[low]) / max(1, loss.steps[-1] - loss.steps[0])
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "lowest": float(smooth[low]),
        "end": float(smooth[-1]),
        "share": float(share),
    }
    had_fallen = smooth[0] - smooth[low] > RISE * smooth[0]
    rises = share >= RISE_LASTS and smooth[-1] - smooth[low] > RISE * smooth[0]
    warming = len(rates) > 1 and np.interp(
        rest.steps[-1], rates.steps, rates.values
    ) > 1.01 * np.interp(rest.steps[0], rates.steps, rates.values)
    if had_fallen and rises and not warming and trend(rest) > RISE_SURE:
        return fires(loss.place(low), **numbers)
    return clear(**numbers)


def trend(curve: Curve) -> float:
    """Kendall's tau against the steps, in standard deviations under no trend at all."""
    values, count = curve.values, len(curve)
    if count < 3:
        return 0.0
    signs = np.sign(values[None, :] - values[:, None])[np.triu_indices(count, 1)].sum()
    return float(signs / np.sqrt(count * (count - 1) * (2 * count + 5) / 18))


@check(
    "restless_val",
    "R15",
    "warning",
    "top-1",
    "lr",
    label="Restless val accuracy",
    title="Late in stage {stage} top-1 on {split} moves by {spread_points:.1f} points from one "
    "look to the next; {photos} photos alone explain {error_points:.1f}.",
    cause="The learning rate is too high late, or batches are too small.",
    advice="Let lr fall to 0 (`schedule: cosine`), average the weights (`average: 0.99`) or take "
    "larger batches; read the mean of the last looks, {late:.1%}, beside the best.",
    refuted_by="It moves as much with lr falling to 0.",
    otherwise="late top-1 moves by {spread_points:.1f} points between looks, {photos} photos "
    "alone explain {error_points:.1f}",
)
@last_stage
def restless_val(stage: StageEvidence) -> Seen:
    """The spread between late looks against the sampling error of one; the factor is ours."""
    curve = stage.val("top1").late
    if short := lacks(curve, 5):
        return short
    share, photos = float(curve.values.mean()), stage.counts.get(stage.split, 0)
    if not photos:
        return unknown("not_recorded", key=f"number of photos in {stage.split}")
    error = stage.error(stage.split, share)
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "split": stage.split,
        "spread_points": 100 * curve.jitter,
        "error_points": 100 * error,
        "photos": photos,
        "late": share,
    }
    restless = curve.jitter > RESTLESS * error
    return fires(curve.place(), **numbers) if restless else clear(**numbers)


@check(
    "periodic_val",
    "R30",
    "warning",
    "epoch",
    "split",
    label="Val accuracy that comes and goes in a rhythm",
    title="Top-1 on {split} swings by {swing_points:.1f} points every {period:.1f} looks.",
    cause="The training photos are not shuffled, or `val` is partly trained on.",
    advice="Look at the split (`split.json`) and at the order of the photos.",
    refuted_by="The rhythm stays with another seed and other batches.",
    otherwise="no rhythm beyond chance; the strongest swing is {swing_points:.1f} points",
)
@last_stage
def periodic_val(stage: StageEvidence) -> Seen:
    """Fisher's g: the largest of the periodogram's shares (Proc. R. Soc. A 125 (1929))."""
    curve = stage.val("top1")
    if short := lacks(curve, FEWEST_LOOKS):
        return short
    count = len(curve)
    bent = np.polynomial.Polynomial.fit(np.arange(count), curve.values, 3)
    power = np.abs(np.fft.rfft(curve.values - bent(np.arange(count)))) ** 2
    heard = power[count // 8 : (count - 1) // 2 + 1]  # longer than 8 looks is a trend, no rhythm
    if heard.sum() <= 0:
        return clear(split=stage.split, swing_points=0.0, period=0.0)
    share = float(heard.max() / heard.sum())
    chance = min(1.0, len(heard) * (1 - share) ** (len(heard) - 1))  # Fisher's first term
    swing = 4 * float(np.sqrt(heard.max())) / count
    numbers: dict[str, Number] = {
        "split": stage.split,
        "swing_points": 100 * swing,
        "period": count / (count // 8 + int(heard.argmax())),
    }
    matters = swing > stage.error(stage.split, float(curve.values.mean()))
    return fires(curve.place(), **numbers) if chance < PERIOD_SURE and matters else clear(**numbers)


CHECKS: tuple[Check[RunEvidence], ...] = (
    train_loss_rises,
    restless_val,
    periodic_val,
)
