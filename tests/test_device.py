"""Where a model computes. What needs a real GPU is skipped without one; what only needs to know
on which device each tensor is, runs on tensors without numbers (torch's fake ones).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fieldmark import machine
from fieldmark.checked_yaml import check_text
from fieldmark.errors import SettingError
from fieldmark.layers.backbone import frozen_copy, make_backbone
from fieldmark.layers.model import Model, make_head
from fieldmark.layers.pooling import make_pooling
from fieldmark.ledger import Silent
from fieldmark.predict import Predictor, for_head, head_logits
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies.run import Run
from fieldmark.train import settled, train
from fieldmark.training.features import FeatureStore
from fieldmark.training.loss import Loss

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
augment: {mixup: 0.5}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 64}
head: {drop_rate: 0.2}
stages:
  - {name: head, train: head, lr: 1, length: 4 epochs, batch_size: 8}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.02, length: 12 steps, batch_size: 8,
     class_weights: balanced, average: 0.9, clip_norm: 5}
  - {name: again, train: head, lr: 0.1, length: 1 epoch, batch_size: 8}
"""


def small_model() -> Model:
    backbone = make_backbone("test_resnet", weights="none", image_size=32)
    layer = make_pooling("compact_bilinear", backbone.channels, seed=0, sketch_dim=64)
    return Model(backbone, layer, make_head(layer.out_features, 3, drop_rate=0.2))


def moved(module: nn.Module, mode: FakeTensorMode) -> None:
    """Put a module on a GPU that need not be there."""
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    there = mode.from_tensor(tensor.detach()).to("cuda")
                    kind[name] = nn.Parameter(there) if kind is part._parameters else there
        if hasattr(part, "_build_tables"):
            part._build_tables()


def test_no_tensor_of_a_pass_is_left_behind_on_the_processor():
    model, mode = small_model(), FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        moved(model, mode)
        logits = model(torch.empty(4, 3, 32, 32, device="cuda"))
        labels = torch.zeros(4, dtype=torch.long, device="cuda")
        loss = Loss(0.1, torch.ones(3)).total(logits, labels)
        assert (logits.device.type, loss.device.type) == ("cuda", "cuda")
        maps = model.backbone(torch.empty(4, 3, 32, 32, device="cuda"))
        assert maps.device.type == "cuda"
        with torch.no_grad():  # evaluation: maps come to the processor, logits too
            assert head_logits(model, maps.cpu()).device.type == "cpu"
            assert for_head(model, maps.cpu()).device.type == "cuda"


def test_an_unknown_device_is_told():
    with pytest.raises(SettingError, match="`device` must be auto, cpu or cuda, got 'tpu'"):
        machine.device_of("tpu")  # type: ignore[arg-type]


@NO_GPU
def test_without_a_gpu_auto_is_the_processor_and_cuda_is_refused(tmp_path: Path):
    recipe = check_text(RECIPE % tmp_path, Recipe)
    assert settled(recipe).device == "cpu"
    on_gpu = recipe.model_copy(update={"device": "cuda"})
    with pytest.raises(SettingError, match=r"`device: cuda` .*finds none.* Use `device: cpu`"):
        settled(on_gpu)


def test_of_several_processes_each_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch):
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert machine.device_of("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("FIELDMARK_WORKER", "5")  # of a study: more workers than GPUs take turns
    assert machine.device_of("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert machine.device_of("cuda") == torch.device("cuda", 3)
    assert machine.device_of("cpu") == torch.device("cpu")
    assert machine.fast_dtype("auto", "cuda") == torch.float32
    assert torch.backends.cudnn.deterministic


def trained(photos: Path, folder: Path, device: str, **more: object) -> Run:
    recipe = check_text(RECIPE % photos, Recipe, [f"device={device}", "precision=float32"])
    store = FeatureStore(folder.parent / f"features-{folder.name}")
    return train(recipe, folder, store=store, reporter=Silent(), **more)  # type: ignore[arg-type]


@GPU
def test_the_gpu_gives_the_same_bits_twice_and_after_a_break(tmp_path: Path, draw_squares):
    photos = draw_squares(tmp_path / "photos", per_class=17)
    first, second = (trained(photos, tmp_path / name, "cuda") for name in ("one", "two"))

    class Impatient(Silent):
        def progress(self, task: str, done: int, *_: object) -> None:
            if task == "all" and done == 7:
                raise KeyboardInterrupt

    recipe = check_text(RECIPE % photos, Recipe, ["device=cuda", "precision=float32"])
    store = FeatureStore(tmp_path / "features-one")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", store=store, reporter=Impatient(), checkpoint_seconds=0)
    third = resume(tmp_path / "cut", store=store, reporter=Silent())
    weights = [load_file(run.weights_path) for run in (first, second, third)]
    for other in weights[1:]:
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


@GPU
def test_the_gpu_comes_near_what_the_processor_gives(tmp_path: Path, draw_squares):
    photos = draw_squares(tmp_path / "photos", per_class=17)
    runs = {device: trained(photos, tmp_path / device, device) for device in ("cpu", "cuda")}
    losses = [run.series("val/loss")[1] for run in runs.values()]
    np.testing.assert_allclose(*losses, rtol=0.05)
    wanted = [path for path in sorted(photos.rglob("*")) if path.is_file()][:5]
    said = list(Predictor(runs["cuda"].folder).predict(wanted))
    assert [one.path for one in said] == wanted


@GPU
def test_a_frozen_copy_on_the_gpu_sees_what_the_processor_sees():
    backbone = make_backbone("test_resnet", weights="none", image_size=32)
    images = torch.randn(4, 3, 32, 32)
    eyes = frozen_copy(backbone, torch.float32)
    with torch.inference_mode():
        here, there = eyes(images), eyes.to("cuda")(images.to("cuda")).cpu()
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)
