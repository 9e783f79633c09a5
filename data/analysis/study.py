"""The runs of one experiment, read from their folders, and values of their members.

study = Study(folder)
study.by_plr("pretrain", final("test_accuracy"))           {PLR: [a value per run]}
study.by_plr("finetune", final("test_accuracy"), flr)
study.by_plr("swa", of_average(5))
"""

import functools

from data.analysis import regimes
from data.analysis.choosing import (
    chosen_runs,
    fix_of_incomplete,
    incomplete_lines,
    named,
    refuse_differences,
    refuse_repeated,
    relative,
)
from data.analysis.lengths import Lengths, had_ended, kind_of, stage_of
from data.analysis.pairing import STAGES, Pairing, key_of
from data.commandline import BadInput
from data.runs import geometry_name

REESTIMATED = "re-estimated"  # batch-norm statistics that final test accuracies are of, as a setting
# Settings that say how long a run is and what it leaves on disk. All others are the same in all runs of an experiment.
LENGTHS_OF_A_STAGE = ("first_step", "steps", "until_loss", "spacing", "anchor")  # these within a stage
LENGTHS = (*LENGTHS_OF_A_STAGE, "log_every", "keep", "keep_loss", "windows", "stop_when_clear")


class Study:
    """The complete runs of one experiment, whose settings are the same but for LENGTHS.

    only, exclude: shell patterns that choose among the runs in the folder, see choosing.py. stages: those that are looked
    at; runs of others say only at which length these are. reestimated: whether test accuracies at the end of pre-training and
    fine-tuning are those with batch-norm statistics re-estimated over the training set. Runs that continue one that is
    not among them are `without_parent`, and `incomplete` those that are not complete; neither are in `runs`. Runs that were
    made longer are compared at the length of the others, see lengths.py.
    settings: those that are the same. network: what must be known of the network, see Run.network.
    Raises BadInput where runs differ, where no pre-training is among them, or where some lack what is reestimated.
    """

    def __init__(self, folder, only=(), exclude=(), stages=STAGES, reestimated=False):
        self.folder = folder
        every_run = chosen_runs(folder, only, exclude)
        self.without_parent = without_parent(every_run)
        self.lengths = Lengths([run for run in every_run if run not in self.without_parent])
        self.incomplete = [run for run in every_run if not run.complete and not self.lengths.at_length.get(run)]
        self.runs = [run for run in self.lengths.at_length.values() if run and stage_of(run) in stages]
        self._by_path = {run.path.resolve(): run for run in self.runs}
        if not self.of_stage("pretrain"):
            fix = fix_of_incomplete(folder, self.incomplete) or "make some with train.py"
            chosen = "--only-runs and --exclude leave" if only or exclude else "holds"
            raise BadInput(f"{folder}: {chosen} no complete pre-training run; {fix}")
        refuse_differences(folder, self.runs, {name for run in self.runs for name in run.settings} - {*LENGTHS})
        self._refuse_unlike_runs()
        first = self.runs[0]
        self.network = first.network
        self.settings = {name: value for name, value in first.settings.items() if name not in LENGTHS}
        if reestimated:
            self._take_reestimated_statistics()

    def of_stage(self, stage):
        """The runs of a stage: `pretrain`, `converge`, `finetune` or `swa`.

        Pre-trainings that stop at a train loss (train.py --until-loss) have a length each: `converge` (figure 11).
        """
        return [run for run in self.runs if stage_of(run) == stage]

    def _take_reestimated_statistics(self):
        """Let final() of the runs be with statistics that are re-estimated. Raises BadInput where some lack them.

        Those of SWA are re-estimated anyway, and training until convergence is not looked at in this way.
        """
        if not self.network["barrier"]["batch_norm"]:
            raise BadInput(f"{self.folder}: its network has no batch norm, whose statistics could be re-estimated")
        lacking = [
            run
            for run in self.of_stage("pretrain") + self.of_stage("finetune")
            if "reestimated" not in run.metrics
        ]
        if lacking:
            names = named(relative(run.path, self.folder) for run in lacking)
            raise BadInput(
                f"{self.folder}: accuracies with re-estimated batch-norm statistics are missing, as runs are of before they "
                f"were measured, or are compared as they were before they were made longer: {names}; --exclude skips them"
            )
        self.runs = [run.with_reestimated_statistics() for run in self.runs]
        self._by_path = {run.path.resolve(): run for run in self.runs}
        self.settings["test_statistics"] = REESTIMATED

    def _refuse_unlike_runs(self):
        """Raise BadInput where solutions of a stage are no repeats of each other, or one is there twice."""
        of_kinds, seen, repeated = {}, {}, []
        for run in self.runs:
            for member in run.members:
                of_kinds.setdefault(kind_of(run), {})[run] = None
                solution = (*kind_of(run), *member["lrs"], *key_of(member))
                if seen.setdefault(solution, run) is not run:
                    repeated.append((run, seen[solution]))
        for (stage, _), runs in of_kinds.items():
            # How long the longest may be, of those that stop at a train loss, makes no other runs of them.
            compared = {*LENGTHS_OF_A_STAGE} - {"first_step"} - ({"steps"} if stage == "converge" else set())
            refuse_differences(self.folder, list(runs), compared)
            # What continues a run that ended early begins where that stopped.
            refuse_differences(
                self.folder, [run for run in runs if not self._continues_ended(run)], {"first_step"}
            )
        refuse_repeated(self.folder, repeated)

    def _continues_ended(self, run):
        """Whether a run continues one that ended early, as its members all diverged or their regimes were clear."""
        parent = self.parent(run)
        return parent is not None and had_ended(parent, run.config["parent"]["step"])

    def lines(self):
        """What to say of runs that are skipped: incomplete ones, and ones whose parent is missing."""
        lines = incomplete_lines(self.folder, self.incomplete)
        if self.without_parent:
            names = named(relative(run.path, self.folder) for run in self.without_parent)
            lines.append(
                f"{self.folder}: the runs that these continue are not here, or excluded, so they are skipped: {names}"
            )
        return lines + self.lengths.lines(self.folder)

    def refuse_damaged(self):
        """Raise BadInput where measurements are there, but damaged: what is shown would lack them without a word."""
        damage = [line for run in self.runs for line in measurements(run)[1]]
        if damage:
            raise BadInput(named(damage, "; also "))

    def pairing_lines(self):
        """What to say of seeds that stages or PLRs lack, and others that are skipped for it where means are compared."""
        return [f"{self.folder}: {line}" for line in self.pairing.lines()]

    @functools.cached_property
    def pairing(self):
        """Which seeds are compared, see pairing.py."""
        members = [(stage_of(run), member["lrs"], key_of(member)) for run in self.runs for member in run.members]
        return Pairing(members, self.flrs())

    def is_compared(self, run, index):
        """Whether a member is among those whose seed all stages at its PLR have, or of a stage that is not compared."""
        member = run.members[index]
        return self.pairing.holds(stage_of(run), member["lrs"], key_of(member))

    def by_plr(self, stage, value, *later_lrs, every_seed=False):
        """{PLR: [value(run, member index) of every member]}, in order of PLRs, where the value is not None.

        stage: `pretrain`; `converge`; `finetune`, at an FLR, or with other stages before it at several later_lrs; or
        `swa`. Members are those whose seed all stages at their PLR have, see pairing.py, unless every_seed.
        """
        values = {}
        for run in self.of_stage(stage):
            for index, member in enumerate(run.members):
                plr, *later = member["lrs"]
                if later == list(later_lrs) and (every_seed or self.is_compared(run, index)):
                    values.setdefault(plr, []).append(value(run, index))
        values = {plr: [value for value in values[plr] if value is not None] for plr in sorted(values)}
        return {plr: of_plr for plr, of_plr in values.items() if of_plr}

    def flrs(self):
        """The learning rates of fine-tunings of pre-trained runs, in order.

        Runs that are fine-tuned further, at another rate, are second stages of pre-training (figure 12) and skipped.
        """
        every_lrs = [member["lrs"] for run in self.runs for member in run.members]
        second_stages = [lrs[:2] for lrs in every_lrs if len(lrs) > 2 and lrs[2] != lrs[1]]
        return sorted({lrs[1] for lrs in every_lrs if len(lrs) == 2 and lrs not in second_stages})

    def at(self, value, lrs):
        """The values of runs whose stages had these learning rates, one after the other; empty where there are none."""
        plr, *later = lrs
        return self.by_plr("finetune" if later else "pretrain", value, *later).get(plr, [])

    def from_scratch(self, value, lr):
        """(values of the runs that trained at one learning rate throughout for longest, their epochs or iterations)."""
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

    def whole(self, run):
        """A run as it is on disk, where it is compared as it was before it was made longer."""
        return next(whole for whole in self.lengths.at_length if whole.path == run.path)

    def parent(self, run):
        """The run that a run continues, or None where it is not here."""
        return self._by_path.get(run.parent_path)

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


