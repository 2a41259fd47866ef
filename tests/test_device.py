"""Where a model computes. What needs a real GPU is skipped without one; what only needs to know
on which device each tensor is, runs on tensors without numbers (torch's fake ones).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from fieldmark import machine
from fieldmark.build import build
from fieldmark.checked_yaml import check_text
from fieldmark.errors import SettingError
from fieldmark.inputs import PhotoInputs
from fieldmark.layers import bilinear, maclaurin, positions
from fieldmark.layers.backbone import frozen_copy, make_backbone
from fieldmark.layers.hashing import CountSketch
from fieldmark.layers.model import Model, make_head
from fieldmark.layers.pooling import make_pooling
from fieldmark.layers.sketch import Route, TensorSketch
from fieldmark.ledger import Silent
from fieldmark.predict import Predictor, for_head, head_logits
from fieldmark.probe import time_networks
from fieldmark.recipe import Recipe
from fieldmark.rehearse import learn_by_heart
from fieldmark.resume import _changes, resume
from fieldmark.studies.run import Run
from fieldmark.throwaway import Throwaway
from fieldmark.train import prepare, settled, train
from fieldmark.training.features import FeatureStore
from fieldmark.training.loss import Loss
from fieldmark.training.stage import seeded
from fieldmark.training.world import _state

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


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine said to have four old GPUs, whose settings are undone after."""
    for module, name in (
        *((torch.backends.cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")),
        (torch.utils.deterministic, "fill_uninitialized_memory"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    torch.set_float32_matmul_precision("high")  # as a container may have it
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("four_gpus")
def test_of_several_processes_each_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch):
    assert machine.device_of("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("FIELDMARK_WORKER", "5")  # of a study: more workers than GPUs take turns
    assert machine.device_of("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert machine.device_of("cuda") == torch.device("cuda", 3)
    assert machine.device_of("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("four_gpus")
def test_gpus_repeat_themselves_and_keep_float32_whole():
    machine.device_of("cuda")
    cudnn = torch.backends.cudnn
    assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert machine.fast_dtype("auto", "cuda") == torch.float32  # an emulated bfloat16 is slower


@pytest.mark.parametrize(("processes", "by_processor"), [(4, False), (5, True)])
@pytest.mark.usefixtures("four_gpus")
def test_processes_that_share_a_gpu_talk_through_the_processor(
    processes: int, by_processor: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr("accelerate.PartialState", lambda cpu: cpu)
    assert _state.__wrapped__() is by_processor


def test_a_step_draws_on_a_gpu_what_its_seed_says(monkeypatch: pytest.MonkeyPatch):
    of_gpus = [torch.Generator().manual_seed(number) for number in range(2)]
    monkeypatch.setattr(torch.cuda, "default_generators", of_gpus)
    states = [generator.get_state() for generator in (torch.default_generator, *of_gpus)]

    def drawn(seed: int) -> list[float]:
        with seeded(seed, torch.device("cuda", 1)):
            return [torch.rand(()).item(), torch.rand((), generator=of_gpus[1]).item()]

    first = drawn(3)
    assert first == drawn(3)
    assert first != drawn(4)
    after = [generator.get_state() for generator in (torch.default_generator, *of_gpus)]
    assert all(map(torch.equal, states, after))


def test_whoever_feeds_a_stage_photos_brings_its_model_along(tmp_path: Path, draw_squares):
    photos = draw_squares(tmp_path / "photos", per_class=17)
    elsewhere = torch.device("meta")  # tensors there have no numbers, but a place
    task = replace(build(check_text(RECIPE % photos, Recipe)), device=elsewhere)
    inputs = PhotoInputs(task)
    (batch,) = inputs.epoch([[0, 1]], seed=0, epoch=0, first=0)
    parts = (*task.model.parameters(), *task.model.buffers(), batch.inputs, batch.labels)
    assert {tensor.device for tensor in parts} == {elsewhere}


def test_a_network_is_timed_where_it_is():
    model, mode = small_model(), FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        moved(model, mode)
        after = nn.Sequential(*model.chain()[1:])
        assert time_networks([after], torch.empty(2, model.backbone.channels, 3, 3)).seconds > 0


@pytest.mark.parametrize("route", ["gram", "spectrum"])
def test_no_sketch_scatters_on_a_gpu(route: Route, monkeypatch: pytest.MonkeyPatch):
    def races(*_: object) -> None:
        raise AssertionError

    for name in ("gram_sketch", "spectral_sketch"):
        monkeypatch.setattr(f"fieldmark.layers.sketch.{name}", races)
    sketch, mode = TensorSketch(8, 16, route=route), FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        moved(sketch, mode)
        assert sketch(torch.empty(2, 8, 9, device="cuda")).device.type == "cuda"


def test_no_operator_of_a_gpu_leaves_a_tensor_behind():
    B, C, P, D = 2, 8, 6, 16
    with FakeTensorMode():
        with torch.device("cuda"):
            x, y, grad = torch.empty(B, C, P), torch.empty(B, C, P), torch.empty(B, D)
            G, of_each = torch.empty(B, C, C), torch.empty(B, D, P)
            signs = torch.empty(D, C, dtype=torch.int8)
            tables = [
                (torch.empty(n, dtype=torch.long), torch.empty(n, dtype=torch.int8))
                for n in (C, C**2)
            ]
        of_channels, of_pairs = (CountSketch.build(*table, D) for table in tables)
        twice = [*of_channels, *of_channels]
        for operator, *given in (  # as they run, not as they tell the compiler of their shapes
            (bilinear._gram, x),
            (bilinear._gram_backward, G, x),
            (bilinear._product, x, y.mT),
            (bilinear._sum_into_bins, G.flatten(1), list(of_pairs)),
            (bilinear._sum_into_bins_backward, grad, list(of_pairs)),
            (maclaurin._maclaurin_sketch, x, y, signs, signs),
            (maclaurin._maclaurin_sketch_backward, grad, x, y, signs, signs),
            (positions._sketch_positions, x, y, twice),
            (positions._sketch_positions_backward, of_each, x, y, twice),
        ):
            found = operator._init_fn(*given)
            told = operator(*given)
            for one, other in zip(*map(tree_leaves, (found, told)), strict=True):
                assert one.device.type == other.device.type == "cuda"
                assert one.shape == other.shape


def test_another_gpu_is_told_when_a_run_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "New GPU")
    manifest = {"processes": 1, "device": "Old GPU", "machine": machine.describe()}
    run, task = SimpleNamespace(manifest=manifest), SimpleNamespace(device=torch.device("cuda", 0))
    assert _changes(run, task) == ["  device was Old GPU, is now New GPU: numbers may differ"]


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
def test_a_rehearsal_on_the_gpu_learns_a_batch_by_heart(tmp_path: Path, draw_squares):
    photos, store = draw_squares(tmp_path / "photos", per_class=17), FeatureStore(tmp_path / "f")
    recipe = settled(check_text(RECIPE % photos, Recipe, ["device=cuda"]))
    copy = Throwaway(prepare(recipe, store, Silent()), store, 0, Silent())
    for stage in (0, 1):  # on features, and on photos
        assert learn_by_heart(copy, stage)["steps"] > 0


@GPU
def test_a_frozen_copy_on_the_gpu_sees_what_the_processor_sees():
    backbone = make_backbone("test_resnet", weights="none", image_size=32)
    images = torch.randn(4, 3, 32, 32)
    eyes = frozen_copy(backbone, torch.float32)
    with torch.inference_mode():
        here, there = eyes(images), eyes.to("cuda")(images.to("cuda")).cpu()
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)
