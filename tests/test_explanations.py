"""What is said of boundaries: why they are open, how far runs are, and of figures that are not drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_analyze import EPOCHS, IMAGES, PLRS, command, set_network, write_run, write_study

from data.analysis import boundaries
from data.analysis.claims import judge
from data.analysis.explanations import boundary_lines, convergence_bracket, convergence_lines
from data.analysis.regimes import FALLS, TOO_SHORT, measure_regimes, run_numbers, still_falls, why_unfinished
from data.analysis.runs_table import table
from data.analysis.study import Study
from data.commandline import BadInput

# Whether training is finished


def metrics_of(losses, every=1, accuracy=0.5):
    steps = [every * index for index in range(len(losses))]
    return {
        "step": steps,
        "train_loss": [[loss] for loss in losses],
        "train_accuracy": [[accuracy]] * len(losses),
        "diverged_at": [None],
    }


@pytest.mark.parametrize("count, every", [(5, 1), (10, 1), (20, 1), (20, 7), (200, 1), (201, 2)])
def test_a_loss_that_falls_steadily_still_falls_and_one_that_stays_does_not(count, every):
    falling = [2 - 1.8 * step / count for step in range(count + 1)]
    assert still_falls(metrics_of(falling, every), 0)
    assert not still_falls(metrics_of(falling[::-1], every), 0)
    assert not still_falls(metrics_of([10.0] + [1.0] * count, every), 0)
    assert not still_falls(metrics_of([10.0] + [0.0] * count, every), 0)


def test_by_how_much_a_loss_must_fall():
    """Without noise: of the last four epochs the later two lie below 95 % of the earlier two."""
    for later, expected in ((0.951, False), (0.949, True)):
        step = (1 - later) / 2  # a line through means of 1 and `later`, two epochs apart
        line = [1 + step * (0.5 - index) for index in range(4)]
        assert still_falls(metrics_of([10.0] * 17 + line), 0) is expected


def test_a_fall_must_stand_out_from_noise():
    """Deviations of +-d about a line that falls by 0.1 from half to half of the last four: d * (1, -1, -1, 1) has no slope
    and leaves both means, so the error is sqrt(4 d^2 / 2) = sqrt(2) d."""
    for deviation, expected in ((0.0235, True), (0.0237, False)):  # 0.1 / 3 / sqrt(2) = 0.02357
        line = 1 - 0.05 * np.arange(4) + deviation * np.array([1, -1, -1, 1])
        assert still_falls(metrics_of([10.0] * 17 + line.tolist()), 0) is expected


def test_of_stationary_noise_few_runs_are_called_unfinished():
    random = np.random.default_rng(0)
    found = [still_falls(metrics_of([10.0, *random.lognormal(0, 0.2, 60)]), 0) for _ in range(1000)]
    assert np.mean(found) < 0.02  # the normal law beyond three standard errors, and little data


def test_nothing_is_said_of_runs_that_are_too_short_or_not_finite():
    assert not still_falls(metrics_of([10.0, 5.0, 2.0, 1.0]), 0)
    assert still_falls(metrics_of([10.0, 8.0, 5.0, 2.0, 1.0]), 0)
    assert not still_falls(metrics_of([10.0, 8.0, 5.0, None, 1.0]), 0)


@pytest.mark.parametrize("count, why", [(20, FALLS), (4, FALLS), (3, TOO_SHORT), (1, TOO_SHORT)])
def test_runs_that_converged_diverged_or_never_converge_are_not_unfinished(count, why):
    losses = [2 ** (-epoch) for epoch in range(count + 1)]
    assert why_unfinished(metrics_of(losses), 0, 0.999) == why
    assert why_unfinished(metrics_of(losses, accuracy=1.0), 0, 0.999) is None
    assert why_unfinished(metrics_of(losses), 0, None) is None
    assert why_unfinished(metrics_of(losses) | {"diverged_at": [count]}, 0, 0.999) is None


def write_falling(folder, plrs):
    """Make the train loss of pre-trainings at these PLRs fall to the end, by a fifth from the last tenth but one."""
    for plr in plrs:
        path = folder / f"pretrain/{plr}/metrics.json"
        metrics = json.loads(path.read_text())
        metrics["train_loss"] = [[10 * 0.9**epoch] for epoch in range(EPOCHS + 1)]
        path.write_text(json.dumps(metrics))


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "runs")
    return tmp_path / "runs"


def test_a_boundary_is_open_next_to_unfinished_training(study, tmp_path, monkeypatch, capsys):
    write_falling(study, [1e-2])
    assert measure_regimes(Study(study)) == {"b12": None, "b2AB": None, "b23": {"last": 1e-1, "next": 1.0}}
    why = "training at PLR 1e-2 is not finished, its train loss still falls; train longer (--steps)"
    assert boundary_lines(Study(study))[:2] == [
        f"boundary 1|2: not bracketed by these runs: {why}",
        "boundary 2A|2B: not bracketed by these runs, as 1|2 is not",
    ]
    [f4] = [verdict for verdict in judge(Study(study)) if verdict["claim"] == "F4"]
    assert f4["missing"].startswith(
        "regime 2A: its boundary 1|2 is not bracketed by these runs: training at PLR 1e-2"
    )
    with pytest.raises(
        BadInput, match="do not bracket the boundary of regimes 1 and 2: training at PLR 1e-2 is not"
    ):
        command(monkeypatch, "boundary", study)
    out, err = capsys.readouterr()
    assert out == "" and "PLR 1e-2: train accuracy 80 %, train loss 1.28, not finished: the loss of 1 of 1" in err


def test_unfinished_training_elsewhere_leaves_boundaries(study):
    before = measure_regimes(Study(study))
    write_falling(study, [1e-4, 1e-1])  # far below it, and above
    assert measure_regimes(Study(study)) == before


def test_half_of_the_runs_of_a_plr_must_be_unfinished(study):
    write_falling(study, [1e-2])
    for seed in (2, 3):
        member, losses = {"lrs": [1e-2], "seed": seed}, [[10] + [1] * EPOCHS]
        assert (measure_regimes(Study(study))["b12"] is None) == (seed < 4)
        write_run(study / f"{seed}", "pretrain", [member], IMAGES, train_loss=losses, train_accuracy=[0.8])
    assert measure_regimes(Study(study))["b12"]["last"] == 1e-3


def test_training_longer_that_does_not_converge_closes_the_boundary_before_unfinished_training(study):
    write_falling(study, [1e-2])
    member = {"lrs": [5e-3], "seed": 1}
    write_run(study / "converge", "pretrain", [member], IMAGES | {"until_loss": 0.05}, train_loss=[1.0])
    assert measure_regimes(Study(study))["b12"] == {"last": 1e-3, "next": 5e-3}


def test_regime_3_is_open_where_training_at_chance_is_not_finished(study):
    write_falling(study, [1.0])
    path = study / "pretrain/1.0/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["train_loss"] = [[10]] + [[10 - epoch / 4] for epoch in range(EPOCHS)]
    path.write_text(json.dumps(metrics))
    assert measure_regimes(Study(study))["b23"] is None
    assert boundary_lines(Study(study))[2].startswith(
        "boundary 2|3: not bracketed by these runs: training at PLR 1e0 is"
    )


# Slow or short training


def test_a_sweep_whose_loss_falls_with_the_plr_is_undertrained(tmp_path, monkeypatch, capsys):
    """At 1e-1 noise keeps the loss up; below it no run has converged, as training was short."""
    write_study(tmp_path, train=(0.3, 0.5, 0.7, 0.6, 0.1), loss=(4, 3, 1, 2, 9))
    assert measure_regimes(Study(tmp_path))["b12"] is None
    why = "training at PLR 1e-4 is slow, as its late train loss is higher than at a larger PLR; train longer (--steps)"
    assert boundary_lines(Study(tmp_path))[0] == f"boundary 1|2: not bracketed by these runs: {why}"
    with pytest.raises(BadInput) as error:
        command(monkeypatch, "boundary", tmp_path)
    assert str(error.value).endswith(why) and not capsys.readouterr().out
    slow = [line.split(":")[0] for line in convergence_lines(Study(tmp_path)) if "slow: the loss is lower" in line]
    assert slow == ["PLR 1e-4", "PLR 1e-3"]
    command(monkeypatch, "claims", tmp_path, "--json", tmp_path / "claims.json")
    out = capsys.readouterr().out
    assert out.count(why) == 1 and "regime 2A: its boundary 1|2 is open, see above" in out
    assert out.count("2A|2B is open, see above") == out.count("regime 2B: ") == 1
    [f3] = [
        found for found in json.loads((tmp_path / "claims.json").read_text())["claims"] if found["claim"] == "F3"
    ]
    assert f3["missing"].endswith(why)
    command(monkeypatch, "claims", tmp_path, "--verbose")
    assert capsys.readouterr().out.count(why) > 10  # whole verdicts


@pytest.mark.parametrize(
    "loss, is_slow",
    [
        ((1, 1.2, 0.94, 2, 9), True),  # not by the next larger PLR
        ((1, 1.2, 0.96, 2, 9), False),
        ((1, 1.2, 1.3, 2, 0.5), True),
        ((1, None, None, None, None), False),
        ((None, 1, 1, 1, 1), False),  # one that diverged is not slow
        ((9, 9, 9, 8, 8), True),  # whose accuracies are above chance
    ],
)
def test_slow_training_is_told_from_noisy_training_by_larger_plrs(tmp_path, loss, is_slow):
    write_study(tmp_path, train=(0.9,) * 5, test=(0.5, 0.5, 0.5, 0.5, 0.5), loss=loss)
    line = boundary_lines(Study(tmp_path))[0]
    assert ("is slow" in line, "add smaller learning rates" in line) == (is_slow, not is_slow)


def test_the_loss_at_chance_does_not_make_a_plr_slow(tmp_path):
    """At 1e-1 and above runs are at chance, where the loss is that of guessing; in regime 2 it may be as high."""
    write_study(tmp_path, test=(0.5, 0.6, 0.4, 0.1, 0.1), loss=(0, 0, 9, 8, 8))
    assert measure_regimes(Study(tmp_path))["b12"] == {"last": 1e-3, "next": 1e-2}


def test_undertrained_runs_at_chance_are_no_regime_3(tmp_path):
    write_study(tmp_path, train=(0.1,) * 5, test=(0.1,) * 5, loss=(9, 8, 7, 6, 6))
    assert [line.split(":")[2].split(",")[0] for line in boundary_lines(Study(tmp_path))[::2]] == [
        " training at PLR 1e-4 is slow"
    ] * 2


def test_a_boundary_is_open_next_to_a_plr_that_is_slow(tmp_path):
    """Above the largest PLR that converges the loss is higher than at a larger one: noise would not do that."""
    write_study(tmp_path, loss=(0, 0, 3, 2, 9))
    assert measure_regimes(Study(tmp_path))["b12"] is None
    assert "training at PLR 1e-2 is slow" in boundary_lines(Study(tmp_path))[0]


def write_short(folder, converged, diverged=(), at_chance=()):
    """Pre-trainings of three epochs, of which those at these PLRs converged, diverged, or are at chance."""
    for plr, loss in zip(PLRS, (0.1, 0.1, 1, 2, 3)):
        member, loss = {"lrs": [plr], "seed": 1}, 9 if plr in at_chance else loss
        series = {"train_loss": [[10, 5, loss, loss]], "train_accuracy": [1.0 if plr in converged else 0.5]}
        series["test_accuracy"] = [0.1 if plr in at_chance else 0.5]
        write_run(folder / f"{plr}", "pretrain", [member], IMAGES, final_step=3, **series)
        if plr in diverged:
            path = folder / f"{plr}/metrics.json"
            metrics = json.loads(path.read_text())
            path.write_text(json.dumps(metrics | {"diverged_at": [3], "train_loss": [[10], [5], [5], [None]]}))


@pytest.mark.parametrize("converged, plr", [((), "1e-4"), (PLRS[:2], "1e-2")])
def test_of_runs_that_logged_few_steps_no_boundary_is_drawn(tmp_path, converged, plr):
    write_short(tmp_path, converged)
    assert measure_regimes(Study(tmp_path))["b12"] is None
    assert boundary_lines(Study(tmp_path))[0] == (
        f"boundary 1|2: not bracketed by these runs: training at PLR {plr} logged too few steps to tell if it is finished; "
        f"train longer (--steps) or log more often (--log-every)"
    )
    assert ["too few" in line for line in convergence_lines(Study(tmp_path))] == [p not in converged for p in PLRS]
    noted = {
        found["lrs"][0] for found in table(tmp_path) if "too few steps are logged" in " ".join(found["notes"])
    }
    assert noted == {*PLRS} - {*converged}


@pytest.mark.parametrize("end", ["diverged", "at_chance"])
def test_short_runs_that_diverged_or_are_at_chance_are_finished(tmp_path, end):
    write_short(tmp_path, PLRS[:2], **{end: PLRS[2:]})
    assert measure_regimes(Study(tmp_path))["b12"] == {"last": 1e-3, "next": 1e-2}


# Why boundaries are open


@pytest.mark.parametrize(
    "changes, title, why",
    [
        (
            {"train": (1, 1, 1, 1, 1)},
            "1|2",
            "the largest learning rate, 1e0, converges; add larger learning rates",
        ),
        ({"train": (0.9,) * 5}, "1|2", "none converges, from PLR 1e-4 on; add smaller learning rates"),
        ({"loss": (9,) * 5, "test": (0.1,) * 5}, "2|3", "every PLR is at chance, from 1e-4 on; add smaller"),
        ({"loss": (1,) * 5}, "2|3", "the largest PLR, 1e0, is not at chance; add larger learning rates"),
    ],
)
def test_what_would_bracket_a_boundary_is_said(tmp_path, changes, title, why):
    write_study(tmp_path, **changes)
    [line] = [line for line in boundary_lines(Study(tmp_path)) if line.startswith(f"boundary {title}: ")]
    assert line.startswith(f"boundary {title}: not bracketed by these runs: {why}")


def line_of_2a(folder):
    return boundary_lines(Study(folder))[1].removeprefix("boundary 2A|2B: ")


def test_where_2a_ends_is_open_for_several_reasons(study):
    open_by = "not bracketed by these runs: "
    for path in study.glob("finetune/0.1-*/config.json"):
        path.unlink()
    assert line_of_2a(study) == (
        f"{open_by}fine-tuning at two or more FLRs is missing at PLR 1e-1; finetune.py makes it"
    )
    for path in study.glob("finetune/0.01-*/config.json"):
        path.unlink()
    assert line_of_2a(study).startswith(f"{open_by}fine-tuning at two or more FLRs is missing at PLR 1e-2;")
    for flr, accuracy in ((1e-5, 0.3), (1e-4, 0.5)):
        member = {"lrs": [1e-2, flr], "seed": 1}
        write_run(study / f"{flr}", "finetune", [member], IMAGES, test_accuracy=[accuracy])
    assert line_of_2a(study) == "missing, as no PLR above 1|2 meets the criterion of 2A"


def test_2a_up_to_the_largest_plr_is_open(study):
    set_network(study, diverges=False)
    for path in study.glob("finetune/*/metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["test_accuracy"] = [[0.7]] * (EPOCHS + 1)
        path.write_text(json.dumps(metrics))
    assert line_of_2a(study) == (
        "not bracketed by these runs: the largest PLR, 1e0, is of 2A; add larger learning rates"
    )


# Where runs that train until they converge tell more


def write_convergence(folder, lr, reached, seed=1):
    member, settings = {"lrs": [lr], "seed": seed}, IMAGES | {"until_loss": 0.05}
    losses = [[10, 1, 0.04 if reached else 1]]
    write_run(folder / f"converge/{lr}-{seed}", "pretrain", [member], settings, final_step=2, train_loss=losses)


def test_figures_and_claims_draw_the_boundary_that_longer_training_tells(study, tmp_path, monkeypatch):
    before = measure_regimes(Study(study))
    write_convergence(study, 3e-3, True)
    write_convergence(study, 5e-3, False)
    expected = before | {"b12": {"last": 3e-3, "next": 5e-3}}
    assert measure_regimes(Study(study)) == expected
    command(monkeypatch, "figures", study, "--only", 11, "--out", tmp_path)
    command(monkeypatch, "claims", study, "--json", tmp_path / "claims.json")
    for name in ("figure11", "claims"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["regimes"] == expected
    assert convergence_bracket(Study(study), refined=False) == (1e-3, 1e-2)
    width, *_ = boundaries.width_of_2a(run_numbers(Study(study)))
    assert width == pytest.approx(np.sqrt(1e-2 * 1e-1 / (3e-3 * 5e-3)))


def test_a_plr_that_converges_when_trained_longer_belongs_to_regime_1(study):
    write_convergence(study, 1e-2, True)
    found = measure_regimes(Study(study))
    assert found["b12"] == {"last": 1e-2, "next": 1e-1}
    assert found["b2AB"] is None  # at 1e-1 fine-tuning depends on the FLR


def test_a_plr_that_does_not_converge_when_trained_longer_is_not_undertrained(study):
    """Its loss still falls at the end of pre-training, so that it tells no boundary, before longer training does."""
    falling = [[10] * (EPOCHS - 3) + [4, 3, 2, 1]]
    path = study / "pretrain/0.01/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"train_loss": [list(row) for row in zip(*falling)]}))
    assert measure_regimes(Study(study))["b12"] is None
    write_convergence(study, 1e-2, False)
    assert measure_regimes(Study(study))["b12"] == {"last": 1e-3, "next": 1e-2}


def test_shares_of_resamples_are_those_of_the_narrowed_place(tmp_path):
    members = [{"lrs": [plr], "seed": seed} for plr in PLRS[:3] for seed in (1, 2)]
    series = {"train_accuracy": [1, 1, 1, 0.9, 0.5, 0.5], "train_loss": [[10] + [1] * EPOCHS] * 6}
    write_run(tmp_path / "a", "pretrain", members, IMAGES, **series)
    grid = measure_regimes(Study(tmp_path))["b12"]
    write_convergence(tmp_path, 2e-3, True)
    write_convergence(tmp_path, 4e-3, False)
    found = measure_regimes(Study(tmp_path))["b12"]
    # Resamples in which 1e-3 does not converge by its pre-trainings have the same boundary now.
    assert (grid["last"], grid["next"], grid["range"]) == (1e-3, 1e-2, [1e-4, 1e-2])
    assert found == {"last": 2e-3, "next": 4e-3, "shares": {2e-3: 1.0}, "range": [2e-3, 4e-3]}


# Figures


def test_figures_asked_for_are_drawn_where_others_cannot_be(study, tmp_path, monkeypatch, capsys):
    with pytest.raises(BadInput) as error:
        command(monkeypatch, "figures", study, "--only", 3, 5, 1, 12, "--out", tmp_path)
    message = str(error.value)
    assert (tmp_path / "figure01.pdf").exists() and len(list(tmp_path.glob("figure*.json"))) == 1
    assert message.startswith("--only: 3 of 4 figures are not drawn: figure 3: ")
    assert "figure 5: --only 5: is not about images" in message
    assert "figure 12: " in message and "\n" not in message


def test_how_far_every_plr_converged_goes_to_the_standard_error(study, monkeypatch, capsys):
    command(monkeypatch, "boundary", study)
    out, err = capsys.readouterr()
    assert out == "1e-3 1e-2\n"
    assert err.splitlines() == convergence_lines(Study(study))
    assert err.splitlines()[2] == "PLR 1e-2: train accuracy 80 %, train loss 1"
    assert len(err.splitlines()) == len(PLRS)


# The table of several experiments


def test_the_table_of_boundaries(tmp_path, monkeypatch, capsys):
    regimes = {
        "b12": {"last": 0.007498942, "next": 0.01, "shares": {"0.007498942": 0.481}, "range": [1e-3, 2e-2]},
        "b2AB": {"last": 1.0, "next": 2.0},
        "b23": None,
    }
    path = tmp_path / "mine/claims.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"experiment": {"model": "vit", "width": 8, "data": "toy"}, "regimes": regimes}))
    command(monkeypatch, "boundaries", path)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| vit, width 8, toy | mine | 7.5e-3 to 1e-2 (48 % of 1000 resamples; 1e-3 to 2e-2) | 1e0 to 2e0 (single runs) "
        "| not bracketed |"
    ]
    for content in ([], {"experiment": {}}, {"experiment": {}, "regimes": {"b12": 1}}):
        path.write_text(json.dumps(content))
        with pytest.raises(BadInput, match="is not what `analyze.py claims --json` writes"):
            command(monkeypatch, "boundaries", path)


def test_the_committed_table_is_of_the_committed_claims(monkeypatch, capsys):
    results = Path(__file__).parent.parent / "results"
    command(monkeypatch, "boundaries", *sorted(results.glob("*/claims.json"), key=str))
    assert capsys.readouterr().out in (results / "README.md").read_text()
