"""What a stage will take, against sizes counted by hand."""

from pathlib import Path

import pytest
import torch

from fieldmark.build import Task, build
from fieldmark.checked_yaml import check_text
from fieldmark.forecast import Forecast, _alive, forecast
from fieldmark.network import POOLING_OPTIONS
from fieldmark.predict import EVAL_BATCH
from fieldmark.recipe import Recipe

RECIPE = """\
data: {folder: "%s", image_size: 64}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 4096}
precision: float32
stages:
  - {name: head, train: head, lr: 1, length: 1 epoch, batch_size: 8}
  - {name: all, train: all, lr: 1, length: 1 epoch, batch_size: 8}
"""
GB = 10**9


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"), ("amber", "teal"), per_class=10)


def make(photos: Path, *overrides: str) -> Task:
    return build(check_text(RECIPE % photos, Recipe, overrides))


def test_it_counts_what_is_alive_at_the_fullest_moment():
    images = torch.empty(8, 100, device="meta")  # 3,200 bytes, there before

    def compute() -> None:
        doubled = images * 2
        shown = doubled.view(100, 8)  # no memory of its own
        added = shown + doubled.view(100, 8)
        del doubled, shown
        added.add_(1)
        torch.cat([added, added])

    assert _alive(compute) == 3 * 3200


def test_a_backward_pass_counts_what_the_forward_pass_kept():
    x = torch.empty(10, 50, device="meta", requires_grad=True)
    # Three sines keep their inputs x, a and b: 2 x 2,000 bytes beside x; then come the loss and its
    # gradient, c's, and the product of that with a cosine.
    fullest = _alive(lambda: torch.autograd.backward(x.sin().sin().sin().sum()))
    assert 4 * 2000 <= fullest <= 5 * 2000 + 100


def test_features_are_those_of_train_and_val(photos: Path):
    task = make(photos)
    found = forecast(task, task.recipe.stages[0])
    assert found.features == (len(task.split.train) + len(task.split.val)) * 4096 * 4
    assert forecast(task, task.recipe.stages[1]).features == 0


def test_with_maps_at_hand_only_the_photos_looked_at_in_the_end_are_seen(photos: Path):
    task = make(photos)
    stage = task.recipe.stages[0]
    cold, warm = (forecast(task, stage, kept=kept) for kept in (False, True))
    with torch.no_grad():
        a_map = task.model.backbone(torch.zeros(1, 3, 64, 64)).nbytes
    collected = 3 * a_map * (len(task.split.train) + len(task.split.val))
    of_val = len(task.split.val) / EVAL_BATCH
    assert 0 < of_val < 1
    assert warm.evaluation == pytest.approx(of_val * (cold.evaluation - collected), rel=1e-6)
    assert (warm.features, warm.step, warm.weights) == (cold.features, cold.step, cold.weights)
    trained = task.recipe.stages[1]  # which sees photos all the same
    assert forecast(task, trained, kept=True) == forecast(task, trained)


def test_without_val_no_photo_goes_through_the_backbone_once_maps_are_kept(photos: Path):
    task = make(photos, "data.val_fraction=0")
    cold, warm = (forecast(task, task.recipe.stages[0], kept=kept) for kept in (False, True))
    backbone = sum(t.nbytes for t in task.model.backbone.state_dict().values())
    assert cold.weights - warm.weights == pytest.approx(backbone, rel=0.01)
    assert warm.evaluation == 0


def test_no_more_maps_are_collected_than_there_are(photos: Path, monkeypatch: pytest.MonkeyPatch):
    task = make(photos)

    def pass_of(most: int) -> int:
        monkeypatch.setattr("fieldmark.forecast.SHARD_BYTES", most)
        return forecast(task, task.recipe.stages[0]).evaluation

    with torch.no_grad():
        a_map = task.model.backbone(torch.zeros(1, 3, 64, 64)).nbytes
    count = len(task.split.train) + len(task.split.val)
    assert pass_of(GB) - pass_of(0) == 3 * count * a_map
    assert pass_of(1000) - pass_of(0) == 3000


def test_a_step_grows_with_its_batch_and_with_the_square_of_the_size(photos: Path):
    def step(*overrides: str) -> int:
        task = make(photos, "pooling={name: average}", *overrides)
        return forecast(task, task.recipe.stages[1]).step

    small = step("stages.1.batch_size=8")
    assert step("stages.1.batch_size=32") == pytest.approx(4 * small, rel=0.15)
    assert step("data.image_size=128") == pytest.approx(4 * small, rel=0.15)
    assert step("precision=bfloat16") < 0.75 * small


def test_an_optimiser_of_two_states_takes_one_more_copy_of_what_moves(photos: Path):
    task = make(photos)
    sgd = forecast(task, task.recipe.stages[1]).weights
    task = make(photos, "stages.1.optimizer=adamw", "stages.1.average=0.9")
    moved = 4 * sum(parameter.numel() for parameter in task.model.parameters())
    assert forecast(task, task.recipe.stages[1]).weights == sgd + 2 * moved


@pytest.mark.parametrize("pooling", POOLING_OPTIONS)
@pytest.mark.parametrize("stage", [0, 1])
def test_every_pooling_can_be_foreseen(photos: Path, pooling: str, stage: int):
    task = make(photos, f"pooling={{name: {pooling}}}", "head.drop_rate=0.5")
    assert forecast(task, task.recipe.stages[stage]).total > 0


def test_nothing_is_left_of_it_in_model_or_generator(photos: Path):
    task = make(photos, "head.drop_rate=0.5")
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    generator = torch.random.get_rng_state()
    forecast(task, task.recipe.stages[1])
    assert torch.equal(torch.random.get_rng_state(), generator)
    for name, value in task.model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_a_network_that_needs_numbers_is_passed_over(photos: Path, monkeypatch: pytest.MonkeyPatch):
    task = make(photos)
    pool = type(task.model.pooling).forward
    monkeypatch.setattr(
        type(task.model.pooling),
        "forward",
        lambda self, maps: pool(self, maps) * float(maps.mean()),
    )
    assert forecast(task, task.recipe.stages[1]) is None


def test_a_stage_that_fits_is_told_in_a_line(photos: Path):
    stage = make(photos).recipe.stages[1]
    found = Forecast(step=2 * GB, evaluation=GB, weights=GB // 10, features=0)
    assert found.line(stage, 9 * GB) == (
        "memory: stage all takes about 3.1 GB (steps of 8 2.0 GB, evaluation 1.0 GB, "
        "weights 100 MB) of 9.0 GB available"
    )
    assert found.line(stage, None).endswith("weights 100 MB)")


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ((4, 1, 1, 0), "`batch_size` to 4 and `accumulate` to 2, which takes the same steps"),
        ((1, 4, 1, 0), r"Lower `data\.image_size`"),
        ((1, 1, 1, 9), "such as a lower `sketch_dim`"),
    ],
)
def test_one_that_does_not_fit_is_a_warning_with_what_to_change(
    photos: Path, parts: tuple[int, ...], advice: str
):
    stage = make(photos).recipe.stages[1]
    line = Forecast(*(part * GB for part in parts)).line(stage, 2 * GB)
    assert line.startswith("WARNING, memory: stage all takes about")
    assert "but only 2.0 GB are available" in line
    assert advice.replace("\\", "") in line
