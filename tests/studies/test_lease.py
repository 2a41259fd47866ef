"""Leases: one holder at a time, taken over by the observer's clock alone."""

import signal
import sys
import threading
import time

import pytest

from fieldmark.studies import lease as lease_module
from fieldmark.studies.lease import Leases, holder_of, tokens_of


@pytest.fixture
def clock(monkeypatch):
    """The observers' clock, at will; heartbeats go by another."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(lease_module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_of_many_that_try_one_gets_it(tmp_path):
    taken = []

    def take(number):
        lease = Leases(tmp_path, f"worker {number}").take("group")
        if lease:
            taken.append(lease)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(lease.token, lease.lost) for lease in taken] == [(1, ())]
    assert holder_of(tmp_path, "group") == taken[0].owner


def test_a_lease_let_go_of_is_free_at_once(tmp_path, clock):
    with Leases(tmp_path, "a").take("group") as first:
        assert Leases(tmp_path, "b").take("group") is None
        assert Leases(tmp_path, "b").take("another") is not None
    assert holder_of(tmp_path, "group") is None
    second = Leases(tmp_path, "b").take("group")
    assert (second.token, second.lost) == (2, ())
    assert not first.is_held
    assert second.is_held


def test_a_silent_lease_is_taken_over_after_the_observers_own_time(tmp_path, clock):
    silent = Leases(tmp_path, "a").take("group")
    observer = Leases(tmp_path, "b", lapse=30)
    for clock.now in (1000.0, 1015.0, 1029.9):
        assert observer.take("group") is None
    newcomer = Leases(tmp_path, "c", lapse=30)  # how long others have watched is nothing to it
    clock.now = 1030.0
    assert newcomer.take("group") is None
    taken = observer.take("group")
    assert (taken.token, taken.lost) == (2, (1,))
    assert taken.is_held
    assert not silent.is_held
    assert newcomer.take("group") is None


def test_each_heartbeat_begins_the_wait_anew(tmp_path, clock):
    lease = Leases(tmp_path, "a").take("group")
    observer = Leases(tmp_path, "b", lapse=30)
    for beat in range(5):
        clock.now += 29
        lease._beat = beat + 1
        lease._write()
        assert observer.take("group") is None
    clock.now += 30
    assert observer.take("group").token == 2


def test_a_holder_beats_by_itself_until_it_is_taken_over(tmp_path):
    with Leases(tmp_path, "a", lapse=0.06).take("group") as lease:
        path = tmp_path / "group" / "1.json"
        before = path.read_bytes()
        deadline = time.monotonic() + 10
        while path.read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.005)
        assert path.read_bytes() != before
        (tmp_path / "group" / "2.json").write_bytes(before)
        assert not lease.is_held
        lease._heart.join(10)
        assert not lease._heart.is_alive()


def test_a_lease_emptied_by_a_power_cut_is_a_silent_one(tmp_path, clock):
    Leases(tmp_path, "a").take("group")
    (tmp_path / "group" / "1.json").write_bytes(b"")
    (tmp_path / "group" / ".1.json.4-4.tmp").touch()
    observer = Leases(tmp_path, "b", lapse=30)
    assert observer.take("group") is None
    assert holder_of(tmp_path, "group") is None
    clock.now += 30
    assert observer.take("group").lost == (1,)
    assert tokens_of(tmp_path / "group") == [1, 2]


def test_lost_holders_stay_known(tmp_path, clock):
    observer = Leases(tmp_path, "a", lapse=0)
    assert observer.take("group").token == 1
    assert observer.take("group") is None  # it must be seen once before
    assert observer.take("group").lost == (1,)
    assert observer.take("group") is None
    with observer.take("group") as third:
        assert (third.token, third.lost) == (3, (1, 2))
    assert observer.take("group").lost == (1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_a_lease_of_a_killed_process_of_this_machine_is_free_at_once(tmp_path, clock, holding):
    with holding(tmp_path, "group") as holder:
        holder.send_signal(signal.SIGSTOP)  # asleep is not dead: it may wake up
        assert Leases(tmp_path, "b").take("group") is None
        assert holder_of(tmp_path, "group") == "a"
        holder.kill()
        holder.wait()
    assert holder_of(tmp_path, "group") is None
    taken = Leases(tmp_path, "b").take("group")
    assert (taken.token, taken.lost) == (2, (1,))  # and its places are still fenced off


def test_what_a_network_disk_leaves_beside_leases_is_none(tmp_path):
    """NFS keeps a file that was replaced while another machine read it."""
    Leases(tmp_path, "a").take("group")
    (tmp_path / "group" / ".nfs00000000009a1b").touch()
    assert tokens_of(tmp_path / "group") == [1]
    assert Leases(tmp_path, "b").take("group") is None
