"""Where a regime is decided before a run ends: by the rule alone, on curves whose answer is known, and in training."""

import json
import math

import numpy as np
import pytest
from test_runs import call, contents, one_line, strict_json, survives

from bench import early_verdicts as bench
from data.analysis import regimes
from data.analysis.regimes import AT_CHANCE, CONVERGED, DIVERGED, PLATEAUED, Circumstances
from data.analysis.runs_table import table
from data.analysis.study import Study
from data.runs import SERIES, Run

LENGTH, CHANCE = 100, 0.1
OF_IMAGES = Circumstances(LENGTH, accuracy=0.999, diverges=True, chance=CHANCE, test_samples=10_000)


def metrics(losses, train=0.5, test=0.4, diverged_at=None):
    """Metrics of one member with these losses after the initial one, 2.3; accuracies are numbers or one for each loss."""
    steps = len(losses) + 1
    columns = {"train_loss": [2.3, *losses], "test_loss": [1.0] * steps}
    for name, values in (("train_accuracy", train), ("test_accuracy", test)):
        columns[name] = [CHANCE, *np.broadcast_to(values, steps - 1).tolist()]
    series = {name: [[value] for value in column] for name, column in columns.items()}
    return {
        "step": list(range(steps)),
        "diverged_at": [diverged_at],
        "status": "running",
        "unit": "epoch",
    } | series


def noise(count, correlation, std, random):
    """A stationary AR(1) series of this standard deviation."""
    found = [random.standard_normal()]
    for draw in random.standard_normal(count - 1):
        found.append(correlation * found[-1] + math.sqrt(1 - correlation**2) * draw)
    return std * np.array(found)


def first_verdict(whole, circumstances=OF_IMAGES):
    return bench.replay(whole, 0, circumstances)


def test_a_run_converged_where_the_last_tenth_of_it_has_the_accuracy():
    """From epoch 30 on all is right; the last tenth of 33 epochs begins after 29.7, that of 32 after 28.8."""
    right = np.where(np.arange(1, LENGTH + 1) < 30, 0.9, 1)
    losses = np.where(right < 1, 1, 1e-3)
    assert first_verdict(metrics(losses, right)) == (CONVERGED, 33)
    never = OF_IMAGES._replace(accuracy=None)
    assert first_verdict(metrics(losses, right), never) == (None, LENGTH)


def test_nothing_is_decided_in_the_first_fifth_nor_in_the_last_tenth():
    assert first_verdict(metrics([1e-3] * LENGTH, 1.0)) == (CONVERGED, 20)
    late = np.where(np.arange(1, LENGTH + 1) < 83, 0.9, 1)
    assert first_verdict(metrics([1e-3] * LENGTH, late)) == (
        None,
        LENGTH,
    )  # of 92 epochs the last tenth begins at 83


def test_what_is_not_finite_diverged_at_once():
    assert first_verdict(metrics([1, None], diverged_at=2)) == (DIVERGED, 2)


@pytest.mark.parametrize("above, verdict", [(0.009, AT_CHANCE), (0.011, PLATEAUED)])
def test_chance_is_that_of_the_boundary(above, verdict):
    """1 pp, as three standard errors of 10,000 samples are 0.9 pp."""
    flat = metrics([2.3] * LENGTH, CHANCE, CHANCE + above)
    assert first_verdict(flat) == (verdict, 20)


def test_chance_is_wider_on_a_small_test_set_and_not_below_half_of_the_loss():
    few = OF_IMAGES._replace(test_samples=900)  # three standard errors are 3 pp
    assert first_verdict(metrics([2.3] * LENGTH, CHANCE, 0.129), few) == (AT_CHANCE, 20)
    assert first_verdict(metrics([2.3] * LENGTH, CHANCE, 0.131), few) == (PLATEAUED, 20)
    assert first_verdict(metrics([1.1] * LENGTH, CHANCE, CHANCE)) == (PLATEAUED, 20)
    assert first_verdict(metrics([2.3] * LENGTH, CHANCE, CHANCE), OF_IMAGES._replace(diverges=False)) == (
        PLATEAUED,
        20,
    )


