"""Steps as CUDA graphs, with a stand-in for CUDA where there is none (see conftest.py)."""

import pytest
import torch

from models.cudagraph import captured


def test_a_captured_step_replays_on_new_inputs_from_the_state_it_found(recorded):
    first, second, seen = torch.ones(3), torch.zeros(()), []

    def step(inputs, factors):
        seen.append((inputs.clone(), factors.clone()))
        first.add_(inputs * factors)
        second.add_(1)

    replay = captured(recorded(step), [first, second], torch.ones(3), torch.ones(3))
    assert first.tolist() == [1, 1, 1] and second == 0  # neither warming up nor capturing has moved them
    for factor in (2.0, 5.0):
        replay(torch.full((3,), factor), torch.tensor([0.0, 1.0, 10.0]))
        assert seen[-1][0].tolist() == [factor] * 3
    assert first.tolist() == [1, 8, 71] and second == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_captured_step_replays_on_a_gpu():
    total = torch.zeros(3, device="cuda")
    replay = captured(lambda inputs: total.add_(inputs), [total], torch.ones(3, device="cuda"))
    for _ in range(4):
        replay(torch.arange(3.0, device="cuda"))
    assert total.tolist() == [0, 4, 8]
