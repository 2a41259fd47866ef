"""Recipes: what they accept, what they say when they don't, what they hash to."""

from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fieldmark.checked_yaml import check_text
from fieldmark.duration import Duration
from fieldmark.errors import RecipeError
from fieldmark.recipe import Rate, Recipe, load_recipe

SMALLEST = """\
data: {folder: photos}
stages:
  - {name: head, train: head, lr: 1, length: 60 epochs}
"""
TWO_STAGES = (
    SMALLEST
    + """\
  - name: all
    train: {"backbone.*": 0.1, "*": 1}
    lr: 1e-5
    length: 20000 steps
    schedule: {name: multistep, milestones: [50 %, 75 %]}
"""
)


DEFAULT_VALUES = Path(__file__).parent / "recipe_defaults.yaml"


def yaml(content: object) -> str:
    stream = StringIO()
    YAML().dump(content, stream)
    return stream.getvalue()


def read(text: str, *overrides: str) -> Recipe:
    return check_text(text, Recipe, overrides, name="recipe.yaml")


def test_the_smallest_recipe_has_every_default():
    recipe = read(SMALLEST)
    assert recipe.pooling.options() == {"sketch_dim": 8192, "method": "tensor_sketch"}
    assert recipe.stages[0].train == {"head.*": Rate(lr=1), "*": Rate(lr=0)}
    assert recipe.data.val_fraction == 0.2


def test_scientific_notation_is_a_number():
    assert read(TWO_STAGES).stages[1].lr == 1e-5


def test_a_recipe_survives_being_written_and_read():
    recipe = read(TWO_STAGES, "pooling.name=gem", "seed=7")
    assert check_text(recipe.to_yaml(), Recipe) == recipe


def test_the_hash_forgets_names_and_nothing_else():
    recipe = read(TWO_STAGES)
    assert read(TWO_STAGES, "name=other", "about=words").hash() == recipe.hash()
    changes = [
        "seed=1",
        "data.folder=elsewhere",
        "data.image_size=225",
        "data.mirror=true",
        "backbone.level=-2",
        "pooling.sketch_dim=8191",
        "head.drop_rate=0.1",
        "stages.0.lr=1.0001",
        "stages.all.length=19999 steps",
        "stages.all.schedule.gamma=0.2",
        "precision=float32",
        "threads=1",
        "data.resize=keep_aspect",
        "data.box_margin=0.1",
        "augment.crop_area=[0.3, 1]",
        "augment.mixup=0.2",
        "augment.policy=randaugment",
        "stages.0.label_smoothing=0.1",
        "stages.0.class_weights={amber: 2}",
        "stages.0.sampling=balanced",
        'stages.all.train={"*": 1, "backbone.*": 0.1}',
    ]
    hashes = {read(TWO_STAGES, change).hash() for change in changes}
    assert len(hashes | {recipe.hash()}) == len(changes) + 1


def test_what_is_given_as_it_is_by_default_is_no_other_recipe():
    given = ("data.resize=squash", "pooling.sketch_dim=8192", "seed=0")
    assert read(SMALLEST, *given).hash() == read(SMALLEST).hash()


def test_keys_yet_to_come_change_no_hash():
    """Runs and studies that people have would count as not run."""

    class Later(Recipe):
        yet_to_come: str = "off"

    now = read(TWO_STAGES)
    for later, same in (("off", True), ("on", False)):
        other = check_text(TWO_STAGES, Later, [f"yet_to_come={later}"])
        assert (other.hash() == now.hash()) is same


