"""What is said of boundaries: why they are open, how far runs are, and of figures that are not drawn."""

import json

import numpy as np
import pytest
from test_analyze import EPOCHS, IMAGES, PLRS, command, set_network, write_run, write_study

from data.analysis import boundaries
from data.analysis.claims import judge
from data.analysis.explanations import boundary_lines, convergence_bracket, convergence_lines
from data.analysis.regimes import is_unfinished, measure_regimes, run_numbers, still_falls
from data.analysis.study import Study
from data.commandline import BadInput

# Whether training is finished


def metrics_of(losses, every=1, accuracy=0.5):
    steps = [every * index for index in range(len(losses))]
    return {
        "step": steps,
        "train_loss": [[loss] for loss in losses],
        "train_accuracy": [[accuracy]] * len(losses),
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


def test_a_run_that_has_converged_and_one_that_never_does_are_not_unfinished():
    losses = [2 ** (-epoch) for epoch in range(21)]
    assert is_unfinished(metrics_of(losses), 0, 0.999)
    assert not is_unfinished(metrics_of(losses, accuracy=1.0), 0, 0.999)
    assert not is_unfinished(metrics_of(losses), 0, None)


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