def without_parent(runs):
    """Those of the runs that continue one that is not among them, or continue such a run."""
    missing, there = [], {run.path.resolve(): run for run in runs}
    while True:
        found = [run for run in there.values() if run.parent_path and run.parent_path not in there]
        if not found:
            return sorted(missing, key=lambda run: run.path)
        missing += found
        there = {path: run for path, run in there.items() if run not in found}


def final(name):
    """A function (run, member index) -> the last value of a series of metrics.json."""
    return lambda run, index: run.final(name)[index]


def late_values(name):
    """A function (run, member index) -> values of a series in the last tenth of the run, see regimes.late_values()."""
    return lambda run, index: regimes.late_values(run.metrics, name, index)


def late_mean(name):
    """A function (run, member index) -> mean of late_values; NaN where one was not finite."""
    return lambda run, index: regimes.late_mean(run.metrics, name, index)


def at_convergence(name):
    """A function (run, member index) -> a series of metrics.json where the run has converged; None where it has not."""

    def value(run, index):
        position = regimes.first_below(run.metrics, index, regimes.convergence_level(run))
        if position is None:
            return None
        found = run.metrics[name][position]
        return found if name == "step" else found[index]

    return value


def of_average(window, name="test_accuracy"):
    """A function (run, member index) -> a measurement of the SWA average of `window` weights; None where not made."""

    def value(run, index):
        swa = run.metrics["swa"]
        return swa[name][swa["window"].index(window)][index] if window in swa["window"] else None

    return value


