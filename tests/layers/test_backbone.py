import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from fieldmark.checked_yaml import check_text
from fieldmark.errors import SettingError, WeightsError
from fieldmark.layers.backbone import frozen_copy, make_backbone
from fieldmark.layers.weights import Preprocess, weights_hash
from fieldmark.recipe import Recipe

SHARED = Path(os.environ.get("FIELDMARK_SHARED", Path(__file__).parents[3] / "shared"))
VGG_FILE = SHARED / "weights" / "vgg16_features_fp16.safetensors"


def noise(size, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def timm_model(name, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, **options).eval()
        for module in model.modules():  # what a batch norm has after training
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
        return model


@pytest.fixture
def saved(tmp_path):
    """A timm model with known weights, and the `weights` setting that loads them."""

    def save(name, **options):
        model = timm_model(name, **options)
        path = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        return model, f"file:{path}"

    return save


@pytest.mark.parametrize(
    ("name", "size", "channels", "reduction", "level_name"),
    [
        ("tf_efficientnet_lite0", 64, 320, 32, "blocks.6"),
        ("mobilenetv3_small_050", 64, 288, 32, "blocks.5"),
        ("resnet18", 64, 512, 32, "layer4"),
        ("resnet18", 70, 512, 32, "layer4"),
        ("test_convnext", 96, 64, 32, "stages.3"),
        ("test_vit", 160, 64, 16, "blocks.5"),
        ("test_vit", 96, 64, 16, "blocks.5"),
        ("hiera_tiny_224", 224, 768, 32, "blocks.11"),
    ],
)
def test_last_level_of_each_family(name, size, channels, reduction, level_name):
    backbone = make_backbone(name, weights="none", image_size=size).eval()
    assert backbone.channels == channels
    assert backbone.reduction == reduction
    assert backbone.level_name == level_name
    cells = -(-size // reduction)
    assert backbone(noise(size)).shape == (2, channels, cells, cells)


@pytest.mark.parametrize(
    ("name", "to_map"),
    [
        ("test_resnet", lambda x: x),
        ("test_convnext", lambda x: x),
        ("test_vit", lambda x: x[:, 1:].transpose(1, 2).reshape(2, -1, 10, 10)),
        ("swin_tiny_patch4_window7_224", lambda x: x.permute(0, 3, 1, 2)),
    ],
)
def test_last_level_is_what_timm_pools(saved, name, to_map):
    size, options = (64, {"img_size": 64}) if "swin" in name else (160, {})
    model, weights = saved(name, **options)
    backbone = make_backbone(name, weights=weights, image_size=size).eval()
    with torch.inference_mode():
        expected = to_map(model.forward_features(noise(size)))
        torch.testing.assert_close(backbone(noise(size)), expected)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_levels_are_those_of_timm(saved, name):
    model, weights = saved(name)
    levels = range(len(model.feature_info))
    source = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": model.state_dict()}}
    features = timm.create_model(name, features_only=True, out_indices=list(levels), **source)
    with torch.inference_mode():
        maps = features.eval()(noise(160))
        for level in levels[:-1:2]:  # timm leaves the final norm out of the last
            by_number = make_backbone(name, weights=weights, level=level, image_size=160).eval()
            torch.testing.assert_close(by_number(noise(160)), maps[level])
            path = model.feature_info[level]["module"]
            by_path = make_backbone(name, weights=weights, level=path, image_size=160)
            assert by_path.level_name == by_number.level_name == path
            assert weights_hash(by_path) == weights_hash(by_number)


@pytest.mark.parametrize(
    ("name", "level", "reduction"),
    [
        ("test_efficientnet", "bn2", 32),
        ("test_efficientnet", "blocks.1", 4),
        ("test_efficientnet", "conv_stem", 2),
        ("test_resnet", "layer3.0.conv2", 16),
        ("test_convnext", "stages.2.blocks.0", 16),
    ],
)
def test_a_modules_path_gives_that_modules_output(saved, name, level, reduction):
    model, weights = saved(name)
    seen = []
    model.get_submodule(level).register_forward_hook(
        lambda _module, _images, output: seen.append(output.clone())
    )
    backbone = make_backbone(name, weights=weights, level=level, image_size=160).eval()
    with torch.inference_mode():
        model(noise(160))
        torch.testing.assert_close(backbone(noise(160)), seen[0])
    assert backbone.channels == seen[0].shape[1]
    assert backbone.reduction == reduction == 160 // seen[0].shape[2]
    assert backbone.level_name == level
    assert backbone.body.state_dict().keys() <= model.state_dict().keys()


def test_lite0_ends_before_or_after_the_head_convolution():
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    head = sum(p.numel() for part in (whole.conv_head, whole.bn2) for p in part.parameters())
    total = sum(p.numel() for p in whole.parameters())
    for level, channels, count in ((-1, 320, total - head), ("bn2", 1280, total)):
        backbone = make_backbone("tf_efficientnet_lite0", level=level, image_size=64)
        assert backbone.channels == channels
        assert sum(p.numel() for p in backbone.parameters()) == count


@pytest.mark.parametrize("level", [1, -1, "blocks.1"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_every_parameter_left_takes_part(name, level):
    backbone = make_backbone(name, weights="none", level=level, image_size=160)
    assert backbone.training
    backbone(noise(160)).square().sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


def test_preprocessing_and_origin_travel_along(tmp_path):
    backbone = make_backbone("tf_efficientnet_lite0", image_size=96)
    assert backbone.preprocess == Preprocess((0.5,) * 3, (0.5,) * 3, "bicubic", 224, 0.875)
    assert backbone.image_size == 96
    assert backbone.origin.startswith("package efficientnet-lite0")
    given = make_backbone("test_resnet", weights="none", image_size=96, mean=(0.1, 0.2, 0.3))
    assert given.preprocess.mean == (0.1, 0.2, 0.3)
    assert given.origin == "none; mean as given"


def test_initial_weights_come_from_the_seed_alone():
    before = torch.random.get_rng_state()
    hashes = [
        weights_hash(make_backbone("test_resnet", weights="none", image_size=96, seed=seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hashes[0] == hashes[1] != hashes[2]
    torch.rand(5)
    again = make_backbone("test_resnet", weights="none", image_size=96, seed=3)
    assert weights_hash(again) == hashes[0]


def test_weights_of_another_size_pass_through_timms_filter(saved):
    model, weights = saved("test_vit")
    source = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": model.state_dict()}}
    resized = timm.create_model("test_vit", img_size=96, **source).eval()
    backbone = make_backbone("test_vit", weights=weights, image_size=96)
    torch.testing.assert_close(backbone.body.pos_embed, resized.pos_embed)
    assert backbone.body.pos_embed.shape != model.pos_embed.shape


def test_half_precision_files_are_computed_in_float32(tmp_path):
    model = timm_model("test_resnet").half()
    save_file(model.state_dict(), tmp_path / "half.safetensors")
    source = f"file:{tmp_path}/half.safetensors"
    backbone = make_backbone("test_resnet", weights=source, image_size=96)
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert torch.equal(backbone.body.conv1[0].weight, model.conv1[0].weight.float())


def test_files_that_do_not_fit_are_refused(tmp_path):
    state = timm_model("test_resnet").state_dict()
    path = tmp_path / "w.safetensors"

    def load(state):
        save_file(state, path)
        make_backbone("test_resnet", weights=f"file:{path}", image_size=96)

    trunk = {key: value for key, value in state.items() if not key.startswith("fc.")}
    load(trunk)
    other_classes = trunk | {"fc.weight": torch.zeros(50, 96), "fc.bias": torch.zeros(50)}
    load(other_classes)
    first = "conv1.0.weight"
    with pytest.raises(WeightsError, match=r"do not fit test_resnet: 1 missing \(conv1\.0\.w"):
        load({key: value for key, value in trunk.items() if key != first})
    with pytest.raises(WeightsError, match=r"2 unknown \(a, b\)\. Check that `name`"):
        load(trunk | {"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"1 of another shape \(conv1\.0\.weight\)"):
        load(trunk | {first: torch.ones(1)})


@pytest.mark.parametrize("given", ["?", "", "1.5", "true", "[1, 2]", "{a: 1}", "layer9", "'2'"])
def test_whatever_is_no_level_lists_the_levels_there_are(given):
    """The file can't know them, so it lets all pass that is written where a level belongs."""
    text = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 1 epoch}]\n"
    level = check_text(text, Recipe, [f"backbone.level={given}"]).backbone.level
    with pytest.raises(
        SettingError, match=r"^test_resnet has no level ['\"].+['\"]; its levels are 0 = "
    ):
        make_backbone("test_resnet", weights="none", level=level, image_size=160)


@pytest.mark.parametrize(("given", "level"), [("-1", -1), ("2.0", 2), ("layer3", "layer3")])
def test_a_level_is_read_as_written(given, level):
    text = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 1 epoch}]\n"
    assert check_text(text, Recipe, [f"backbone.level={given}"]).backbone.level == level


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "resnet19"},
            r"`name` must be one of timm's models, got 'resnet19'. Nearest: resn",
        ),
        ({"name": "§"}, r"timm\.list_models\(\) lists all"),
        ({"name": "resnet18.mine"}, r"no weights tagged 'mine'\. Use .*a1_in1k"),
        (
            {"level": 5},
            r"must be -5 to 4 or a module's path .*got 5; .* 3 = layer3 \(192 channels, stride",
        ),
        ({"level": "layer9"}, r"no level 'layer9'; its levels are 0 = .*Nearest modules: layer"),
        ({"level": "layer2.0.conv2.0.x"}, r"no level 'layer2\.0\.conv2\.0\.x'"),
        ({"level": ""}, r"no level ''"),
        ({"level": "layer4.0.act2"}, r"lies inside a block or beside the main line"),
        ({"level": "fc"}, r"'fc' of test_resnet gives 2 dimensions, not a feature map"),
        ({"image_size": 0}, r"`image_size` 0 does not fit test_resnet .*Use"),
        (
            {"name": "test_vit", "image_size": 100},
            r"divisible by the patch size 16\)\. Use 96 or 112",
        ),
        ({"name": "test_vit", "level": "blocks.1.attn"}, r"lies inside a block"),
        ({"name": "vgg16", "image_size": 8}, r"`image_size` 8 does not fit vgg16 .*Use 32 or 224"),
    ],
)
def test_what_cannot_work_is_refused_when_built(settings, message):
    arguments = {"name": "test_resnet", "weights": "none", "image_size": 160} | settings
    with pytest.raises(SettingError, match=message):
        make_backbone(**arguments)


def test_a_patch_model_takes_the_size_it_was_trained_at(monkeypatch):
    name = "vit_tiny_patch16_224"
    entry = timm.get_pretrained_cfg(name)
    odd = replace(entry, input_size=(3, 166, 166))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _name: odd)
    assert make_backbone(name, weights="none", image_size=166).reduction == 16
    with pytest.raises(SettingError, match=r"divisible by the patch size 16\)\. Use 166 or 160"):
        make_backbone(name, weights="none", image_size=164)


