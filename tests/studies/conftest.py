"""A Ray cluster of two nodes."""

import os
import sys
from collections.abc import Callable

import pytest

from fieldmark.studies.ray_executor import RayExecutor


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of one core each, which this machine stands for."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    found = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture
def on_two_nodes(cluster) -> Callable[..., RayExecutor]:
    """An executor of an import path, whose workers see what this process sees now."""

    def make(path: str, lapse: float = 2) -> RayExecutor:
        seen = {name: os.environ[name] for name in ("TRACE", "PAUSE") if name in os.environ}
        seen["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        return RayExecutor(path, cluster.address, lapse, {"env_vars": seen})

    return make
