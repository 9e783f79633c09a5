"""The usual way, which benchmarks compare with, is an independent program: what train.py's ticks must agree with."""

import numpy as np
import pytest
import torch

import train
from bench.agreement import compare
from bench.usual import UsualRun, train_one


@pytest.mark.parametrize("members_at_once, parts", [(230, 1), (6, 2), (8, 2), (4, 3), (1, 3)])
def test_members_follow_the_usual_way_however_they_are_parted(members_at_once, parts, monkeypatch):
    monkeypatch.setattr(train, "MEMBERS_PER_PART", members_at_once)
    pairs = [(1, 2), (3, 2), (3, 1)]  # data seed, training seed
    members = [{"lrs": [lr], "seed": s, "data_seed": d} for d, s in pairs for lr in (1e-4, 1e-3, 3e-3)]
    settings = {"first_step": 0, "batch_size": 16, "rho": 1.0, "compile": False}
    task = train.TickTraining(settings, members, torch.device("cpu"))
    assert len(task.parts) == parts
    task.advance(0, 50)
    task.advance(50, 150)
    for member, weights, accuracy in zip(members, task.weights, task.evaluate()["test_accuracy"], strict=True):
        usual = UsualRun(member["lrs"][0], member["seed"], member["data_seed"])
        usual.train(150)
        torch.testing.assert_close(weights, usual.weights(), rtol=0, atol=1e-5)
        assert accuracy.item() == pytest.approx(
            usual.evaluate(*usual.sets[2:])[1], abs=0.0011
        )  # two points of 2,000


def test_usual_way_measures_at_the_logged_steps_and_at_the_end():
    measured = train_one(1e-3, 1, 1, steps=50, log_every=20)
    assert measured["step"] == [20, 40, 50] and len(measured["train"]) == len(measured["test"]) == 3
    again = UsualRun(1e-3, 1, 1)
    again.train(50)
    assert measured["test"][-1] == again.evaluate(*again.sets[2:])
    assert len(measured["single_feature_accuracy"]) == 16


def results(shift, scale, seed=0, networks=50):
    random = np.random.default_rng(seed)
    values = shift + scale * random.standard_normal((networks, 3))
    return {("0.001", number, 1): list(row) for number, row in enumerate(values)}


def test_agreement_is_refuted_by_a_shift_and_by_another_spread():
    base = results(0, 1)
    for other, expected in ((results(0, 1, 2), True), (results(1.5, 1, 2), False), (results(0, 8, 2), False)):
        comparisons = compare(base, other)
        assert len(comparisons) == 3 and comparisons[0]["networks"] == 50
        smallest = min(min(c["p_signed_rank"], c["p_kolmogorov_smirnov"]) for c in comparisons)
        assert (smallest >= 0.05) is expected


def test_interval_of_the_difference_is_that_of_students_t():
    first, second = results(0, 1), {key: [0, 0, 0] for key in results(0, 1)}
    values = np.array([row[0] for row in first.values()])
    [low, high] = compare(first, second)[0]["difference_95"]
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.0096 * values.std(ddof=1) / np.sqrt(50), rel=1e-4)