def test_defaults_are_those_that_old_runs_had():
    smallest = read(SMALLEST).model_dump(mode="json", exclude={"name", "about", "expected"})
    smallest["stages"] = smallest["stages"][0]
    assert yaml(smallest) == DEFAULT_VALUES.read_text(), (
        "A key is new: let it by default do what was done without it, and put it into "
        f"{DEFAULT_VALUES.name}. A default has another value: raise `DEFAULTS` in recipe.py too, "
        "for what was run before is no result of the same recipe any more."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.image_sise=3",
            r"command line: `data.image_sise` is no key here. Did you mean `image_size`\?",
        ),
        ("stages.0.lrr=3", r"`stages.0.lrr` is no key here. Did you mean `lr`\?"),
        ("stages.head.lr=0", r"`stages.0.lr` should be greater than 0, got 0"),
        ("stages.0.lr=.nan", r"`stages.0.lr` should be a finite number"),
        ("stages.0.momentum=1", r"`stages.0.momentum` should be less than 1, got 1"),
        (
            "stages.0.length=60",
            r"`stages.0.length`: write it as `500 steps`, `60 epochs` or `75 %`, got 60",
        ),
        ("stages.0.length=0 epochs", r"write it as `500 steps`"),
        ("stages.0.length=5 %", r"given in steps or epochs, got `5 %`"),
        ("stages.0.name=a b", r"use 1 to 60 letters, digits, `-` and `_`, got 'a b'"),
        ("stages.0.schedule=multistep", r"multistep needs `milestones`"),
        ("stages=[]", r"give at least one stage"),
        ("seed=-1", r"`seed` should be greater than or equal to 0, got -1"),
        ("seed=one", r"`seed` should be a valid integer.*got 'one'"),
        ("data.resize_size=100", r"`resize_size` 100 is smaller than `image_size` 224"),
        (
            "data.folder=$NO_SUCH_VARIABLE/x",
            r"NO_SUCH_VARIABLE is not set. Set it, or give data.folder=PATH",
        ),
        (
            "backbone.weights=imagenet",
            r"must be package, hub, none or file:PATH.safetensors, got 'imagenet'",
        ),
        ("pooling.name=avg", r"`pooling.name` should be 'average', 'max'"),
        ("pooling.p=3", r"`p` is no option of compact_bilinear, which takes sketch_dim, method"),
        (
            "pooling={name: average, sketch_dim: 64}",
            r"which takes no options\. .* set all of it: `pooling: \{name: average\}`, or on the "
            r"command line `'pooling=\{name: average\}'`",
        ),
        ("augment.crop_area=[0.9, 0.3]", r"give the least first, as in \[0.3, 0.9\]"),
        ("augment.hue=0.7", r"`augment.hue` should be less than or equal to 0.5, got 0.7"),
        ("augment.policy=autoaugment", r"`augment.policy` should be 'none', 'randaugment' or"),
        ("augment.erasing=1", r"`augment.erasing` is no key here. Did you mean `erase`\?"),
        ("data.box_margin=-1", r"`data.box_margin` should be greater than or equal to 0, got -1"),
        ("stages.0.label_smoothing=1", r"`stages.0.label_smoothing` should be less than 1"),
        ("stages.0.sampling=random", r"`stages.0.sampling` should be 'shuffled' or 'balanced'"),
        ("stages.0.class_weights={amber: 0}", r"class_weights.*greater than 0"),
        ("stages.2.lr=1", r"needs a position \(0\) or a name \(head\), got '2'\.$"),
        ("stages.haed.lr=1", r"or a name \(head\), got 'haed'\. Did you mean head\?"),
        ("seed.deep=1", r"goes into `None`|holds no keys"),
        ("seed", r"An override is written key=value, as in seed=1; got 'seed'"),
        ("data.folder=[", r"The override 'data.folder=\[', line 1 is not valid YAML"),
    ],
)
def test_each_mistake_is_told_with_its_remedy(override: str, message: str):
    with pytest.raises(RecipeError, match=message):
        read("seed: 0\n" + SMALLEST, override)


def test_all_mistakes_come_at_once_with_their_lines():
    text = SMALLEST.replace("folder: photos", "folder: photos, image_size: 3").replace(
        "lr: 1", "lr: -1"
    )
    with pytest.raises(RecipeError) as caught:
        read(text + "sede: 1\n")
    lines = str(caught.value).splitlines()
    assert lines[0] == "recipe.yaml has 3 mistakes:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["line 1", "line 3", "line 4"]


def test_two_stages_of_one_name_are_refused():
    with pytest.raises(RecipeError, match="given twice: head"):
        read(TWO_STAGES, "stages.1.name=head")


def test_broken_yaml_is_one_line():
    with pytest.raises(RecipeError, match=r"recipe.yaml, line 2 is not valid YAML"):
        read("data: {folder: x\nstages: 1")


def test_a_key_given_twice_is_refused():
    with pytest.raises(RecipeError, match=r"line 2 is not valid YAML: found duplicate key"):
        read("seed: 1\nseed: 2\n")


@pytest.mark.parametrize("text", ["", "- 1\n", "words"])
def test_a_file_without_keys_is_refused(text: str):
    with pytest.raises(RecipeError, match="must hold keys and values"):
        read(text)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"There is no file .*none.yaml. `fieldmark recipes`"):
        load_recipe(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"recipe.yaml can't be read"):
        load_recipe(path)


def test_environment_and_home_are_filled_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIRDS", "/data/birds")
    monkeypatch.setenv("HOME", "/home/me")
    assert read(SMALLEST, "data.folder=$BIRDS/a").data.folder == "/data/birds/a"
    assert read(SMALLEST, "data.folder=~/b").data.folder == "/home/me/b"
    weights = read(SMALLEST, "backbone.weights=file:${BIRDS}/w").backbone.weights
    assert weights == "file:/data/birds/w"


