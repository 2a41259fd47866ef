"""Study files: what they accept, what they say when they don't, which cells they make."""

import pytest

from fieldmark.errors import RecipeError

RATES = """\
name: rates
question: Which rate?
base: base
axes:
  - {key: data.image_size, values: [224, 336]}
  - {key: stages.head.lr, space: {low: 0.1, high: 10, log: true}, role: nuisance}
search: {trials: 8}
"""


def test_a_grid_is_every_combination_as_a_checked_recipe(design):
    made = design()
    cells = made.cells(made.points())
    assert [tuple(cell.points[0].values()) for cell in cells] == [
        (size, dim) for size in (224, 336, 448) for dim in (1024, 2048, 4096, 8192)
    ]
    for cell in cells:
        (point,) = cell.points
        assert cell.recipe.data.image_size == point["image_size"]
        assert cell.recipe.pooling.sketch_dim == point["sketch_dim"]
        assert cell.recipe.stages[0].lr == 1
    assert len({cell.hash for cell in cells}) == 12


def test_overrides_go_to_the_study_or_to_its_base(design):
    made = design(RATES, "seeds=3", "data.folder=birds", "search.trials=2", "seed=7")
    cells = made.cells(made.points())
    assert made.file.seeds == 3
    assert len(cells) == 4
    assert {(cell.recipe.data.folder, cell.recipe.seed) for cell in cells} == {("birds", 7)}


def test_arms_set_several_keys_and_whole_sections(design):
    made = design(
        """\
        name: pooling
        question: Which pooling?
        base: base
        axes:
          - name: pooling
            arms:
              average: {pooling: {name: average}, stages.head.lr: 5}
              gem: {pooling: {name: gem, p: 2}}
          - {name: length, role: fixed, key: stages.head.length, values: [3 epochs]}
          - {name: rate, key: [stages.head.lr, stages.head.weight_decay], values: [0.5]}
        """
    )
    average, gem = made.cells(made.points())
    assert (average.recipe.pooling.name, gem.recipe.pooling.options()) == ("average", {"p": 2})
    assert average.points == ({"pooling": "average", "length": "3 epochs", "rate": 0.5},)
    assert average.recipe.stages[0].lr == average.recipe.stages[0].weight_decay == 0.5
    assert str(gem.recipe.stages[0].length) == "3 epochs"


def test_points_of_one_recipe_are_one_cell(design):
    made = design(
        """\
        name: twins
        question: Are they?
        base: base
        axes:
          - {key: data.image_size, values: [224, 224.0, 336]}
          - name: resize
            arms: {as_is: {}, again: {data.resize_size: null}, large: {data.resize_size: 512}}
        """
    )
    cells = made.cells(made.points())
    assert [len(cell.points) for cell in cells] == [4, 2, 2, 1]


def test_a_cells_hash_is_of_what_it_asks_for(design):
    def first(*overrides):
        made = design(RATES, *overrides)
        return made.cells(made.points())[0].hash

    same = first()
    assert first("name=other", "question=Why", "seeds=2", "axes.0.name=pixels") == same
    assert (
        len({same, first("objective.folds=none"), first("objective.folds=3"), first("seed=1")}) == 4
    )


@pytest.mark.parametrize(
    ("overrides", "folds"),
    [
        ((), 5),
        (("stages.0.train=all",), None),
        (("axes.0={name: train, key: stages.0.train, values: [head, all]}",), None),
        (("objective.folds=3", "stages.0.train=all"), 3),
        (("objective.folds=none",), None),
    ],
)
def test_folds_are_for_frozen_backbones_unless_asked_for(design, overrides, folds):
    made = design(RATES, *overrides)
    assert made.folds == folds
    assert made.metric == ("out_of_fold/top1" if folds else "val/top1")
    assert {cell.folds for cell in made.cells(made.points())} == {folds}


@pytest.mark.parametrize("sampler", ["random", "quasi-random"])
def test_drawn_points_are_the_same_at_each_point_of_the_grid(design, sampler):
    made = design(RATES, f"search.sampler={sampler}")
    rates = {size: [] for size in (224, 336)}
    for point in made.points():
        rates[point["image_size"]].append(point["lr"])
    assert rates[224] == rates[336]
    assert len(set(rates[224])) == 8
    assert all(0.1 <= rate <= 10 and float(f"{rate:.4g}") == rate for rate in rates[224])
    other = design(RATES, f"search.sampler={sampler}", "search.seed=1")
    assert other.points() != made.points() == design(RATES, f"search.sampler={sampler}").points()


