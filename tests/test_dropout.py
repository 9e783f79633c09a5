"""Dropout with a generator of its own."""

import torch
from torch import nn

from models.dropout import STEPS, Dropout, random_steps, use_generator


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


def test_every_draw_is_uniform_whichever_of_the_random_bits_it_is_of():
    draws = random_steps(torch.empty(400_003), torch.Generator().manual_seed(5)).long()  # no multiple of four
    for of_word in range(4):
        draw = draws[of_word::4]
        assert draw.min() < -0.499 * STEPS and draw.max() > 0.499 * STEPS
        # Ten equal parts of the range hold 10,000 each, with a standard deviation of 95.
        counts = torch.histc(draw.float(), bins=10, min=-STEPS / 2, max=STEPS / 2)
        assert (counts - 10_000).abs().max() < 500
    # Neighbours have nothing to do with each other.
    first, second = draws[:-1].double(), draws[1:].double()
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.01


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