def test_an_exact_exponential_is_extrapolated_exactly():
    """exp(-rate t) keeps exp(-rate (length - t)): the verdict comes with the first t at which that is 70 %."""
    for half_life in (40, 100, 140, 1000):
        rate = math.log(2) / half_life
        at = max(20, math.ceil(LENGTH - math.log(1 / 0.7) / rate))
        losses = 2 * np.exp(-rate * np.arange(1, LENGTH + 1))
        found = first_verdict(metrics(losses, 0.5))
        # A fall of 5 % within the last fifth of what was trained is a fall whatever it leads to.
        falls = at / 10 * rate > -math.log(0.95)
        assert found == ((None, LENGTH) if at > 90 or falls else (PLATEAUED, at)), half_life


@pytest.mark.parametrize("train, verdict", [(0.81, PLATEAUED), (0.83, None)])
def test_a_plateau_near_convergence_decides_nothing(train, verdict):
    """A fifth of the error of guessing among ten classes is 18 %."""
    assert first_verdict(metrics([0.6] * LENGTH, train))[0] == verdict


def test_the_error_of_a_trend_is_that_of_least_squares_and_grows_with_correlation():
    random = np.random.default_rng(0)
    x = np.arange(30.0)
    values = 3 - 0.1 * x + random.standard_normal(30)
    (slope, _), covariance = np.polyfit(x, values, 1, cov=True)
    found, error = regimes.trend(x, values)
    deviations = values - np.polyval(np.polyfit(x, values, 1), x)
    r = sum(a * b for a, b in zip(deviations, deviations[1:])) / sum(deviations**2)
    r = min(max((30 * r + 2) / 26, 0), 0.9)
    assert found == pytest.approx(slope)
    assert error == pytest.approx(math.sqrt(covariance[0, 0] * (1 + r) / (1 - r)))
    assert regimes.trend(x, 3 - 0.1 * x)[1] == pytest.approx(0, abs=1e-9)
    assert np.isnan(regimes.trend(x, np.where(x == 3, np.nan, values))).all()


@pytest.mark.parametrize("correlation", [0, 0.5])
def test_a_flat_loss_with_correlated_noise_is_found_and_a_falling_one_is_not(correlation):
    """A loss that keeps 35 % of itself from the middle to the end is called a plateau in less than 2 % of the runs."""
    random, flat, falling = np.random.default_rng(1), [], []
    steps = np.arange(1, LENGTH + 1)
    rate = math.log(1 / 0.35) / (LENGTH / 2)
    for _ in range(100):
        deviation = noise(LENGTH, correlation, 0.03, random)
        flat.append(first_verdict(metrics(np.exp(deviation))))
        falling.append(first_verdict(metrics(2.3 * np.exp(deviation - rate * steps), 0.5))[0])
    assert np.mean([verdict == PLATEAUED for verdict, _ in flat]) > 0.95
    assert np.mean([step for _, step in flat]) < 60
    assert falling.count(PLATEAUED) < 2


# ------------------------------------------------------------------------------------------------------------- training

# Members that converge, stay noisy, guess and diverge; short, as its loss is far below that of the sweeps' length.
MADE = ["--data", "ticks", "--lr", 1e-3, 1e-1, 1e30, "--steps", 1000, "--log-every", 10, "--checkpoint-seconds", 0]


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """The same run without the rule and with it: folders `whole` and `clear`."""
    folder = tmp_path_factory.mktemp("clear")
    assert call("train", *MADE, "--out", folder / "whole") == 0
    assert call("train", *MADE, "--stop-when-clear", "--out", folder / "clear") == 0
    return folder


def replayed(whole):
    """Where the run without the rule would have stopped: the first logged step at which every member is decided."""
    for position, step in enumerate(whole.metrics["step"]):
        cut = {name: whole.metrics[name][: position + 1] for name in SERIES}
        cut["diverged_at"] = [None if at is None or at > step else at for at in whole.metrics["diverged_at"]]
        found = [regimes.early_verdict(cut, index, regimes.circumstances_of(whole)) for index in range(3)]
        if None not in found:
            return position, found
    raise AssertionError("the rule never fires")


def test_a_run_stops_where_every_member_is_clear_and_says_why(clear):
    whole, run = Run(clear / "whole"), Run(clear / "clear")
    position, verdicts = replayed(whole)
    assert (verdicts[0], verdicts[2]) == (CONVERGED, DIVERGED)
    assert 200 <= run.last_step < 1000 and run.complete and run.settings["steps"] == 1000
    assert {name: run.metrics[name] for name in SERIES} == {
        name: whole.metrics[name][: position + 1] for name in SERIES
    }
    assert run.metrics["verdict"] == verdicts and "verdict" not in whole.metrics
    assert any("stopped when clear: converged" in row["notes"] for row in table(clear))