@functools.cache  # every pair, stage and solution asks for them
def measurement(run, name):
    return run.measurement(name)


def measurements(run):
    """({names of the measurements that are there}, [what is wrong with those of them that are damaged, a line each])."""
    there, damage = set(), []
    for name in run.measurement_files:
        try:
            if measurement(run, name) is None:  # of another end
                continue
        except BadInput as error:
            damage.append(str(error))
        there.add(name)
    return there, damage


def features_of(solution):
    """A function (run, member index) -> its 16 balanced single-feature accuracies, best first; None where not measured.

    Earlier measurements are of plain accuracies, have no `balanced_accuracy`, and do not count.
    """

    def value(run, index):
        features = measurement(run, "features") or {}
        if "balanced_accuracy" not in features or solution not in features["solution"]:
            return None
        of_members = features["balanced_accuracy"][features["solution"].index(solution)]
        return sorted(of_members[index], reverse=True)

    return value


GEOMETRY_PAIRS = ("LH", "SH", "SL")  # L, H: fine-tuned at the low and the high FLR; S: SWA (paper, section 4)
GEOMETRY_WINDOW = 5  # weights in that average; figure 17 shows the same one


def geometry_of(low, high, quantity, pair):
    """A function (run, member index) -> `angle`, `train_barrier` or `test_barrier` of a pair, or None."""
    return of_measurement(geometry_name(low, high), quantity, pair)


def of_measurement(name, *keys):
    """A function (run, member index) -> what a measurement holds of it under nested keys; None where not made."""

    def value(run, index):
        found = measurement(run, name)
        for key in keys:
            found = found and found.get(key)
        return found[index] if found else None

    return value
