"""The synthetic tick data against the geometry of the paper's appendix, written here independently."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data import ticks
from data.commandline import Parser

VERTICAL = 0.1 * math.sqrt(2)


@pytest.fixture(scope="module")
def sets():
    return ticks.tick_sets(1)


def features(inputs):
    """x1 and x2 of all features, [samples, 16] each, in double precision."""
    return inputs.double().view(-1, 16, 2).unbind(2)


def distance_to_segment(x1, x2, start, end):
    along = torch.tensor([end[0] - start[0], end[1] - start[1]], dtype=torch.float64)
    offset = torch.stack([x1 - start[0], x2 - start[1]], dim=-1)
    position = (offset @ along / along.square().sum()).clamp(0, 1)
    return (offset - position[..., None] * along).norm(dim=-1)


def distance_to_boundary(x1, x2):
    corners = [((0, low), (side * 2, low + 2)) for low in (0, -2) for side in (-1, 1)]
    return torch.stack([distance_to_segment(x1, x2, *segment) for segment in corners]).amin(0)


def assert_fraction(hits, probability):
    """The mean of independent hits is within four and a half binomial deviations of the probability."""
    deviation = math.sqrt(probability * (1 - probability) / hits.numel())
    assert abs(hits.double().mean().item() - probability) < 4.5 * deviation


def test_sizes_types_and_balance(sets):
    assert [tuple(part.shape) for part in sets] == [(512, 32), (512,), (2000, 32), (2000,)]
    assert all(part.dtype == torch.float32 for part in sets)
    for labels in (sets.train_labels, sets.test_labels):
        assert set(labels.tolist()) == {0.0, 1.0}
        assert_fraction(labels == 1, 0.5)


def test_every_feature_of_every_sample_lies_in_the_region_of_its_class(sets):
    for inputs, labels in (sets[:2], sets[2:]):
        x1, x2 = features(inputs)
        assert x1.abs().max() <= 2 and x2.abs().max() <= 2
        between = (x2 < x1.abs()) & (x2 > x1.abs() - 2)
        assert torch.equal(between, (labels == 0)[:, None].expand_as(between))


def test_points_keep_the_margin_and_no_more(sets):
    distance = distance_to_boundary(*features(sets.test_inputs))
    assert 0.1 - 1e-6 < distance.min() < 0.1005


def test_class_0_is_uniform_on_its_band(sets):
    x1, x2 = features(sets.test_inputs[sets.test_labels == 0])
    assert_fraction(x1 < -1, 0.25)
    assert_fraction(x1 < 0.5, 0.625)
    depth = (x1.abs() - VERTICAL - x2) / (2 - 2 * VERTICAL)
    assert_fraction(depth < 0.2, 0.2)
    assert_fraction((depth < 0.5) & (x1.abs() < 1), 0.25)


def test_class_1_is_uniform_on_its_three_parts(sets):
    x1, x2 = features(sets.test_inputs[sets.test_labels == 1])
    area = 2 * (2 - VERTICAL) ** 2  # one half above the upper curve, a quarter in each lower corner
    assert_fraction(x2 > x1.abs(), 0.5)
    assert_fraction((x2 < x1.abs() - 2) & (x1 < 0), 0.25)
    assert_fraction((x2 > x1.abs()) & (x1.abs() < 1), 2 * (1.5 - VERTICAL) / area)
    assert_fraction((x2 < x1.abs() - 2) & (x1 > 1), (1.5 - VERTICAL) / area)


def test_features_are_independent_given_the_label(sets):
    for label in (0, 1):
        inputs = sets.test_inputs[sets.test_labels == label]
        x1, x2 = features(inputs)
        for values in (x1, x2, x1.abs(), x2 > 0):
            correlation = torch.corrcoef(values.double().T) - torch.eye(16)
            assert correlation.abs().max() < 5 / math.sqrt(len(inputs))


def test_one_feature_tells_the_label_and_one_coordinate_does_not(sets):
    x1, x2 = features(sets.test_inputs)
    oracle = (x2 - x1.abs() + 1).abs() > 1
    assert torch.equal(oracle, (sets.test_labels == 1)[:, None].expand_as(oracle))
    labels = sets.test_labels.long()[:, None].expand(-1, 16).flatten()
    for coordinate, most in ((x1, 0.52), (x2, 0.8)):
        bins = ((coordinate.flatten() + 2) / 4 * 40).long().clamp(max=39)
        counts = torch.zeros(40, 2).index_put_((bins, labels), torch.ones(len(bins)), accumulate=True)
        assert counts.amax(1).sum() / counts.sum() < most  # the best that a function of the bin can do


@pytest.mark.parametrize("feature", [0, 7, 15])
def test_single_feature_sets_tell_the_label_by_one_feature_only(feature):
    inputs, labels = ticks.single_feature_set(feature)
    assert inputs.shape == (1000, 32) and labels.shape == (1000,)
    x1, x2 = features(inputs)
    told = (x2[:, feature] - x1[:, feature].abs() + 1).abs() > 1
    assert torch.equal(told, labels == 1)
    assert distance_to_boundary(x1, x2)[:, feature].min() > 0.1 - 1e-6

    others = torch.arange(16) != feature
    x1, x2 = inputs.view(-1, 16, 2)[:, others].unbind(2)
    upper = x2 == x1.abs()
    assert (upper | (x2 == x1.abs() - 2)).all()
    assert_fraction(upper, 0.5)
    assert_fraction(x1 < -1, 0.25)
    assert_fraction(upper & (x1 > 0), 0.25)
    for label in (0, 1):
        assert_fraction(upper[labels == label], 0.5)
        assert_fraction(x1[labels == label] < 0.5, 0.625)
        assert_fraction(x1[labels == label].abs() < 1, 0.5)


def test_reproducible_by_seed_and_different_between_seeds(sets):
    assert all(torch.equal(*pair) for pair in zip(sets, ticks.tick_sets(1)))
    assert not torch.equal(sets.train_inputs, ticks.tick_sets(2).train_inputs)
    single = [ticks.single_feature_set(feature)[1] for feature in (0, 1)]
    all_labels = [sets.train_labels, sets.test_labels, *single]
    assert len({tuple(labels[:512].tolist()) for labels in all_labels}) == 4


def test_same_numbers_on_every_machine(sets):
    assert sets.train_labels[:8].tolist() == [0, 1, 1, 1, 0, 1, 0, 0]
    expected = torch.tensor([0.868492, -0.503011, -1.858062, 1.601731])
    torch.testing.assert_close(sets.train_inputs[0, :4], expected, rtol=0, atol=1e-6)


def test_boundary_curves():
    upper, lower = ticks.boundary_curves(torch.tensor([-2.0, 0.0, 0.5]))
    assert upper.tolist() == [2, 0, 0.5] and lower.tolist() == [0, -2, -1.5]


def test_preset_holds_the_learning_rates_of_the_paper():
    expected = """3.16e-5 5.62e-5 1e-4 1.78e-4 3.16e-4 5.62e-4 1e-3 1.78e-3 3.16e-3 5.62e-3 7.50e-3 1e-2
        1.33e-2 1.78e-2 2.37e-2 3.16e-2 4.22e-2 5.62e-2 1e-1 1.78e-1 3.16e-1 5.62e-1 1""".split()
    parser = Parser()
    parser.add_argument("--data")
    parser.add_argument("--lr", type=float, nargs="+")
    preset = parser.parse_args([f"@{Path(__file__).parent.parent / 'scripts/ticks.args'}"])
    assert preset.data == "ticks" and preset.lr == pytest.approx([float(lr) for lr in expected], rel=4e-3)
    exponents = np.log10(preset.lr) * 8
    assert exponents == pytest.approx(np.round(exponents), abs=1e-9)


def test_minibatches_pass_once_over_every_training_set():
    samples = torch.arange(2 * 520.0).view(2, 520)
    inputs = samples[..., None].expand(2, 520, 32)
    inputs, labels = ticks.minibatches(inputs, samples, seeds=[3, 4], pass_index=0)
    assert inputs.shape == (32, 2, 16, 32) and labels.shape == (32, 2, 16)
    assert torch.equal(inputs, labels[..., None].expand_as(inputs))
    for run in (0, 1):
        seen = set(labels[:, run].flatten().tolist())
        assert len(seen) == 512 and seen <= set(samples[run].tolist())


def test_order_depends_on_seed_and_pass_alone():
    samples = torch.arange(512.0).expand(3, 512)
    inputs = samples[..., None].expand(3, 512, 32)
    labels = ticks.minibatches(inputs, samples, [5, 6, 5], 2)[1]
    assert torch.equal(labels[:, 0], labels[:, 2])
    assert not torch.equal(labels[:, 0], labels[:, 1])
    assert not torch.equal(labels, ticks.minibatches(inputs, samples, [5, 6, 5], 3)[1])
    assert torch.equal(labels[:, :1], ticks.minibatches(inputs[:1], samples[:1], [5], 2)[1])
