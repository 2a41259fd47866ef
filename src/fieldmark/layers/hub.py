"""Weights from timm's hub: from this machine's cache, else over a network that answers."""

from dataclasses import replace
from threading import Thread
from typing import NamedTuple

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from timm.models import PretrainedCfg
from torch import Tensor

from fieldmark.errors import WeightsError

_DEADLINE_S = 4.0
_FILES = ("model.safetensors", "pytorch_model.bin")
_INSTEAD = (
    "Use `weights: package` (with tf_efficientnet_lite0) or `weights: file:PATH.safetensors`."
)


class HubWeights(NamedTuple):
    """Weights under timm's parameter names, timm's full name of them, and where they were."""

    state: dict[str, Tensor]
    name: str
    origin: str


def from_hub(model_name: str) -> HubWeights:
    """The weights timm's hub has for a model.

    Args:
        model_name: with timm's `.tag`, or without for timm's default weights.

    Raises:
        WeightsError: there are none, or they are not in the cache and no hub is in reach.
    """
    entry = timm.get_pretrained_cfg(model_name)
    if entry is None or not (entry.hf_hub_id or entry.url):
        raise WeightsError(
            f"timm's hub has no weights for {model_name}. Use `weights: file:PATH` or "
            "`weights: none`, or pick one of timm.list_pretrained()."
        )
    name = f"{entry.architecture}.{entry.tag}" if entry.tag else model_name
    cached = _in_cache(entry)
    if cached is not None:
        entry = replace(entry, file=cached, source=None, custom_load=False)
    else:
        _reach(constants.ENDPOINT if entry.hf_hub_id else _url(entry), name)
    try:
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(model_name, pretrained=True, pretrained_cfg=entry)
    except Exception as error:  # a download may fail in any library's own way
        raise WeightsError(
            f"The hub's weights of {name} can't be loaded ({_first_line(error)}). {_INSTEAD}"
        ) from error
    where = "hub, from this machine's cache" if cached else "hub"
    return HubWeights(model.state_dict(), name, f"{where}: {name}")


def _url(entry: PretrainedCfg) -> str:
    return entry.url[0] if isinstance(entry.url, tuple) else entry.url or ""


def _in_cache(entry: PretrainedCfg) -> str | None:
    if not entry.hf_hub_id:
        return None
    files = (entry.hf_hub_filename,) if entry.hf_hub_filename else _FILES
    repository, _, revision = entry.hf_hub_id.partition("@")
    found = (try_to_load_from_cache(repository, f, revision=revision or None) for f in files)
    return next((path for path in found if isinstance(path, str)), None)


def _reach(address: str, name: str) -> None:
    """Give up on a silent network in seconds, where a download would try for minutes.

    In a thread, since looking up a host's name obeys no time limit.
    """
    problems = [f"no answer in {_DEADLINE_S:g} s"]

    def ask() -> None:
        try:
            get_session().head(address, timeout=_DEADLINE_S)
            problems.clear()
        except Exception as error:  # each client library has its own, offline mode another
            problems[0] = _first_line(error)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_DEADLINE_S)
    if problems:
        raise WeightsError(
            f"The weights of {name} are not in this machine's cache and {address} can't be "
            f"reached ({problems[0]}). {_INSTEAD}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