def test_a_model_without_feature_maps_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda _name, **_options: nn.Linear(2, 2))
    with pytest.raises(SettingError, match=r"test_resnet gives no feature maps\. Use another"):
        make_backbone("test_resnet", weights="none", image_size=160)


def test_models_that_look_at_numbers_are_tried_for_real(monkeypatch):
    create = timm.create_model

    def looking(name, **options):
        model = create(name, **options)
        model.conv1.register_forward_pre_hook(
            lambda _module, images: float(images[0].sum()) > 1e9 or None
        )
        return model

    monkeypatch.setattr(timm, "create_model", looking)
    backbone = make_backbone("test_resnet", weights="none", image_size=64)
    assert backbone.channels == 96


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "resnet18", "test_convnext"])
def test_frozen_copy_folds_norms_and_changes_nothing(saved, name):
    _, weights = saved(name)
    backbone = make_backbone(name, weights=weights, image_size=96)
    before = weights_hash(backbone)
    frozen = frozen_copy(backbone, torch.float32)
    assert not frozen.training
    assert backbone.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert weights_hash(backbone) == before
    assert (frozen.channels, frozen.preprocess) == (backbone.channels, backbone.preprocess)
    with torch.inference_mode():
        expected = backbone.eval()(noise(96))
        scale = expected.abs().max().item()
        torch.testing.assert_close(frozen(noise(96)), expected, rtol=0, atol=1e-5 * scale)


