"""What many runs and studies come to, in a line each."""

import pytest

from fieldmark.report.summary import state_of_all


@pytest.mark.parametrize(
    ("states", "done", "expected"),
    [
        ((), True, "waiting"),
        (("finished", "failed"), True, "finished"),
        (("finished", "pruned"), True, "finished"),  # of a study whose pruner did its work
        (("failed", "pruned"), True, "failed"),
        (("finished", "waiting"), False, "waiting"),
        (("waiting", "running", "failed"), False, "running"),
    ],
)
def test_several_states_come_to_one(states, done, expected):
    assert state_of_all(states, done=done) == expected
