"""The runs of one experiment, read from their folders, and the boundaries between its regimes.

study = Study(folder)
study.by_plr("pretrain", final("test_accuracy"))           {PLR: [a value per run]}
study.by_plr("finetune", final("test_accuracy"), flr)
study.by_plr("swa", of_average(5))
measure_regimes(study)                                      {"b12": {"last": PLR, "next": PLR}, ...}
"""

import functools

import numpy as np

from data.commandline import BadInput
from data.runs import find_runs, geometry_name, sharpness_name


class Study:
    """The complete runs of one experiment, which share data, network, batch size and radius.

    Raises BadInput where they do not, or where no pre-training is among them.
    """

    shared = ("data", "digest", "classes", "model", "width", "batch_size", "rho", "precision", "augment")

    def __init__(self, folder):
        self.folder = folder
        every_run = find_runs(folder)
        self.runs = [run for run in every_run if run.complete]
        self.incomplete = len(every_run) - len(self.runs)
        self._by_path = {run.path.resolve(): run for run in self.runs}
        if not self.of_stage("pretrain"):
            raise BadInput(f"{folder}: holds no complete pre-training run; make some with train.py")
        first, *others = self.runs
        for other in others:
            for name in self.shared:
                if other.settings.get(name) != first.settings.get(name):
                    raise BadInput(self._difference(first, other, name))
        self.refuse_unlike_runs()
        self.settings = {name: first.settings[name] for name in self.shared if name in first.settings}

    def of_stage(self, stage):
        """The runs of a stage: `pretrain`, `converge`, `finetune` or `swa`.

        Pre-trainings that stop at a train loss (train.py --until-loss) have another length each: `converge` (figure 11).
        """
        return [run for run in self.runs if stage_of(run) == stage]

    def refuse_unlike_runs(self):
        """Raise BadInput where solutions of a stage are no repeats of each other, or one is there twice."""
        first_of_kind, seen = {}, {}
        for run in self.runs:
            for member in run.members:
                kind = (stage_of(run), len(member["lrs"]))
                first = first_of_kind.setdefault(kind, run)
                for name in ("first_step", "steps", "until_loss", "spacing", "anchor"):
                    if run.settings.get(name) != first.settings.get(name):
                        raise BadInput(self._difference(first, run, name))
                solution = (*kind, *member["lrs"], member["seed"], member.get("data_seed"))
                if seen.setdefault(solution, run) is not run:
                    raise BadInput(
                        f"{self.folder}: {seen[solution].path} and {run.path} hold the same learning rate and seed; "
                        f"remove one of them"
                    )

    def _difference(self, first, other, name):
        return (
            f"{self.folder}: {first.path} and {other.path} differ in {name} ({first.settings.get(name)} and "
            f"{other.settings.get(name)}); give the folder of one experiment"
        )

    def by_plr(self, stage, value, *later_lrs):
        """{PLR: [value(run, member index) of every member]}, in order of PLRs, where the value is not None.

        stage: `pretrain`; `converge`; `finetune`, at an FLR, or with other stages before it at several later_lrs; or `swa`.
        """
        values = {}
        for run in self.of_stage(stage):
            for index, member in enumerate(run.members):
                plr, *later = member["lrs"]
                if later == list(later_lrs):
                    values.setdefault(plr, []).append(value(run, index))
        values = {plr: [value for value in values[plr] if value is not None] for plr in sorted(values)}
        return {plr: of_plr for plr, of_plr in values.items() if of_plr}

    def flrs(self):
        """The learning rates of fine-tunings of pre-trained runs, in order.

        Runs that are fine-tuned further, at another rate, are second stages of pre-training (figure 12) and left out.
        """
        every_lrs = [member["lrs"] for run in self.runs for member in run.members]
        second_stages = [lrs[:2] for lrs in every_lrs if len(lrs) > 2 and lrs[2] != lrs[1]]
        return sorted({lrs[1] for lrs in every_lrs if len(lrs) == 2 and lrs not in second_stages})

    def at(self, value, lrs):
        """The values of runs whose stages had these learning rates, one after the other; empty where there are none."""
        plr, *later = lrs
        return self.by_plr("finetune" if later else "pretrain", value, *later).get(plr, [])

    def from_scratch(self, value, lr):
        """(values of the runs that trained at one learning rate throughout for longest, for how many steps)."""
        for stages in (3, 2, 1):
            values = self.at(value, [lr] * stages)
            if values:
                [steps, *_] = self.at(lambda run, _: run.settings["first_step"] + run.last_step, [lr] * stages)
                return values, steps
        return [], 0

    def two_stage_lrs(self):
        """The (PLR, PLR of the second stage, FLR) of all runs that were pre-trained in two stages (figure 12)."""
        every_lrs = {tuple(member["lrs"]) for run in self.of_stage("finetune") for member in run.members}
        return sorted(lrs for lrs in every_lrs if len(lrs) == 3 and lrs[0] != lrs[1])

    def parent(self, run):
        """The run that a run continues, or None where it is not here."""
        origin = run.config["parent"]
        return self._by_path.get((run.path / origin["run"]).resolve()) if origin else None

    def extreme_flrs(self):
        """The lowest and the highest of flrs(). Raises BadInput where there are fewer than two."""
        flrs = self.flrs()
        if len(flrs) < 2:
            raise BadInput(f"{self.folder}: holds fine-tuning at fewer than two FLRs; make it with finetune.py")
        return flrs[0], flrs[-1]

    def continuation(self, run, stage, *later_lrs):
        """The run of a stage that continues a run, its members in the same order, at these later learning rates.

        Raises BadInput where there is none.
        """
        members = [{**member, "lrs": member["lrs"] + list(later_lrs)} for member in run.members]
        for other in self.runs:
            if other.config["stage"] == stage and self.parent(other) is run and other.members == members:
                return other
        what = f"fine-tuning at {later_lrs[0]:.4g}: finetune.py" if later_lrs else "SWA: swa.py"
        raise BadInput(f"{run.path}: is not continued by a complete {what} {run.path} ... makes it")

    def windows(self):
        """The numbers of weights averaged by SWA runs, in order."""
        return sorted({window for run in self.runs for window in run.settings.get("windows", [])})


