"""Which tests hold what people complain about in other tools, and the last few of those tests.

B1 to B10, B18, B20 to B29, B34 and B35 are the complaints about data and training; each stands in
`HELD` with the tests that fail if it comes back.
"""

import ast
import json
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open

from fieldmark.checked_yaml import check_text
from fieldmark.errors import WeightsError
from fieldmark.inputs import FrozenInputs, PhotoInputs
from fieldmark.ledger import BEST, CHECKPOINT, Silent
from fieldmark.predict import Predictor
from fieldmark.recipe import Recipe
from fieldmark.steps import StageSteps
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

TESTS = Path(__file__).parent
NUMBERS = [*range(1, 11), 18, *range(20, 30), 34, 35]

DATA, TRAINING = "data/test_complaints.py", "data/test_complaints_training.py"
HERE, RESUME, CHANGED = "test_complaints.py", "test_resume.py", "test_changed_since.py"
HELD: dict[str, tuple[str, ...]] = {
    # Labels of val shift when a class folder is empty or missing.
    "B1": (f"{DATA}::test_a_class_missing_from_val_shifts_no_label",),
    # Classes in another order: 90 % in test, 15 % in one's own predictions.
    "B2": (
        f"{DATA}::test_class_order_is_one_and_weights_refuse_another",
        "test_train.py::test_predict_says_what_training_said",
    ),
    # Frozen layers go on moving.
    "B3": (
        f"{TRAINING}::test_a_frozen_backbone_stands_still_with_its_batch_norm",
        "training/test_stage.py::test_only_what_the_plan_trains_moves",
    ),
    # Staged training breaks at resume.
    "B4": (f"{TRAINING}::test_a_stage_goes_on_after_an_interruption_as_if_there_was_none",),
    # The second stage collapses.
    "B5": (
        f"{TRAINING}::test_the_second_stage_begins_where_the_first_ended_or_not_at_all",
        "test_end_to_end.py::test_both_stages_train_and_the_second_gains",
    ),
    # NaN from the bilinear head, or without a stated cause.
    "B6": (
        f"{TRAINING}::test_the_root_at_zero_has_a_finite_slope",
        f"{TRAINING}::test_a_loss_that_is_no_number_stops_at_once_and_names_its_photos",
        "training/test_stage.py::test_the_first_bad_tensor_is_named_with_the_parameter_to_blame",
        "test_train.py::test_a_last_step_into_nothing_is_no_finished_run",
    ),
    # Val is augmented.
    "B7": (f"{DATA}::test_val_is_never_augmented",),
    # Val and predict disagree on one photo.
    "B8": (
        f"{DATA}::test_prediction_sees_the_pixels_that_evaluation_saw",
        "test_train.py::test_predict_says_what_training_said",
        "test_evaluate.py::test_evaluating_again_gives_what_training_gave",
        f"{CHANGED}::test_a_finished_run_is_measured_on_what_it_saw_or_not_at_all",
    ),
    # Test photos are in the training set, or under two labels.
    "B9": (
        f"{DATA}::test_photos_that_stand_in_train_and_val_are_named",
        f"{DATA}::test_photos_that_look_the_same_in_train_and_val_are_named",
        "data/test_sources.py::test_a_photo_in_two_lists_is_refused_though_both_have_one_name",
    ),
    # The test set takes part in choices.
    "B10": (
        f"{DATA}::test_closed_test_photos_are_not_opened",
        "test_train.py::test_without_the_flag_no_test_photo_is_read",
        "test_evaluate.py::test_the_test_split_is_opened_only_when_told_and_each_time_counted",
        "test_cli_study.py::test_what_was_judged_on_test_says_how_often_that_was_opened",
    ),
    # A resumed run gives other results.
    "B18": (
        f"{RESUME}::test_a_few_power_cuts_cost_nothing",
        f"{RESUME}::test_power_cuts_at_sixty_points_cost_nothing",
        f"{RESUME}::test_kill_9_at_random_moments_costs_nothing",
        "test_inputs.py::test_steps_passed_over_are_those_that_were_taken",
        f"{CHANGED}::test_a_photo_repainted_since_stops_a_resumed_run",
        f"{CHANGED}::test_a_recipe_edited_since_stops_a_resumed_run",
    ),
    # One bad photo stops training hours later, unnamed.
    "B20": (
        f"{DATA}::test_one_bad_photo_is_named_before_training_not_hours_later",
        "test_hostile.py::test_every_bad_file_is_listed_with_its_reason_before_step_1",
        f"{CHANGED}::test_a_photo_that_breaks_while_it_is_trained_on_is_named",
    ),
    # EXIF, CMYK, transparent, grey, 16-bit.
    "B21": (
        f"{DATA}::test_every_kind_of_pixel_becomes_three_channels",
        f"{DATA}::test_a_class_that_alone_is_grey_is_told",
    ),
    # Train looks worse than val.
    "B22": (f"{TRAINING}::test_train_and_val_are_measured_alike",),
    # A batch size that was found runs out of memory, or changes the training.
    "B23": (
        f"{TRAINING}::test_less_memory_takes_the_same_steps_and_the_batch_is_the_one_asked_for",
        "training/test_stage.py::test_what_does_not_fit_is_taken_in_passes_bit_for_bit_as_accumulation",
    ),
    # Worker processes die.
    "B24": (f"{DATA}::test_loading_has_no_processes_that_could_die",),
    # The same augmentation in every worker and epoch.
    "B25": (
        f"{DATA}::test_epochs_differ_and_workers_do_not_matter",
        "test_inputs.py::test_processes_see_the_same_photos_step_by_step_as_one_alone",
    ),
    # Paths beyond ASCII.
    "B26": (
        f"{DATA}::test_any_alphabet_in_paths_and_class_names",
        "test_hostile.py::test_classes_of_odd_names_are_kept_apart_to_the_end",
    ),
    # A split loses classes.
    "B27": (
        f"{DATA}::test_no_split_loses_a_class",
        "data/test_portion.py::test_a_val_that_nothing_is_left_for_is_refused",
        "data/test_dataset.py::test_every_folder_that_is_shut_is_named",
    ),
    # Accuracy hides imbalance.
    "B28": (f"{DATA}::test_accuracy_does_not_hide_a_class_never_found",),
    # What is decayed, and is it so?
    "B29": (
        f"{HERE}::test_a_run_says_of_how_many_parameters_each_rate_and_decay_is",
        "training/test_optim.py::test_decay_can_be_given_by_pattern",
    ),
    # Checkpoints stop loading.
    "B34": (
        f"{HERE}::test_what_a_run_keeps_is_tensors_and_json",
        f"{HERE}::test_another_number_of_classes_is_told",
        "studies/test_run.py::test_a_manifest_of_another_kind_is_refused",
    ),
    # The network idles while JPEGs are read.
    "B35": (
        f"{HERE}::test_waiting_for_photos_is_told_with_what_to_do",
        "test_train.py::test_what_a_step_costs_and_does_is_recorded",
        "test_train.py::test_photos_kept_resized_change_nothing",
    ),
}

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.5, length: 2 steps, batch_size: 8,
     weight_decay: 0.01}
