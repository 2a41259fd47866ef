"""What only a cluster can suffer, and what is said where there is none."""

import importlib.util
from types import SimpleNamespace

import pytest

from fieldmark.errors import SettingError, TrainingError
from fieldmark.questions import executor_of
from fieldmark.studies import control
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.ray_executor import RayExecutor, _cores_of_a_node
from fieldmark.studies.study import Study


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(SettingError, match=r"needs Ray.*pip install 'fieldmark\[ray\]'"):
        RayExecutor("fieldmark.trials:run_trials")


def test_a_path_to_no_function_is_refused(fake):
    with pytest.raises(SettingError, match=r"`run_trials` is an import path.*got 'nothing:f'"):
        RayExecutor("nothing:f")


def test_the_command_line_names_an_executor():
    assert executor_of("local", 3, None) == LocalExecutor("fieldmark.trials:run_trials", workers=3)
    assert executor_of("ray", 1, "host:6379").address == "host:6379"
    with pytest.raises(SettingError, match="--address names a Ray cluster"):
        executor_of("local", 1, "host:6379")
    with pytest.raises(SettingError, match="--workers is for the local executor"):
        executor_of("ray", 2, None)


def test_a_task_takes_the_smallest_node_that_computes_and_a_cluster_without_one_is_told():
    def cluster(*cores):
        nodes = [{"Alive": True, "Resources": {"CPU": each} if each else {}} for each in cores]
        nodes.append({"Alive": False, "Resources": {"CPU": 1.0}})
        return SimpleNamespace(nodes=lambda: nodes)

    assert _cores_of_a_node(cluster(None, 16.0, 4.0)) == 4
    with pytest.raises(SettingError, match="No node of this Ray cluster has a CPU"):
        _cores_of_a_node(cluster(None))  # its head alone: the others are yet to come


ONE_GROUP = """\
name: sizes
question: Which sketch?
base: base
axes:
  - {key: pooling.sketch_dim, values: [1024, 2048]}
"""


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing(fake, design, tmp_path, monkeypatch, on_two_nodes):
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    study = Study.create(tmp_path / "study", design())
    told = list(on_two_nodes(f"{fake}:kills_itself_once", lapse=1).run(study))
    assert (tmp_path / "trace.killed").exists()
    assert len(told) == len({(r.cell, r.seed) for r in told}) == 12
    assert {r.status for r in told} == {"finished"}
    lines = (tmp_path / "trace").read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) >= 12
    assert len(lines) <= 12 + 4  # what the dead one had recorded was not made again


@pytest.mark.slow
def test_a_group_that_kills_its_workers_is_given_up(fake, design, tmp_path, on_two_nodes):
    study = Study.create(tmp_path / "study", design(ONE_GROUP))
    told = list(on_two_nodes(f"{fake}:kills_itself", lapse=0.3).run(study))
    assert {r.status for r in told} == {"failed"}
    assert "5 workers in a row were lost at these trials" in told[0].reason


@pytest.mark.slow
def test_workers_that_can_not_begin_end_the_study(fake, design, tmp_path, on_two_nodes):
    study = Study.create(tmp_path / "study", design())
    with pytest.raises(TrainingError, match=r"A task of .* ended badly: .*no_such_function"):
        list(on_two_nodes(f"{fake}:no_such_function").run(study))


def test_a_cluster_that_is_not_there_is_told(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design())
    with pytest.raises(SettingError, match=r"There is no Ray cluster at 127\.0\.0\.1:1: .*refused"):
        list(RayExecutor(f"{fake}:run_trials", "127.0.0.1:1").run(study))


@pytest.mark.slow
def test_a_node_that_dies_loses_nothing(fake, design, tmp_path, monkeypatch, cluster, on_two_nodes):
    monkeypatch.setenv("PAUSE", "0.5")
    study = Study.create(tmp_path / "study", design())
    doomed = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    told = []
    for result in on_two_nodes(f"{fake}:run_trials", lapse=1).run(study):
        if not told:
            cluster.remove_node(doomed, allow_graceful=False)
        told.append(result)
    cluster.add_node(num_cpus=1)
    assert len(told) == len({(r.cell, r.seed) for r in told}) == 12
    assert {r.status for r in told} == {"finished"}


@pytest.mark.slow
def test_a_study_that_is_stopped_begins_nothing_more(
    on_two_nodes, fake, design, tmp_path, monkeypatch
):
    monkeypatch.setenv("PAUSE", "0.5")
    study = Study.create(tmp_path / "study", design())
    executor = on_two_nodes(f"{fake}:run_trials")
    control.ask(study.folder, "pause", "ada")  # by starting it again, somebody wishes it to go on
    for _ in executor.run(study):
        control.ask(study.folder, "stop", "ada")
    states = list(Study.open(study.folder).states().values())
    assert "running" not in states
    assert 1 <= states.count("finished") < 12
    order = control.newest(study.folder)
    assert (order.wish, order.heeded) == ("stop", True)
    assert len(list(executor.run(Study.open(study.folder)))) == states.count("waiting")
