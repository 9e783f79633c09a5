"""Dropout with a generator of its own."""

import torch
from torch import nn

from models.dropout import Dropout, use_generator


def network(p=0.25):
    made = nn.Sequential(nn.Linear(8, 8), Dropout(p), nn.Sequential(Dropout(p)))
    random = torch.Generator()
    use_generator(made, random)
    return made, random


def test_kept_activations_are_scaled_and_as_many_as_asked_for():
    dropout = Dropout(0.25)
    dropout.generator = torch.Generator().manual_seed(1)
    out = dropout(torch.ones(100, 1000))
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # The share of 100,000 draws has a standard deviation of 0.0014.
    assert abs((out > 0).float().mean().item() - 0.75) < 0.01


def test_evaluation_and_zero_probability_change_nothing():
    x = torch.randn(5, 8)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_random_numbers_come_from_the_generator_and_nowhere_else():
    made, random = network()
    x = torch.randn(4, 8)
    random.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = made(x), made(x)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(17)
    random.manual_seed(3)
    assert torch.equal(made(x), first) and torch.equal(made(x), second)
    assert not torch.equal(first, second)


def test_gradients_pass_where_activations_were_kept():
    dropout = Dropout(0.5)
    dropout.generator = torch.Generator().manual_seed(2)
    x = torch.ones(1000, requires_grad=True)
    out = dropout(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # 0, or 1 / (1 - p), as the inputs are ones