"""


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_complaint_is_held():
    assert list(HELD) == [f"B{number}" for number in NUMBERS]


@pytest.mark.parametrize("complaint", HELD)
def test_the_tests_that_hold_it_are_there(complaint: str):
    assert HELD[complaint]
    for place in HELD[complaint]:
        path, name = place.split("::")
        assert name in names_in(path), f"{place} is gone: who holds {complaint} now?"


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, draw_squares, told: Told) -> Run:
    home = tmp_path_factory.mktemp("home")
    recipe = check_text(RECIPE % draw_squares(home / "photos"), Recipe)
    store = FeatureStore(home / "features")
    return train(recipe, home / "run", store=store, reporter=told)


def test_a_run_says_of_how_many_parameters_each_rate_and_decay_is(run: Run, told: Told):
    plan = run.manifest["stages"][0]["plan"]
    counts: Counter[str] = Counter()
    for line in plan:
        count, _, rest = line.strip().partition(" ")
        counts[rest] += int(count.replace(",", ""))
    model = Predictor(run.folder).model
    by_kind = {
        "weights of backbone: lr 0.05, weight decay 0.01": (model.backbone, True),
        "biases and norms of backbone: lr 0.05, weight decay 0": (model.backbone, False),
        "weights of head: lr 0.5, weight decay 0.01": (model.head, True),
        "biases and norms of head: lr 0.5, weight decay 0": (model.head, False),
    }
    assert counts == {
        text: sum(p.numel() for p in part.parameters() if (p.ndim > 1) == decayed)
        for text, (part, decayed) in by_kind.items()
    }
    assert all(f"  {line}" in told.lines for line in plan)


def test_what_a_run_keeps_is_tensors_and_json(run: Run):
    kept = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.*")}
    for name in sorted(path for path in kept if path.endswith(".safetensors")):
        with safe_open(run.folder / name, framework="pt") as file:
            assert set(file.keys())
    assert {CHECKPOINT, BEST, "weights.safetensors"} <= kept
    assert not [name for name in kept if name.endswith((".pkl", ".pt", ".pth", ".ckpt", ".bin"))]
    for path in (path for path in run.folder.rglob("*") if path.is_file()):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays.files)
            continue
        # A pickle of any name begins with its protocol, or is a zip.
        assert path.read_bytes()[:2] not in {b"\x80\x02", b"\x80\x04", b"PK"}


def test_another_number_of_classes_is_told(run: Run, tmp_path: Path):
    for path in run.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["class_names"].append("a fourth")
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    said = r"does not fit the recipe beside it: head\.classifier\.bias, head\.classifier\.weight\."
    with pytest.raises(WeightsError, match=said):
        Predictor(tmp_path)


@pytest.mark.parametrize(
    ("kind", "waited", "said"),
    [
        (PhotoInputs, 4.0, ["  40% of the time the steps waited for photos: "]),
        (PhotoInputs, 2.0, []),
        (FrozenInputs, 9.0, []),  # whose photos were read before
    ],
)
def test_waiting_for_photos_is_told_with_what_to_do(kind: type, waited: float, said: list[str]):
    told = Told()
    spent = Counter({"train/data_seconds": waited, "train/compute_seconds": 10.0 - waited})
    steps = SimpleNamespace(spent=spent, inputs=object.__new__(kind), ledger=told)
    StageSteps._tell_waiting(steps)
    assert [line[: len(start)] for line, start in zip(told.lines, said, strict=True)] == said
    assert all("Store them smaller or on a faster disk" in line for line in told.lines)
