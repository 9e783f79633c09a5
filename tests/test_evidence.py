"""Evidence of small studies written by hand: what its Samples hold and vary by, and what parts of claims decide."""

import json
import math

import numpy as np
import pytest
from test_analyze import EPOCHS, IMAGES, PLRS, TICKS, whole, write_run

from data.analysis import criteria, intervals
from data.analysis.criteria import NotMeasurable, each, lead, one_of, part
from data.analysis.evidence import Evidence
from data.analysis.intervals import HOLDS, REFUTED, UNDECIDED, RunStd, Sample, combination, difference, every, some
from data.analysis.study import Study, final
from data.files import write_json
from data.runs import geometry_name

FLRS = [1e-5, 1e-4]
# Test accuracies of the runs at every PLR: regimes 1, 1, 2, 2 and 3.
ACCURACIES = dict(zip(PLRS, ([60, 62, 61.5], [64, 64.5], [50, 56, 51, 59], [40, 33], [10.1, 9.9])))
# Those of the same runs after fine-tuning: far more alike in what they gain than in what they reach.
TUNED = {
    FLRS[0]: dict(zip(PLRS, ([62, 64.2, 63.3], [65, 65.7], [70, 76.1, 70.8, 79], [65, 58.2], [30, 29.7]))),
    FLRS[1]: dict(zip(PLRS, ([64, 66.5, 65.2], [66, 66.2], [71, 77.2, 72.4, 80], [65.5, 58.7], [31, 31.1]))),
}
REGIMES = [PLRS[:2], PLRS[2:4], PLRS[4:]]


