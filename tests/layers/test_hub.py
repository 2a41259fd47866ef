import os
import socket
import subprocess
import sys
import threading

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fieldmark.errors import WeightsError
from fieldmark.layers import hub
from fieldmark.layers.backbone import make_backbone
from fieldmark.layers.weights import load_weights, timm_preprocess

COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def one_line(caught):
    return "\n" not in str(caught.value)


def test_no_hub_in_reach_is_said_in_one_line(monkeypatch, closed_port):
    monkeypatch.setattr(constants, "ENDPOINT", closed_port)
    with pytest.raises(
        WeightsError, match=rf"resnet18\.a1_in1k .*{closed_port}.*package.*file"
    ) as e:
        load_weights("resnet18", "hub")
    assert one_line(e)


def test_a_silent_hub_is_given_up_within_five_seconds(monkeypatch):
    assert hub._DEADLINE_S < 5
    monkeypatch.setattr(hub, "_DEADLINE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        with pytest.raises(
            WeightsError, match=r"can't be reached \(.+\)\. Use `weights: pack"
        ) as e:
            load_weights("test_resnet", "hub")
    assert one_line(e)


def test_a_name_server_that_hangs_is_given_up_too(monkeypatch):
    class Session:
        def head(self, _address, *, timeout):
            hanging.wait(20)
            answered.set()

    hanging, answered = threading.Event(), threading.Event()
    monkeypatch.setattr(hub, "_DEADLINE_S", 0.05)
    monkeypatch.setattr(hub, "get_session", Session)
    with pytest.raises(WeightsError, match=r"reached \(no answer in 0\.05 s\)"):
        load_weights("test_resnet", "hub")
    assert not answered.is_set()  # given up while the name server was still silent
    hanging.set()


@pytest.mark.slow  # two processes that import torch
def test_the_environments_endpoint_and_offline_mode_are_heeded(closed_port, tmp_path):
    script = (
        "from fieldmark.errors import WeightsError\n"
        "from fieldmark.layers.hub import from_hub\n"
        "try: from_hub('test_resnet')\n"
        "except WeightsError as error: print(error)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": closed_port, "HF_HOME": str(tmp_path)}
    for more, words in ({}, closed_port), ({"HF_HUB_OFFLINE": "1"}, "offline mode"):
        ran = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | more,
            capture_output=True,
            text=True,
            check=True,
        )
        assert words in ran.stdout
        assert ran.stdout.count("\n") == 1


def fill_cache(cache, state):
    repository = cache / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(state, snapshot / "model.safetensors")


def test_cached_weights_need_no_network(empty_cache, monkeypatch, closed_port):
    monkeypatch.setattr(constants, "ENDPOINT", closed_port)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = timm.create_model("test_resnet").state_dict()
    fill_cache(empty_cache, state)
    before = torch.random.get_rng_state()
    found = load_weights("test_resnet", "hub")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], state[key]) for key in state)
    assert found.origin == "hub, from this machine's cache: test_resnet.r160_in1k"
    assert found.preprocess == timm_preprocess("test_resnet.r160_in1k")
    backbone = make_backbone("test_resnet.r160_in1k", weights="hub", image_size=96)
    assert torch.equal(backbone.body.bn1.weight, state["bn1.weight"])


def test_damaged_cache_is_said_in_one_line(empty_cache):
    fill_cache(empty_cache, {"conv1.weight": torch.ones(1)})
    with pytest.raises(
        WeightsError, match=r"hub's weights of test_resnet\.r160_in1k can't be"
    ) as e:
        load_weights("test_resnet", "hub")
    assert one_line(e)


def test_a_model_the_hub_has_nothing_for():
    with pytest.raises(WeightsError, match=r"timm's hub has no weights for botnet50ts_256\. Use"):
        load_weights("botnet50ts_256", "hub")
