"""Where in a study's spaces to look next: drawn beforehand, or proposed from what was seen."""

import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldmark.studies.space import Search, Space

if TYPE_CHECKING:
    import optuna

Point = Mapping[str, Any]  # axis -> setting
Seen = Sequence[tuple[Point, float | None]]  # with the objective, or None where the cell failed


def drawn(search: Search, spaces: Mapping[str, Space]) -> list[dict[str, Any]]:
    """The points of a `random` or `quasi-random` search, the same ones for every seed of it.

    Quasi-random: Owen, "A randomized Halton algorithm in R", arXiv 1706.02808.
    """
    shape = (search.trials, len(spaces))
    if search.sampler == "random":
        units = np.random.default_rng(search.seed).random(shape)
    else:
        from scipy.stats import qmc  # noqa: PLC0415 - slow to load, and seldom needed

        units = qmc.Halton(len(spaces), scramble=True, rng=search.seed).random(search.trials)
    return [
        {name: space.at(unit) for (name, space), unit in zip(spaces.items(), row, strict=True)}
        for row in units.tolist()
    ]


def proposed(
    search: Search, spaces: Mapping[str, Space], seen: Seen, count: int, *, lower_is_better: bool
) -> list[dict[str, Any]]:
    """The next points of a `tpe` or `gp` search by Optuna, which only proposes and keeps nothing.

    Args:
        search: Which sampler, and its seed.
        spaces: Axis to space.
        seen: The points tried so far; a failed one counts as the worst of them.
        count: How many to propose.
        lower_is_better: Whether the objective is to be small.
    """
    arguments = (search, dict(spaces), list(seen), count, lower_is_better)
    if search.sampler != "gp":
        return _ask(*arguments)
    # It computes with torch, which must not be loaded here.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_ask, *arguments).result()


def optuna_study(
    spaces: Mapping[str, Space],
    seen: Seen,
    *,
    lower_is_better: bool,
    sampler: "optuna.samplers.BaseSampler | None" = None,
) -> "optuna.Study":
    """What was seen as a study of Optuna's, in memory; a choice is known by its number there."""
    import optuna  # noqa: PLC0415 - slow to load, and seldom needed

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=sampler, direction="minimize" if lower_is_better else "maximize"
    )
    values = [value for _, value in seen if value is not None]
    if not values:
        return study
    worst = max(values) if lower_is_better else min(values)
    distributions = {name: _distribution(space) for name, space in spaces.items()}
    for point, value in seen:
        numbers = {
            name: space.choices.index(point[name]) if space.choices else point[name]
            for name, space in spaces.items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=numbers,
                distributions=distributions,
                value=worst if value is None else value,
            )
        )
    return study


def _ask(
    search: Search, spaces: Mapping[str, Space], seen: Seen, count: int, lower_is_better: bool
) -> list[dict[str, Any]]:
    import optuna  # noqa: PLC0415

    seed = (search.seed + len(seen)) % 2**32  # else each round would begin with the same draws
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=seed)
        if search.sampler == "tpe"
        else optuna.samplers.GPSampler(seed=seed)
    )
    study = optuna_study(spaces, seen, lower_is_better=lower_is_better, sampler=sampler)
    distributions = {name: _distribution(space) for name, space in spaces.items()}
    asked = [study.ask(distributions).params for _ in range(count)]
    return [
        {
            name: space.choices[numbers[name]] if space.choices else space.tidy(numbers[name])
            for name, space in spaces.items()
        }
        for numbers in asked
    ]


def _distribution(space: Space) -> "optuna.distributions.BaseDistribution":
    from optuna import distributions  # noqa: PLC0415

    if space.choices:
        return distributions.CategoricalDistribution(range(len(space.choices)))
    low, high = space.bounds
    if space.integer:
        return distributions.IntDistribution(round(low), round(high), log=space.log)
    return distributions.FloatDistribution(low, high, log=space.log)