def stage_of(run):
    """The stage of a run as Study.of_stage() names them."""
    stage = run.config["stage"]
    return "converge" if stage == "pretrain" and run.settings["until_loss"] is not None else stage


def final(name):
    """A function (run, member index) -> the last value of a series of metrics.json."""
    return lambda run, index: run.metrics[name][-1][index]


def late_values(name):
    """A function (run, member index) -> values of a series in the last tenth of the run (epochs 181-200 of 200)."""

    def values(run, index):
        steps = run.metrics["step"]
        late = [step > 0.9 * steps[-1] or step == steps[-1] for step in steps]
        return [row[index] for row, is_late in zip(run.metrics[name], late) if is_late]

    return values


def late_mean(name):
    """A function (run, member index) -> mean of late_values; NaN where one was not finite."""
    return lambda run, index: np.mean([np.nan if v is None else v for v in late_values(name)(run, index)])


def of_average(window, name="test_accuracy"):
    """A function (run, member index) -> a measurement of the SWA average of `window` weights; None where not made."""

    def value(run, index):
        swa = run.metrics["swa"]
        return swa[name][swa["window"].index(window)][index] if window in swa["window"] else None

    return value


@functools.cache  # every pair, stage and solution asks for them
def measurement(run, name):
    return run.measurement(name)


def features_of(solution):
    """A function (run, member index) -> its 16 single-feature accuracies, best first; None where not measured."""

    def value(run, index):
        features = measurement(run, "features")
        if features is None or solution not in features["solution"]:
            return None
        of_members = features["single_feature_accuracy"][features["solution"].index(solution)]
        return sorted(of_members[index], reverse=True)

    return value


GEOMETRY_PAIRS = ("LH", "SH", "SL")  # L, H: fine-tuned at the low and the high FLR; S: SWA (paper, section 4)
GEOMETRY_WINDOW = 5  # weights in that average; figure 17 shows the same one


