import torch
from torch import nn

from fieldmark.layers.cut import Cut, sources_of


class Net(nn.Module):
    def __init__(self, between=lambda x: x):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(4, 4, 1)
        self.between = between

    def forward(self, images):
        return self.second(self.between(self.first(images)))


def sources(net):
    images = torch.zeros(1, 3, 4, 4)
    return sources_of(net, lambda: net(images), images)


def test_sources_follow_the_tensor_through_containers_and_in_place_layers():
    assert sources(Net()) == {"first": "", "first.0": "", "first.1": "first.0", "second": "first"}


def test_a_step_between_modules_breaks_the_chain():
    assert sources(Net(lambda x: x + 1))["second"] is None
    assert sources(Net(lambda x: x.flatten(2).view(1, 4, 4, 4)))["second"] is None


def test_a_step_that_changes_the_tensor_itself_breaks_the_chain_too():
    with torch.no_grad():
        assert sources(Net(lambda x: x.add_(1)))["second"] is None


def test_a_module_called_twice_has_no_single_source():
    net = Net()
    net.between = lambda x: net.second(net.second(x))
    assert sources(net)["second"] is None


def test_hooks_are_gone_afterwards():
    net = Net()
    sources(net)
    hooks = (hook for m in net.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks))
    assert list(hooks) == []


def test_a_line_keeps_its_modules_under_their_own_names():
    net = Net()
    body = Cut("first.1", line=("first.0", "first.1")).apply(net)
    assert list(body.state_dict()) == ["first.0.weight", "first.0.bias"]
    images = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    cut = Cut("first.1", line=("first.0", "first.1"))
    torch.testing.assert_close(cut.run(body, images), net.first(images))