def write_small_study(folder, settings=IMAGES, data_seeds=(None,), accuracies=ACCURACIES, tuned=TUNED):
    """Two run folders of every stage, members at all PLRs in no order, and None where an accuracy is not finite.

    The runs at a PLR take the data seeds in turn.
    """
    cells = [(plr, seed) for plr, of_plr in accuracies.items() for seed in range(len(of_plr))]
    shuffled = [cells[index] for index in np.random.default_rng(0).permutation(len(cells))]

    def fractions(percents, cells):
        return [None if percents[plr][seed] is None else percents[plr][seed] / 100 for plr, seed in cells]

    def members(cells, *later_lrs):
        found = [{"lrs": [plr, *later_lrs], "seed": seed} for plr, seed in cells]
        if data_seeds != (None,):
            found = [m | {"data_seed": data_seeds[m["seed"] % len(data_seeds)]} for m in found]
        return found

    for name, cells in (("b", shuffled[: len(shuffled) // 2]), ("a", shuffled[len(shuffled) // 2 :])):
        write_run(
            folder / f"pretrain/{name}",
            "pretrain",
            members(cells),
            settings,
            train_accuracy=[1 if plr <= PLRS[1] else 0.5 for plr, _ in cells],
            train_loss=[[10] + [9 if plr == PLRS[4] else 1] * EPOCHS for plr, _ in cells],
            test_accuracy=[
                [0.1 if plr == PLRS[4] else 0.3] * EPOCHS + [fraction]
                for (plr, _), fraction in zip(cells, fractions(accuracies, cells))
            ],
        )
        parent = {"parent": folder / f"pretrain/{name}"}
        for flr, percents in tuned.items():
            reached = {"test_accuracy": [[0.3] * EPOCHS + [fraction] for fraction in fractions(percents, cells)]}
            # Folders of fine-tunings are in another order than those of pre-trainings.
            path = folder / f"finetune/{flr}-{'a' if name == 'b' else 'b'}"
            write_run(path, "finetune", members(cells, flr), settings, **parent, **reached)
    return folder


@pytest.fixture
def study(tmp_path):
    return Study(write_small_study(tmp_path / "runs"))


@pytest.fixture
def tick_study(tmp_path):
    """Two data seeds."""
    return Study(write_small_study(tmp_path / "runs", TICKS, (1, 2)))


def values_of(samples):
    """{PLR: [value] in order}."""
    return {plr: pytest.approx(sorted(sample.values.tolist())) for plr, sample in samples.items()}


def gains(flr):
    return {plr: sorted(np.subtract(TUNED[flr][plr], ACCURACIES[plr]).tolist()) for plr in PLRS}


def slow_noise(values):
    """The RunStd of {PLR: [value]} of a regime, number by number."""
    squares = freedom = 0
    for of_plr in values:
        for value in of_plr:
            squares += (value - sum(of_plr) / len(of_plr)) ** 2
        freedom += len(of_plr) - 1
    return RunStd(pytest.approx(math.sqrt(squares / freedom)), freedom)


# ------------------------------------------------------------------------------------------------------ values of runs


def test_accuracies_are_those_of_all_runs_in_percent(study):
    e = Evidence(study)
    assert e.regimes["b12"]["last"] == PLRS[1] and e.regimes["b23"]["last"] == PLRS[3]
    assert e.plrs == PLRS and e.flrs == FLRS
    assert values_of(e.pretrained) == {plr: sorted(of_plr) for plr, of_plr in ACCURACIES.items()}
    for flr in FLRS:
        assert values_of(e.finetuned[flr]) == {plr: sorted(of_plr) for plr, of_plr in TUNED[flr].items()}


def test_noise_is_pooled_over_the_plrs_of_a_regime(study):
    e = Evidence(study)
    for found, values in ((e.pretrained, ACCURACIES), (e.finetuned[FLRS[1]], TUNED[FLRS[1]])):
        for plrs in REGIMES:
            expected = slow_noise([values[plr] for plr in plrs])
            assert [found[plr].noise for plr in plrs] == [expected] * len(plrs)
        assert len({found[plr].noise for plr in PLRS}) == 3
    for plrs in REGIMES:
        expected = slow_noise([gains(FLRS[0])[plr] for plr in plrs])
        assert [e.finetuning_change(FLRS[0])[plr].noise for plr in plrs] == [expected] * len(plrs)


@pytest.mark.parametrize(
    "b12, b2ab, b23, regimes",
    [
        (1e-4, 1e-3, 1e-2, [PLRS[:1], PLRS[1:3], PLRS[3:]]),  # 2A and 2B are about as noisy
        (1e-2, 1e-1, None, [PLRS[:3], PLRS[3:]]),
        (None, None, None, [PLRS]),
    ],
)
def test_regimes_that_are_given_or_not_bracketed(study, b12, b2ab, b23, regimes):
    ends = {"b12": b12, "b2AB": b2ab, "b23": b23}
    e = Evidence(study, regimes={name: end and {"last": end, "next": 10 * end} for name, end in ends.items()})
    for plrs in regimes:
        expected = slow_noise([ACCURACIES[plr] for plr in plrs])
        assert [e.pretrained[plr].noise for plr in plrs] == [expected] * len(plrs)


def test_a_standard_deviation_that_is_given_is_that_of_accuracies(study):
    e = Evidence(study, std=0.7)
    for samples in (e.pretrained, e.late_accuracy, *e.finetuned.values()):
        assert {sample.noise for sample in samples.values()} == {RunStd(0.7)}
    assert e.at(final("test_accuracy"), [PLRS[2], FLRS[0]]).noise == RunStd(0.7)
    # Those of parent and child add up in changes.
    for converged in (False, True):
        [noise] = {sample.noise for sample in e.finetuning_change(FLRS[0], converged).values()}
        assert noise == RunStd(pytest.approx(math.sqrt(2) * 0.7))
    [noise] = {sample.noise for sample in e.percent("pretrain", final("test_accuracy")).at(REGIMES[0])}
    assert noise == slow_noise([ACCURACIES[plr] for plr in REGIMES[0]])  # of other fractions nothing was said


def test_the_sample_at_all_learning_rates_has_its_own_noise(study):
    e = Evidence(study)
    sample = e.at(final("test_accuracy"), [PLRS[2], FLRS[0]])
    assert sorted(sample.values) == pytest.approx(sorted(TUNED[FLRS[0]][PLRS[2]]))
    assert sample.noise == slow_noise([TUNED[FLRS[0]][PLRS[2]]])
    assert e.at(final("test_accuracy"), [PLRS[2], 0.5]) is None


def test_several_data_seeds_are_groups(tick_study):
    e = Evidence(tick_study)
    for samples in (e.pretrained, e.finetuned[FLRS[0]], e.finetuning_change(FLRS[0])):
        assert {tuple(sorted(sample.groups)) for sample in samples.values()} == {(1, 2), (1, 1, 2), (1, 1, 2, 2)}
    # Runs 0 and 2 are of data seed 1.
    assert e.pretrained[PLRS[0]].group_means == {1: pytest.approx((60 + 61.5) / 2), 2: pytest.approx(62)}
    assert e.at(final("test_accuracy"), [PLRS[0]]).group_means == e.pretrained[PLRS[0]].group_means
    expected = combination([(1, Sample([70.4, 77.55], [1, 2])), (-1, Sample([63.75 - 1.1, 64.2], [1, 2]))])
    assert difference(*e.finetuned[FLRS[0]].at([PLRS[2], PLRS[0]])) == pytest.approx(expected)


@pytest.mark.parametrize("settings, data_seeds", [(TICKS, (1,)), (TICKS, (None,)), (IMAGES, (None,))])
def test_one_data_seed_is_no_group(tmp_path, settings, data_seeds):
    e = Evidence(Study(write_small_study(tmp_path / "runs", settings, data_seeds)))
    for samples in (e.pretrained, e.finetuned[FLRS[0]], e.finetuning_change(FLRS[0])):
        assert all(sample.groups is None for sample in samples.values())


@pytest.mark.parametrize("settings, data_seeds", [(IMAGES, (None,)), (TICKS, (1, 2))])
def test_values_that_are_not_finite_are_skipped(tmp_path, settings, data_seeds):
    accuracies = ACCURACIES | {PLRS[2]: [50, None, 51, 59], PLRS[4]: [None, None]}
    tuned = {flr: of_flr | {PLRS[2]: [70, 71, None, 79]} for flr, of_flr in TUNED.items()}
    folder = write_small_study(tmp_path / "runs", settings, data_seeds, accuracies, tuned)
    e = Evidence(Study(folder))
    assert list(e.pretrained) == list(e.late_accuracy) == PLRS[:4] == e.plrs
    assert values_of(e.pretrained)[PLRS[2]] == [50, 51, 59]
    noise = None if settings == TICKS else slow_noise([[50, 51, 59], ACCURACIES[PLRS[3]]])
    assert e.pretrained[PLRS[2]].noise == noise
    assert values_of(e.late_accuracy)[PLRS[2]] == [40, 40.5, 44.5]  # epochs 19, with 30 %, and 20
    assert values_of(e.finetuned[FLRS[0]])[PLRS[2]] == [70, 71, 79]
    assert values_of(e.finetuned[FLRS[0]])[PLRS[4]] == sorted(TUNED[FLRS[0]][PLRS[4]])
    # Of a change both ends must be finite.
    changes = e.finetuning_change(FLRS[0])
    assert values_of(changes)[PLRS[2]] == [20, 20] and PLRS[4] not in changes
    if settings == TICKS:
        assert sorted(e.pretrained[PLRS[2]].groups) == [1, 1, 2] and sorted(changes[PLRS[2]].groups) == [1, 2]
    with pytest.raises(NotMeasurable, match="for one at PLR 1"):
        e.pretrained.at(PLRS)
    with pytest.raises(NotMeasurable, match="for one at PLR 1"):
        e.pretrained.means([PLRS[4]])


def test_a_change_is_that_of_a_run_from_its_own_parent(study):
    e = Evidence(study)
    for flr in FLRS:
        assert values_of(e.finetuning_change(flr)) == gains(flr)
    # By other parents changes would vary as accuracies do.
    assert e.finetuning_change(FLRS[0])[PLRS[2]].noise.std < 0.2 * e.pretrained[PLRS[2]].noise.std
    assert values_of(e.finetuning_change(FLRS[0], converged=True)) == {
        plr: gains(FLRS[0])[plr] for plr in REGIMES[0]
    }


def test_a_run_whose_parent_is_not_there_has_no_change(tmp_path):
    folder = write_small_study(tmp_path / "runs")
    path = folder / f"finetune/{FLRS[0]}-a/config.json"
    orphan = json.loads(path.read_text())
    path.write_text(json.dumps(orphan | {"parent": None}))
    found = Evidence(Study(folder)).finetuning_change(FLRS[0])
    assert sum(len(sample.values) for sample in found.values()) == 13 - len(orphan["members"])


# -------------------------------------------------------------------------------------------- measurements, regimes


def write_geometry(study, barriers):
    """Barriers {PLR: [that of every run]}; the angle is a tenth of them."""
    for run in study.of_stage("pretrain"):
        of_members = [barriers[member["lrs"][0]][member["seed"]] for member in run.members]
        geometry = {"test_barrier": {"LH": of_members}, "angle": {"LH": [0.1 * barrier for barrier in of_members]}}
        write_json(run.path / f"{geometry_name(*FLRS)}.json", whole("geometry", geometry))


BARRIERS = dict(zip(PLRS, ([0, 3, 1], [7, 5], [1, 2, 30, 4], [8, 9], [3, 6])))


def test_geometry_of_several_data_seeds_is_the_median_of_each(tick_study):
    write_geometry(tick_study, BARRIERS)
    found = Evidence(tick_study).geometry("test_barrier", "LH")
    # Runs 0 and 2 are of data seed 1, runs 1 and 3 of data seed 2.
    expected = [{1: 0.5, 2: 3}, {1: 7, 2: 5}, {1: 15.5, 2: 3}, {1: 8, 2: 9}, {1: 3, 2: 6}]
    assert [sample.group_means for sample in found.values()] == expected and list(found) == PLRS
    assert {len(sample.values) for sample in found.values()} == {2}
    angle = Evidence(tick_study).geometry("angle", "LH", counts=lambda run, index: run.members[index]["seed"] > 1)
    assert [sample.group_means for sample in angle.values()] == [{1: 0.1}, {1: 3, 2: 0.4}]


def test_the_geometry_of_a_data_seed_is_not_its_mean(tmp_path):
    accuracies = dict.fromkeys(PLRS, [60] * 6)
    folder = write_small_study(tmp_path / "runs", TICKS, (1, 2), accuracies, dict.fromkeys(FLRS, accuracies))
    write_geometry(Study(folder), dict.fromkeys(PLRS, [1, 4, 2, 5, 30, 0]))
    [first, *_] = Evidence(Study(folder)).geometry("test_barrier", "LH").values()
    assert first.group_means == {1: 2, 2: 4}


def test_geometry_of_independent_runs_is_that_of_each(study):
    write_geometry(study, BARRIERS)
    found = Evidence(study).geometry("test_barrier", "LH")
    assert values_of(found) == {plr: sorted(of_plr) for plr, of_plr in BARRIERS.items()}
    for plrs in REGIMES:
        for plr in plrs:
            assert found[plr].noise == slow_noise([BARRIERS[other] for other in plrs])
    with pytest.raises(NotMeasurable, match="analyze.py geometry, which needs SWA of 5 weights: swa.py"):
        Evidence(study).geometry("train_barrier", "LH")


def test_the_noise_of_geometry_differs_between_2a_and_2b_and_at_the_jump(study, monkeypatch):
    write_geometry(study, BARRIERS)
    ends = {"b12": PLRS[1], "b2AB": PLRS[2], "b23": PLRS[3]}
    e = Evidence(study, regimes={name: {"last": end, "next": 10 * end} for name, end in ends.items()})
    for jump in ([PLRS[:2]], [PLRS[:1], PLRS[1:2]]):
        monkeypatch.setattr(e, "jump", lambda jump=jump: (jump[0], jump[1:]))
        found = e.geometry("test_barrier", "LH")
        for plrs in (*jump, [PLRS[2]], [PLRS[3]], [PLRS[4]]):
            expected = slow_noise([BARRIERS[plr] for plr in plrs])
            assert [found[plr].noise for plr in plrs] == [expected] * len(plrs)


@pytest.mark.parametrize(
    "of_2a, decision",
    [
        ([70.0, 70.5], None),  # at PLR 1e-2 the FLR does not matter
        ([70.0, 85.0], REFUTED),
        ([None, 70.0], REFUTED),  # runs that diverge
    ],
)
def test_where_no_plr_meets_the_criterion_of_2a(tmp_path, of_2a, decision):
    accuracies = dict(zip(PLRS, ([60] * 3, [64] * 3, [50] * 3, [40] * 3, [10] * 3)))
    tuned = {flr: accuracies | {PLRS[2]: [value] * 3} for flr, value in zip(FLRS, of_2a)}
    study = Study(write_small_study(tmp_path / "runs", accuracies=accuracies, tuned=tuned))
    assert Evidence(study).without_2a == decision


def test_there_may_be_a_2a_that_no_plr_meets(tmp_path):
    """Single runs, and runs that disagree, do not tell; nor do those that were not fine-tuned."""
    single = {plr: of_plr[:1] for plr, of_plr in ACCURACIES.items()}
    tuned = {flr: single | {PLRS[2]: [value]} for flr, value in zip(FLRS, (70, 85))}
    assert Evidence(Study(write_small_study(tmp_path / "single", accuracies=single, tuned=tuned))).without_2a == (
        UNDECIDED
    )
    runs = dict.fromkeys(PLRS[:2], [64] * 4) | dict.fromkeys(PLRS[2:4], [50] * 4) | {PLRS[4]: [10] * 4}
    tuned = {flr: runs | {PLRS[2]: of_2a} for flr, of_2a in zip(FLRS, ([70] * 4, [70, 70, 80, 80]))}
    assert Evidence(Study(write_small_study(tmp_path / "apart", accuracies=runs, tuned=tuned))).without_2a == (
        UNDECIDED
    )
    assert Evidence(Study(write_small_study(tmp_path / "untuned", tuned={}))).without_2a is None


# ------------------------------------------------------------------------------------------------------ parts of claims


def singles(*values, std=1.0):
    return [Sample([value], noise=RunStd(std)) for value in values]


def alone(*values, std=1.0):
    return [[(1, sample)] for sample in singles(*values, std=std)]


@pytest.mark.parametrize(
    "bound, below, at, beyond",
    [
        (criteria.above(2), REFUTED, REFUTED, HOLDS),
        (criteria.at_least(2), REFUTED, HOLDS, HOLDS),
        (criteria.below(2), HOLDS, REFUTED, REFUTED),
        (criteria.at_most(2), HOLDS, HOLDS, REFUTED),
        (criteria.within(2), HOLDS, HOLDS, REFUTED),
        (criteria.within(1, of=3), REFUTED, HOLDS, HOLDS),
        (criteria.within(1, of=1), HOLDS, HOLDS, REFUTED),
        (criteria.within(2, of=-0.1), HOLDS, REFUTED, REFUTED),
    ],
)
def test_bounds_of_one_quantity(bound, below, at, beyond):
    for value, decision in ((1.9, below), (2, at), (2.1, beyond)):
        [sample] = singles(value, std=0)
        assert part("it", bound, (1, sample)) == ("it", decision, (value, value, value))
    [sample] = singles(2)
    assert part("it", bound, (1, sample)).decision == UNDECIDED
    assert part("it", bound, (1, Sample([2.0]))).decision == UNDECIDED  # whose noise is unknown


def test_one_quantity_is_a_combination():
    x, y, z = (Sample(values) for values in ([3.0, 4.0], [1.0, 2.5, 1.0], [0.5, 0.0]))
    terms = [(1, x), (-2, y), (0.5, z)]
    assert part("it", criteria.above(0), *terms).value == combination(terms)


BOUNDS = [  # least and most favourable of the estimates below
    (criteria.above(2), -7, 9),
    (criteria.at_least(-8), -7, 9),
    (criteria.below(4), 9, -7),
    (criteria.at_most(4), 9, -7),
    (criteria.within(2), 9, 1),
    (criteria.within(2, of=4), -7, 3),
    (criteria.within(2, of=-3), 9, -7),
]
ESTIMATES = (3, -7, 9, 1)


@pytest.mark.parametrize("bound, least, most", BOUNDS)
def test_the_least_favourable_of_each_and_the_most_favourable_of_some_are_shown(bound, least, most):
    assert each("it", bound, alone(*ESTIMATES)).value == combination(*alone(least))
    assert one_of("it", bound, alone(*ESTIMATES)).value == combination(*alone(most))
    # What is not known is the least favourable.
    assert math.isnan(each("it", bound, alone(*ESTIMATES, math.nan, 5)).value.estimate)
    assert one_of("it", bound, alone(math.nan, *ESTIMATES)).value == combination(*alone(most))


@pytest.mark.parametrize(
    "estimates", [ESTIMATES, (-9, -7), (9,), (3, 3.5), (4.3, 0, 5), (-2, 1, 2), (math.nan, 9)]
)
@pytest.mark.parametrize("bound", [bound for bound, *_ in BOUNDS])
@pytest.mark.parametrize("std", [0.1, 1])
def test_each_and_some_decide_as_intervals_do(bound, estimates, std):
    combinations = alone(*estimates, std=std)
    assert each("it", bound, combinations).decision == every(bound.decide, combinations)
    assert one_of("it", bound, combinations).decision == some(bound.decide, combinations)


def test_each_and_some_decide_each_way():
    for estimates, of_each, of_some in (
        ([5, 6], HOLDS, HOLDS),
        ([-5, 6], REFUTED, HOLDS),
        ([-5, -6], REFUTED, REFUTED),
        ([-5, 0.1], REFUTED, UNDECIDED),
        ([5, 0.1], UNDECIDED, HOLDS),
        ([2.1, 2.1], HOLDS, UNDECIDED),  # of two, 2.24 is what each must reach
        ([-2.1, -2.1], UNDECIDED, REFUTED),
    ):
        assert each("it", criteria.above(0), alone(*estimates)).decision == of_each
        assert one_of("it", criteria.above(0), alone(*estimates)).decision == of_some


def test_a_lead_is_that_of_the_highest_over_the_highest():
    samples, others = singles(4, 12, 7), singles(3, -2, 5)
    for margin, decision in ((0, HOLDS), (3, HOLDS), (6, UNDECIDED), (12, REFUTED), (-9, HOLDS)):
        found = lead("it", samples, others, margin)
        assert found == (
            "it",
            intervals.exceeds_all(samples, others, margin),
            difference(samples[1], others[2], 3),
        )
        assert found.decision == decision
    assert lead("it", others, samples).decision == REFUTED
    assert lead("it", samples, others).value.estimate == 7


def test_trends_facts_and_what_is_only_told():
    found = criteria.trend("it", PLRS, [1, 2, 3, 4, 5], intervals.RISING)
    assert found == ("it", HOLDS, {"correlation": pytest.approx(1), "p": pytest.approx(1 / 120)})
    assert criteria.trend("it", PLRS, [1, 2, 3, 4, 5], intervals.FALLING).decision == REFUTED
    assert criteria.fact("it", np.bool_(True), 3) == ("it", HOLDS, 3)
    assert criteria.fact("it", 0, "none") == ("it", REFUTED, "none")
    assert criteria.told("it", 3) == ("it", None, 3)


def test_the_best_of_some_settings_peaks_there(study):
    e = Evidence(study)
    inside, curves = [PLRS[2]], list(e.finetuned.values())
    elsewhere = [plr for plr in PLRS if plr != PLRS[2]]
    assert criteria.best_plr(e.finetuned[FLRS[0]], PLRS) == PLRS[2]
    found = criteria.peaks_in(e, "it", inside, curves)
    assert found.value == difference(curves[1][PLRS[2]], curves[1][PLRS[1]], len(curves))
    assert found.decision == intervals.exceeds_all(
        [curve[PLRS[2]] for curve in curves], [curve[plr] for curve in curves for plr in elsewhere]
    )
    with pytest.raises(NotMeasurable, match="fine-tuning at .* is missing, for one at PLR 0.5: finetune.py"):
        criteria.samples(curves, [0.5])


def test_of_no_runs_nothing_is_said():
    for about in (each, one_of):
        with pytest.raises(NotMeasurable, match="runs are missing"):
            about("nothing", criteria.above(0), [])