def geometry_of(low, high, quantity, pair):
    """A function (run, member index) -> `angle`, `train_barrier` or `test_barrier` of a pair; None where not measured."""
    return of_measurement(geometry_name(low, high), quantity, pair)


def of_measurement(name, *keys):
    """A function (run, member index) -> what a measurement holds for a member under nested keys; None where not made."""

    def value(run, index):
        found = measurement(run, name)
        for key in keys:
            found = found and found.get(key)
        return found and found[index]

    return value


CONVERGED_ACCURACY = 0.999  # train accuracy of a run that has converged
SAME_ACCURACY = 0.01  # test accuracies no further apart count as the same
CHANCE_LOSS = 0.5  # at chance, train loss is at least this part of its initial value


@functools.cache  # every figure of a study asks for them
def measure_regimes(study):
    """The boundaries between regimes (paper, sections 3 and 4), each between two neighbours of the PLR grid.

    Returns {"b12", "b2AB", "b23"}, each {"last": PLR, "next": PLR}: the last PLR below the boundary and the first
    above it; None where the grid does not bracket the boundary. The thresholds are this project's.

    b12: `last` is the largest PLR at which at least half of the runs converge, that is, have a train accuracy of
        99.9 % averaged over the last tenth of the run. (Smaller PLRs that are not there yet are slow, not noisy.)
    b23: `next` is the smallest PLR from which on every PLR is at chance, as means over runs and the last tenth of
        each: test accuracy at most 1 pp above chance, and train loss at least half of its initial value.
    b2AB: `last` is the end of subregime 2A: the last PLR of regime 2 from which fine-tuning reaches the same test
        accuracy at every FLR, and no worse a one than the best of regime 1's pre-training. Means over runs are the
        same within 1 pp or two standard errors of their difference, whichever is more.
    """
    test_accuracy = means(study.by_plr("pretrain", late_mean("test_accuracy")))
    plrs = list(test_accuracy)
    loss_kept = means(study.by_plr("pretrain", late_part_of_initial_loss))
    chance = 1 / study.settings["classes"]
    trains = [plr for plr in plrs if test_accuracy[plr] > chance + SAME_ACCURACY or loss_kept[plr] < CHANCE_LOSS]
    b12, b23 = boundary(converging_plrs(study), plrs), boundary(trains, plrs)
    inside = [plr for plr, meets in meet_2a(study, plrs, b12, b23).items() if meets]
    return {"b12": b12, "b2AB": boundary(inside, plrs), "b23": b23}


def converging_plrs(study):
    """The PLRs at which at least half of the runs converge, in order."""
    shares = means(study.by_plr("pretrain", has_converged))
    return [plr for plr, share in shares.items() if share >= 0.5]


def has_converged(run, index):
    return late_mean("train_accuracy")(run, index) >= CONVERGED_ACCURACY


def convergence_bracket(study, refined):
    """(the largest PLR that converges, the next one), see b12 of measure_regimes().

    If refined, runs between them that train until they converge narrow the bracket: a learning rate converges where at
    least half of these reach the loss at which they stop. Raises BadInput where the grid does not bracket the boundary.
    """
    b12 = measure_regimes(study)["b12"]
    if b12 is None:
        raise BadInput(
            f"{study.folder}: its pre-trainings do not bracket the boundary of regimes 1 and 2; add some"
        )
    shares = means(study.by_plr("converge", reaches_its_loss)) if refined else {}
    last = max([b12["last"], *(lr for lr, share in shares.items() if share >= 0.5)])
    above = [lr for lr in [*study.by_plr("pretrain", has_converged), *shares] if lr > last]
    if not above:
        raise BadInput(f"{study.folder}: no learning rate above {last:.3g}, which converges, was tried; add some")
    return last, min(above)


def reaches_its_loss(run, index):
    """Whether a run reached the train loss at which it was to stop."""
    loss = final("train_loss")(run, index)
    return loss is not None and loss < run.settings["until_loss"]