def test_frozen_copy_in_bfloat16_stays_close():
    backbone = make_backbone("tf_efficientnet_lite0", image_size=64).eval()
    frozen = frozen_copy(backbone, torch.bfloat16)
    assert {p.dtype for p in frozen.parameters()} == {torch.bfloat16}
    kernels = [p for p in frozen.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    with torch.inference_mode():
        exact, rounded = backbone(noise(64)), frozen(noise(64).bfloat16()).float()
    assert functional.cosine_similarity(exact.flatten(1), rounded.flatten(1)).min() > 0.99


def test_norms_that_share_their_convolution_are_left_alone():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, images):
            x = self.conv(images)
            return self.one(x) + self.two(x)

    backbone = make_backbone("test_resnet", weights="none", level=0, image_size=32)
    backbone.body, backbone._cut = nn.ModuleDict({"fork": Fork()}), replace_line(backbone, "fork")
    frozen = frozen_copy(backbone, torch.float32)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in frozen.modules()) == 2


def replace_line(backbone, *line):
    return type(backbone._cut)("test", line=line)


@pytest.mark.skipif(not VGG_FILE.is_file(), reason="needs VGG16's trunk in ../shared/weights")
def test_vgg16_from_a_file_is_the_original_network():
    mean, std = tuple(v / 255 for v in (123.68, 116.779, 103.939)), (1 / 255,) * 3
    backbone = make_backbone(
        "vgg16",
        weights=f"file:{VGG_FILE}",
        level="features.29",
        image_size=64,
        mean=mean,
        std=std,
    ).eval()
    assert (backbone.channels, backbone.reduction) == (512, 16)
    assert backbone.preprocess.std == std
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688
    state = load_file(VGG_FILE)
    x = images = noise(64) * 60
    for number in range(29):  # the thirteenth ReLU is relu5_3
        if number in (4, 9, 16, 23):
            x = functional.max_pool2d(x, 2)
        elif f"features.{number}.weight" in state:
            weight, bias = (
                state[f"features.{number}.{part}"].float() for part in ("weight", "bias")
            )
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), x, rtol=1e-4, atol=1e-3)
