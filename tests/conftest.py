"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def the_same_chance_in_every_run():
    """Tests that draw from torch's global generator draw the same, alone or among others."""
    torch.manual_seed(0)