LATEST_CONVERGENCE = 1e-2  # train loss at which the paper's runs count as converged; they stop at 1e-4


def convergence_level(run):
    """The train loss below which a run that trains until it converges has converged (figure 11).

    It is 1e-2, or the loss at which the run stops where that is larger.
    """
    return max(LATEST_CONVERGENCE, run.settings["until_loss"])


def at_convergence(name):
    """A function (run, member index) -> a series of metrics.json where the run has converged; None where it has not."""

    def value(run, index):
        losses = [row[index] for row in run.metrics["train_loss"]]
        converged = [loss is not None and loss < convergence_level(run) for loss in losses]
        if not any(converged):
            return None
        found = run.metrics[name][converged.index(True)]
        return found if name == "step" else found[index]

    return value


def decades(norms):
    """Over how many decades norms spread: between their percentiles 0.5 and 99.5; those below 1e-30 count as that."""
    low, high = np.percentile(np.log10(np.maximum(norms, 1e-30)), (0.5, 99.5))
    return float(high - low)


def sharpness_points(study, level):
    """What figure 26 shows at a level of train loss, as dictionaries with `plr`, `flr` and what was measured there.

    These are pre-trainings of regime 1, whose `flr` is None, and fine-tunings from regime 2; none where it is unknown
    where regime 1 ends.
    """
    regimes, flrs, points = measure_regimes(study), study.flrs(), []
    if regimes["b12"] is None:
        return []
    end_of_1, end_of_2 = regimes["b12"]["last"], regimes["b23"]["last"] if regimes["b23"] else np.inf
    for run in study.runs:
        plr, *later = run.members[0]["lrs"]
        measured = measurement(run, sharpness_name(level))
        pretrained = stage_of(run) == "pretrain" and plr <= end_of_1
        tuned = len(later) == 1 and later[0] in flrs and end_of_1 < plr <= end_of_2
        if measured and (pretrained or tuned):
            values = {name: value[0] for name, value in measured.items() if isinstance(value, list)}
            points.append({"plr": plr, "flr": later[0] if tuned else None} | values)
    return sorted(points, key=lambda point: (point["flr"] is not None, point["plr"], point["flr"]))


def late_part_of_initial_loss(run, index):
    return late_mean("train_loss")(run, index) / run.metrics["train_loss"][0][index]


def meet_2a(study, plrs, b12, b23):
    """{PLR: whether it meets the criterion of 2A (see measure_regimes)} for those of regime 2 with two or more FLRs."""
    if b12 is None:
        return {}
    accuracy = final("test_accuracy")
    pretrained = study.by_plr("pretrain", accuracy)
    best_of_regime_1 = max((pretrained[plr] for plr in plrs if plr <= b12["last"]), key=np.mean)
    finetuned = [study.by_plr("finetune", accuracy, flr) for flr in study.flrs()]
    meets = {}
    for plr in plrs:
        reached = [curve[plr] for curve in finetuned if plr in curve]
        if plr > b12["last"] and not (b23 and plr > b23["last"]) and len(reached) >= 2:
            best, worst = max(reached, key=np.mean), min(reached, key=np.mean)
            meets[plr] = not is_worse(worst, best) and not is_worse(worst, best_of_regime_1)
    return meets


def is_worse(accuracies, others):
    """Whether the first mean is below the second by more than 1 pp and more than two standard errors."""
    return np.mean(others) - np.mean(accuracies) > max(SAME_ACCURACY, 2 * standard_error(accuracies, others))


def standard_error(values, others):
    """That of the difference of two means; a single value adds nothing, as its own is unknown."""
    return np.sqrt(sum(np.var(sample, ddof=1) / len(sample) for sample in (values, others) if len(sample) > 1))


def boundary(below, plrs):
    """The boundary above the largest of the PLRs `below`, or None where the grid has no PLR on both its sides."""
    if not below or max(below) == plrs[-1]:
        return None
    return {"last": max(below), "next": plrs[plrs.index(max(below)) + 1]}


def means(values_by_plr):
    return {plr: float(np.mean(values)) for plr, values in values_by_plr.items()}