@pytest.mark.parametrize(
    ("text", "written", "words"),
    [
        ("1 epoch", "1 epochs", "1 epoch"),
        ("1.0 steps", "1 steps", "1 step"),
        ("1 %", "1 %", "1 %"),
        ("1.5 epochs", "1.5 epochs", "1.5 epochs"),
        ("10 epochs", "10 epochs", "10 epochs"),
    ],
)
def test_one_epoch_is_said_as_people_say_it_and_written_as_ever(
    text: str, written: str, words: str
):
    """What is written is hashed, so it stays."""
    found = Duration.parse(text)
    assert (str(found), found.words) == (written, words)
    assert Duration.parse(found.words) == found


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("2 epochs", 76),
        ("0.5 epochs", 19),
        ("75 %", 750),
        ("0.01%", 1),
    ],
)
def test_durations_are_steps_in_the_end(text: str, steps: int):
    assert Duration.parse(text).steps(steps_per_epoch=38, stage_steps=1000) == steps


def test_per_cent_needs_a_whole():
    with pytest.raises(ValueError, match="can't be given in per cent"):
        Duration.parse("5 %").steps(steps_per_epoch=38)


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "name=other", "pooling.name=gem", "pooling.sketch_dim=100", "threads=null"),
        *("head.drop_rate=0.1", "stages.0.lr=2", "stages.0.length=5 epochs"),
        *("stages.0.weight_decay=1", 'stages.0.train={"head.*": 1, "backbone*": 0}'),
        'stages.0.train={"head.classifier.*": 1, "*": 0}',
    ],
)
def test_recipes_on_the_same_frozen_features_share_a_group(change: str):
    changed = read(SMALLEST, change)
    assert not changed.trains_backbone
    assert changed.group_key() == read(SMALLEST).group_key()


@pytest.mark.parametrize(
    "change",
    [
        *("data.folder=elsewhere", "data.image_size=256", "data.resize_size=512"),
        *("data.mirror=true", "data.split_seed=1", "augment.hue=0.1", "backbone.level=-2"),
        *("precision=float32", "threads=1", "backbone.weights=none", "stages.0.train=all"),
    ],
)
def test_other_features_make_another_group(change: str):
    assert read(SMALLEST, change).group_key() != read(SMALLEST).group_key()


def test_features_from_scratch_depend_on_the_seed():
    first, second = (
        read(SMALLEST, "backbone.weights=none", f"seed={seed}").group_key() for seed in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    "train",
    [
        '{"*": 1}',
        '{"backbone.conv1.*": 1, "backbone.*": 0, "*": 1}',
        '{"*.bias": 1, "backbone.*": 0, "*": 1}',
        '{"backbone.b?.*": 0, "*": 1}',
    ],
)
def test_who_trains_the_backbone_shares_nothing(train: str):
    recipe = read(SMALLEST, f"stages.0.train={train}")
    assert recipe.trains_backbone
    assert recipe.group_key() == recipe.hash()
    assert read(TWO_STAGES).trains_backbone


@pytest.mark.parametrize(
    "override",
    [
        "data.lists=%s",
        "data.corrections=%s",
        "data={folder: photos, split: files, split_files: {val: %s}}",
    ],
    ids=["lists", "corrections", "split files"],
)
def test_what_a_named_file_says_is_part_of_the_hash(override: str, tmp_path: Path):
    path = tmp_path / "named"
    one = read(SMALLEST, override % path)
    hashes = {one.hash()}
    for content in ("first", "second"):
        path.write_text(content)
        assert one.hash() == one.hash()
        hashes.add(one.hash())
        assert list(one.file_hashes()) == [str(path)]
    weights = read(SMALLEST, f"backbone.weights=file:{path}")
    assert weights.file_hashes() == one.file_hashes()
    assert len(hashes) == 3
    path.write_text("first")
    assert one.hash() in hashes
    groups = {one.group_key()}
    path.write_text("other")
    assert len(groups | {one.group_key()}) == 2


def test_a_recipe_is_cut_after_a_stage_it_has():
    recipe = read(TWO_STAGES)
    assert [stage.name for stage in recipe.until("head").stages] == ["head"]
    with pytest.raises(RecipeError, match=r"no stage 'tail' here; stages: head, all\."):
        recipe.until("tail")


def test_a_stage_may_be_left_out():
    one = read(TWO_STAGES, "stages.head=null")
    assert [stage.name for stage in one.stages] == ["all"]
    assert check_text(one.to_yaml(), Recipe) == one
    with pytest.raises(RecipeError, match=r"`stages`: give at least one stage"):
        read(SMALLEST, "stages.head=null")
    with pytest.raises(RecipeError, match=r"stages\.1\.lr` should be greater than 0, got -1"):
        read(TWO_STAGES, "stages.all.lr=-1", "stages.head=null")


def test_fractions_of_train_share_a_group_and_are_other_trainings():
    whole, half = read(SMALLEST), read(SMALLEST, "data.train_fraction=0.5")
    assert whole.group_key() == half.group_key()
    assert whole.hash() != half.hash()