def test_quasi_random_points_fill_their_space(design):
    made = design(RATES, "search.trials=64", "axes.0.values=[224]")
    rates = sorted(point["lr"] for point in made.points())
    quarters = [
        sum(low <= rate < low * 10**0.5 for rate in rates) for low in (0.1, 0.31623, 1, 3.1623)
    ]
    assert quarters == [16, 16, 16, 16]


def test_all_mistakes_of_the_recipes_come_at_once_with_their_lines(design):
    text = """\
name: wrong
question: What?
base: base
axes:
  - {key: data.image_sise, values: [224]}
  - key: pooling.sketch_dim
    values:
      - 1024
      - -1
      - many
  - name: arms
    arms:
      good: {}
      bad: {stages.tail.lr: 1}
  - {key: stages.head.lr, space: {low: -1, high: 1}}
"""
    with pytest.raises(RecipeError) as caught:
        design(text)
    first, *rest = str(caught.value).splitlines()
    assert first == "study.yaml has 5 mistakes:"
    assert [line.strip() for line in rest] == [
        "line 5: axis image_sise, 224: `data.image_sise` is no key here. "
        "Did you mean `image_size`?",
        "line 9: axis sketch_dim, -1: `pooling.sketch_dim` should be greater than or equal to 1, "
        "got -1.",
        "line 10: axis sketch_dim, 'many': `pooling.sketch_dim` should be a valid integer, unable "
        "to parse string as an integer, got 'many'.",
        "line 14: axis arms, 'bad': The override 'stages.tail.lr=1' needs a position (0) or a "
        "name (head), got 'tail'.",
        "line 15: axis lr, -1.0: `stages.0.lr` should be greater than 0, got -1.0.",
    ]


def test_what_only_a_combination_breaks_is_told_as_one(design):
    text = """\
        name: wrong
        question: What?
        base: base
        axes:
          - {key: data.image_size, values: [224, 448]}
          - {key: data.resize_size, values: [256, 512]}
        """
    with pytest.raises(RecipeError, match=r"line 5: image_size 448, resize_size 256: .*no crop"):
        design(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("axes=[]", r"`axes`"),
        ("axes.0.vales=[1]", r"`axes.0.vales` is no key here. Did you mean `values`\?"),
        ("axes.1.values=[1]", r"give one of `values`, `arms`, `space`; got \['values', 'space'\]"),
        ("axes.0={name: x, values: [1]}", r"`values` and `space` need a `key`"),
        ("axes.0={arms: {a: {}}}", r"needs a `name`, other than best, cell, "),
        ("axes.0.name=mean", r"needs a `name`, other than best, cell, "),
        ("axes.0.name=cells", r"needs a `name`, other than best, cell, cells, "),
        ("axes.0.name=lr", r"each axis needs a name of its own; given twice: lr"),
        ("axes.0.role=fixed", r"a fixed axis has one value"),
        ("axes.0={key: seed, values: [1, 2]}", r"`seed` is no axis: `seeds` says how many"),
        ("axes.0.values=[.nan]", r"a value is a number, word, list or mapping, got nan"),
        ("axes.1.space={low: 1}", r"needs `low` < `high`, or `choices`; got low 1.0 and high None"),
        ("axes.1.space={low: 0, high: 1, log: true}", r"`low` must be above 0 where `log` is true"),
        ("axes.1.space={low: 1, choices: [1, 2]}", r"give `choices`, or `low` and `high`"),
        ("axes.1.space={low: 0.5, high: 2, integer: true}", r"must be whole numbers"),
        ("axes.1.space={low: 1, high: .inf, integer: true}", r"`axes.1.space.high` .*finite"),
        (
            "search.sampler=cma",
            r"`search.sampler` should be 'random', 'quasi-random', 'tpe' or 'gp'",
        ),
        ("objective.folds=1", r"`objective.folds"),
        ("objective.metric=top2", r"`objective.metric` should be 'top1'"),
        ("expect={axis: lr, direction: up}", r"`expect.axis` must be an axis with several.*'lr'"),
        (
            "expect={axis: image_size, direction: up, to: 300}",
            r"`expect`: 300 is no setting of image_size; allowed: 224, 336",
        ),
        ("data.image_sise=3", r"the base base has 1 mistake:\n.*Did you mean `image_size`"),
    ],
)
def test_each_mistake_is_told_with_its_remedy(design, override, message):
    with pytest.raises(RecipeError, match=message):
        design(RATES, override)