def test_a_run_that_stops_when_clear_does_so_wherever_it_was_killed(clear, tmp_path):
    expected = strict_json(clear / "clear/metrics.json")
    for number, writes in enumerate((3, 2 * len(expected["step"]) - 3, 2 * len(expected["step"]) - 1)):
        command = ["train", *MADE, "--stop-when-clear", "--out", tmp_path / str(number)]
        assert not survives(command, writes)
        assert call(*command) == 0
        assert strict_json(tmp_path / str(number) / "metrics.json") == expected


def test_its_length_stays_and_it_is_no_run_without_the_rule(clear, capsys):
    before = contents(clear / "clear")
    for change in (["--steps", 2000], ["--steps", 500]):
        capsys.readouterr()
        assert call("train", *MADE, "--stop-when-clear", *change, "--out", clear / "clear") == 3
        assert "stops when clear hangs on its length" in one_line(capsys)
    assert call("train", *MADE, "--out", clear / "clear") == 3
    assert call("train", *MADE, "--stop-when-clear", "--out", clear / "clear") == 0
    assert contents(clear / "clear").keys() == before.keys()
    assert all(contents(clear / "clear")[name] == before[name] for name in before)


def test_runs_that_stop_elsewhere_are_compared_and_so_are_what_continues_them(tmp_path):
    """Where a run stopped is no length of its own, and children that begin there are repeats of each other."""
    for lr in (1e-3, 1e-1):
        folder = tmp_path / f"pretrain/plr{lr}"
        made = ["--data", "ticks", "--lr", lr, "--steps", 1000, "--log-every", 10]
        assert call("train", *made, "--stop-when-clear", "--out", folder) == 0
        assert call("finetune", folder, "--lr", 1e-4, "--steps", 20, "--out", tmp_path / "finetune") == 0
    study = Study(tmp_path)
    ends = [run.last_step for run in study.of_stage("pretrain")]
    begins = {run.path.name: run.settings["first_step"] for run in study.of_stage("finetune")}
    assert len({*ends}) == 2 and max(ends) < 1000 and sorted(begins.values()) == sorted(ends)
    assert study.lines() == [] and study.flrs() == [1e-4]
    assert all(run.settings["stop_when_clear"] is False for run in study.of_stage("finetune"))


def test_a_verdict_that_is_no_such_word_is_refused(clear, tmp_path):
    for name in ("config.json", "metrics.json"):
        (tmp_path / name).write_text((clear / "clear" / name).read_text())
    found = strict_json(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text(json.dumps(found | {"verdict": [None] * 3}))
    with pytest.raises(Exception, match="status is complete and settings.steps 1000"):
        Run(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(found | {"verdict": ["fine"] * 3}))
    with pytest.raises(Exception, match=r"verdict\[0\] is 'fine'"):
        Run(tmp_path)


# ------------------------------------------------------------------------------------------------------------ benchmark


def test_the_benchmark_tells_right_verdicts_from_wrong_ones():
    """A loss that stays for 80 epochs and then falls to nothing is what the rule cannot foresee."""
    steps = np.arange(1, LENGTH + 1)
    late = metrics(np.where(steps < 80, 1, 1e-4), np.where(steps < 80, 0.5, 1))
    assert first_verdict(late) == (PLATEAUED, 20)
    assert bench.final_verdict(late, 0, OF_IMAGES) == CONVERGED
    rows = [
        {"plr": 1, "early": early, "whole": whole, "agrees": whole in bench.AGREES[early], "part": part}
        for early, whole, part in (
            (PLATEAUED, CONVERGED, 0.2),
            (CONVERGED, CONVERGED, 0.5),
            (None, bench.NOISY, 1),
        )
    ]
    lines = bench.lines(rows)
    assert "1 of 2 early verdicts wrong, n = 3 runs; 43 % of epochs saved" in lines
    assert lines[-1] == "  wrong: PLR 1, plateaued at 0.20"


def test_the_benchmark_reads_run_folders(clear):
    found = bench.replays(clear)
    whole = Run(clear / "whole")
    assert [row["plr"] for row in found] == [
        1e-3,
        1e-1,
        1e30,
    ]  # that which stopped has no whole run to compare with
    for index, row in enumerate(found):
        verdict, step = bench.replay(whole.metrics, index, regimes.circumstances_of(whole))
        assert (row["early"], row["part"]) == (verdict, step / 1000)
