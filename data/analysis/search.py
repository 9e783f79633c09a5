"""Which learning rates to run next, to find the band of useful ones: a function of the runs that are there.

    known = known_of("runs/mine")
    next_asks(known, Options(ratio=1.5, parallel=4))       [Ask(plr=1e-3, seed=1), Ask(plr=3e-3, seed=1, flr=1e-4), ...]

All distances are ratios, as learning rates are compared in logarithms. The rules of regimes are those of boundaries.py; what
is asked for in which order is said in README.md. Nothing here trains, reads a clock or draws random numbers.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.analysis import boundaries
from data.analysis.boundaries import Finetuned, Pretrained
from data.analysis.choosing import chosen_runs, relative
from data.analysis.lengths import stage_of
from data.analysis.regimes import Records, run_records
from data.analysis.study import Study
from data.commandline import BadInput
from data.locks import is_held

STEP = 10  # the factor to the next PLR beyond the smallest or the largest
LOWEST, HIGHEST = 1e-9, 1e2  # PLRs that are still asked for
HIGH_FLR, LOW_FLR = 1 / 2, 1 / 10  # parts of the largest PLR that converges
LOWEST_LOSS = 1e-6  # that a run is trained to
DIGITS = 3  # of learning rates that are asked for
ROUNDED = 1.01  # how much farther apart two of them may be for it
NOTHING_KNOWN = {
    "classes": 10,
    "test_samples": None,
    "shared": False,
    "by_accuracy": True,
    "diverges": True,
    "trained_longer": {},
}


class Options(NamedTuple):
    """How a search goes on.

    ratio: of the two learning rates next to a boundary, to stop at. parallel: runs to ask for at a time. seeds: runs at a
    learning rate next to a boundary. first_seed: the smallest, which all else is run with. max_runs: the most there may be, of any stage. start: (lowest, highest) PLR to begin
    between. flrs: (low, high), or None for parts of the largest PLR that converges. precise: the boundaries to bracket to
    the ratio; 2|3 is otherwise only bracketed.
    """

    ratio: float = 1.5
    parallel: int = 1
    seeds: int = 1
    first_seed: int = 1
    max_runs: int = 100
    start: tuple = (1e-4, 1e-1)
    flrs: tuple | None = None
    precise: tuple = ("b12", "b2AB")


class Ask(NamedTuple):
    """A run: pre-training at a PLR with a seed; its fine-tuning at an FLR; or training that goes on until a train loss.

    On ticks the seed is that of the data, too.
    """

    plr: float
    seed: int
    flr: float | None = None
    until: float | None = None

    @property
    def stage(self):
        return "finetune" if self.flr else "converge" if self.until else "pretrain"


class Known(NamedTuple):
    """What a search knows: Records of complete runs, or None; the runs that are complete, at work, and stopped.

    folders: {Ask of a pre-training: its path}, as fine-tunings are asked for by it. until: the train loss of runs that
    train until they converge, where there are some. study: the Study that records are of, if there are some.
    """

    records: Records | None = None
    done: frozenset = frozenset()
    busy: frozenset = frozenset()
    stopped: tuple = ()
    folders: dict = {}  # noqa: RUF012
    until: float | None = None
    study: Study | None = None

    def at_work(self, is_meant=lambda plr: True):
        """The pre-trainings that are at work, in order, at those PLRs that are meant."""
        return sorted(ask for ask in self.busy if ask.stage == "pretrain" and is_meant(ask.plr))

    def seeds_at(self, plr):
        """The seeds of complete pre-trainings at a PLR, in order."""
        return sorted(ask.seed for ask in self.done if ask.plr == plr and ask.stage == "pretrain")


def known_of(folder, only=(), exclude=()):
    """What the runs in a folder tell, which need not be there yet. Raises BadInput for runs that do not go together."""
    if not Path(folder).exists():
        return Known()
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: is no folder; name that of the search's runs")
    if not any(Path(folder).rglob("config.json")):
        return Known()
    return known_of_runs(folder, chosen_runs(folder, only, exclude), only, exclude)


def known_of_runs(folder, runs, only, exclude):
    done, busy, stopped, folders = set(), set(), {}, {}
    for run in runs:
        for ask in asks_of(run):
            if run.complete:
                done.add(ask)
            elif is_held(run.path):
                busy.add(ask)
            else:
                stopped[ask] = None
            if ask.stage == "pretrain":
                folders[ask] = relative(run.path, Path(folder))
    until = next((ask.until for ask in [*done, *busy, *stopped] if ask.until), None)
    there = any(run.complete and stage_of(run) == "pretrain" for run in runs)
    study = Study(folder, only, exclude) if there else None
    records = run_records(study) if there else None
    return Known(records, frozenset(done), frozenset(busy), tuple(stopped), folders, until, study)


def asks_of(run):
    """What a run was asked for as, an Ask for each member; none of other stages than a search has."""
    stages = {("pretrain", 1), ("finetune", 2), ("converge", 1)}
    until = run.settings["until_loss"]
    return [
        Ask(member["lrs"][0], member.get("data_seed", member["seed"]), *(member["lrs"][1:] or [None]), until)
        for member in run.members
        if (stage_of(run), len(member["lrs"])) in stages
    ]


# ---------------------------------------------------------------------------------------------------------- what to ask


def next_asks(known, options):
    """The runs to make next, at most options.parallel: those that stopped first; none where all is known, or being made."""
    room = min(options.parallel, options.max_runs - len(known.done) - len(known.busy) - len(known.stopped))
    if known.stopped:
        return list(known.stopped[: options.parallel])
    wanted = dict.fromkeys(needs(known, options))
    return [ask for ask in wanted if ask not in known.done and ask not in known.busy][: max(room, 0)]


def needs(known, options):
    """The runs that are needed by what is known, of which some may be at work, in order; none where nothing is."""
    if known.records is None:
        return first(known, options)
    numbers = known.records.numbers()
    found = needs_of_1(known, options, numbers) + needs_of_3(known, options, numbers)
    if found:
        return found
    last = convergence(numbers)
    if last is None:
        return []
    found = [ask for plr in numbers.plrs[last : last + 2] for ask in repeats(known, options, plr)]
    return found or needs_of_longer(known, options, numbers) or needs_of_2a(known, options, numbers)


def first(known, options):
    """Where nothing is known: PLRs spread evenly over those to begin between."""
    if known.busy:
        return known.at_work()
    low, high = options.start
    parts = [(number + 0.5) / options.parallel for number in range(options.parallel)]
    return [Ask(rounded(low * (high / low) ** part), options.first_seed) for part in parts]


def needs_of_1(known, options, numbers):
    """For the boundary 1|2: bisection between the largest PLR that converges and the next.

    Where none converges, as by the rule of networks that never do: around the PLR of the lowest late train loss, beside
    which a PLR that converges would lie.
    """
    plrs, last = numbers.plrs, convergence(numbers)
    if last is not None and numbers.by_accuracy:
        return between(known, options, "b12", *plrs[last : last + 2])
    [converging] = boundaries.converging(numbers, numbers.whole())
    if numbers.by_accuracy and converging[-1]:
        return beyond(known, options, plrs[-1], STEP)
    [chance] = boundaries.at_chance(numbers, numbers.whole())
    if numbers.diverges and chance.all():
        return beyond(known, options, plrs[0], 1 / STEP)
    [losses] = numbers.of("late_loss", numbers.whole()).mean_of_finite()
    best = min(
        (index for index in range(len(plrs)) if not (numbers.diverges and chance[index])), key=losses.__getitem__
    )
    if not math.isfinite(losses[best]):
        return beyond(known, options, plrs[0], 1 / STEP)
    below = (
        between(known, options, "b12", *plrs[best - 1 : best + 1])
        if best
        else beyond(known, options, plrs[0], 1 / STEP)
    )
    above = (
        between(known, options, "b12", *plrs[best : best + 2])
        if best < len(plrs) - 1
        else beyond(known, options, plrs[-1], STEP)
    )
    return below + above


def needs_of_3(known, options, numbers):
    """For the boundary 2|3, of networks that have one: the next larger PLR until one is at chance; bisection on request."""
    if not numbers.diverges:
        return []
    [chance], plrs = boundaries.at_chance(numbers, numbers.whole()), numbers.plrs
    if not chance[-1]:
        return beyond(known, options, plrs[-1], STEP)
    if chance.all() or "b23" not in options.precise:
        return []
    last = int((~chance).nonzero()[0].max())
    return between(known, options, "b23", *plrs[last : last + 2]) or [
        ask for plr in plrs[last : last + 2] for ask in repeats(known, options, plr)
    ]


def needs_of_longer(known, options, numbers):
    """Training until it converges where the PLR above 1|2 is undertrained, so that it tells no boundary.

    It goes on until the train loss that the last PLR below it has in the end.
    """
    [untold], index = boundaries.undertrained(numbers, numbers.whole()), convergence(numbers) + 1
    if not untold[index]:
        return []
    [losses] = numbers.of("late_loss", numbers.whole()).mean_of_finite()
    until = known.until or max(float(f"{losses[index - 1]:.1e}"), LOWEST_LOSS)
    asks = [
        Ask(numbers.plrs[index], seed, None, until)
        for seed in known.seeds_at(numbers.plrs[index])[: options.seeds]
    ]
    return [ask for ask in asks if ask not in known.done]


def needs_of_2a(known, options, numbers):
    """For the upper end of 2A, and the best PLR: fine-tunings from b12 upwards, then bisection.

    They go on until a PLR is outside of 2A and loses against the best below it more than counts as the same, as a single
    one outside may be so by noise, and 2A need not hold what is best. Bisected is between the last PLR of 2A and the next,
    and on both sides of the best one.
    """
    plrs, flrs, sample = numbers.plrs, flrs_of(known, options, numbers), numbers.whole()
    places = boundaries.last_plrs(numbers, sample)
    b12 = int(places["b12"][0])
    if b12 < 0 or flrs is None:
        return []
    [of_2] = boundaries.regime_2(numbers, places["b12"], places["b23"])
    [inside], _ = boundaries.subregime_2a(numbers, sample, places["b12"], places["b23"])
    if not of_2.any():
        return between(known, options, "b2AB", *plrs[b12 : b12 + 2])
    best_at = best_accuracies(numbers)
    best = b12, np.nanmax(numbers.of("accuracy", sample).mean()[0, : b12 + 1])
    top = int(of_2.nonzero()[0].max())
    for index in range(b12 + 1, top + 1):
        found = repeats(known, options, plrs[index]) + tunings(known, options, plrs[index], flrs)
        if found:
            return found
        if best_at[index] > best[1]:
            best = index, best_at[index]
        elif not inside[index] and not best[1] - best_at[index] <= numbers.tolerance:
            break
    last = int(inside.nonzero()[0].max()) if inside.any() else b12
    found = [] if last == b12 else above(known, options, plrs, last)
    if best[0] > b12:
        found += between(known, options, "b2AB", *plrs[best[0] - 1 : best[0] + 1])
        found += above(known, options, plrs, best[0])
    return found


def best_accuracies(numbers):
    """The highest mean accuracy over FLRs at every PLR, [P]; minus infinity where there is none."""
    means = numbers.of("finetuned", numbers.whole()).mean()[0]
    return np.where(np.isfinite(means), means, -np.inf).max(axis=1, initial=-np.inf)


def tunings(known, options, plr, flrs):
    """The fine-tunings that are missing at a PLR."""
    seeds = known.seeds_at(plr)[: options.seeds]
    return [ask for seed in seeds for ask in (Ask(plr, seed, flr) for flr in flrs) if ask not in known.done]


def above(known, options, plrs, index):
    """Pre-training between a PLR and the next, or beyond it where there is none."""
    if index == len(plrs) - 1:
        return beyond(known, options, plrs[index], math.sqrt(STEP))
    return between(known, options, "b2AB", *plrs[index : index + 2])


def convergence(numbers):
    """The index of the last PLR below 1|2, whether the next one is trained long enough or not; None where there is none."""
    converging = boundaries.converging(numbers, numbers.whole()) | (
        np.array(numbers.plrs) <= numbers.converges_up_to
    )
    last = int(boundaries.last_before_another(converging)[0])
    return last if last >= 0 else None


def flrs_of(known, options, numbers):
    """(low, high) FLR: those asked for; or the lowest and the highest that were fine-tuned at and converge; or parts of b12.

    None where nothing converges.
    """
    last = convergence(numbers)
    if options.flrs or last is None:
        return options.flrs
    b12 = numbers.plrs[last]
    there = [flr for flr in numbers.flrs if flr < b12 or numbers.by_accuracy and flr == b12]
    return (there[0], there[-1]) if len(there) > 1 else (rounded(LOW_FLR * b12), rounded(HIGH_FLR * b12))


# ------------------------------------------------------------------------------------------------------- learning rates


def between(known, options, name, low, high):
    """Pre-training between two PLRs, as many as are asked for at a time or as are needed; none where these are close."""
    if name not in options.precise or high / low <= options.ratio * ROUNDED:
        return []
    at_work = known.at_work(lambda plr: low < plr < high)
    if at_work:
        return at_work
    needed = math.ceil(math.log(high / low) / math.log(options.ratio * ROUNDED) - 1e-9) - 1
    count = max(1, min(options.parallel, needed))
    found = dict.fromkeys(rounded(low * (high / low) ** (part / (count + 1))) for part in range(1, count + 1))
    return [Ask(plr, options.first_seed) for plr in found if low < plr < high]


def beyond(known, options, plr, factor):
    """Pre-training at the next PLR beyond the smallest or the largest; none where that would be out of all proportion."""
    found = rounded(plr * factor)
    at_work = known.at_work(lambda other: other > plr if factor > 1 else other < plr)
    return at_work or ([Ask(found, options.first_seed)] if LOWEST <= found <= HIGHEST else [])


def repeats(known, options, plr):
    """Pre-training with the seeds that are missing at a PLR, complete ones and those at work counted."""
    at_work = known.at_work(lambda other: other == plr)
    there = {*known.seeds_at(plr), *(ask.seed for ask in at_work)}
    new = [
        seed
        for seed in range(options.first_seed, options.first_seed + options.seeds + len(there))
        if seed not in there
    ]
    return at_work + [Ask(plr, seed) for seed in new[: max(options.seeds - len(there), 0)]]


def rounded(lr):
    return float(f"{lr:.{DIGITS - 1}e}")


# ------------------------------------------------------------------------------------------------------------- forecast


def forecast(known, options):
    """The runs that are still to come, as Asks, if boundaries lie in the middle of where they can lie.

    Those that stopped or are at work are among them.
    """
    guess, to_come = Guess(known, options), [*known.busy, *known.stopped]
    known = known._replace(busy=frozenset(), stopped=())
    found = to_come or next_asks(known, options)
    while found and len(known.done) < options.max_runs:
        known, to_come = guess.with_outcomes(known, found), to_come + [ask for ask in found if ask not in to_come]
        found = next_asks(known, options)
    return to_come


class Guess:
    """What runs may come to: boundaries lie in the middle (of logarithms) of where they can lie.

    Where nothing is known 1|2 is in the middle of the PLRs to begin between, 2A ends at 3 times that, and 2 at 30 times.
    """

    def __init__(self, known, options):
        places = dict.fromkeys(("b12", "b2AB", "b23"))
        facts = NOTHING_KNOWN
        if known.records is not None:
            facts, numbers = known.records.facts, known.records.numbers()
            places = boundaries.measure(numbers)
            last = convergence(numbers)
            if places["b12"] is None and last is not None:
                places["b12"] = dict(zip(("last", "next"), numbers.plrs[last : last + 2]))
        middles = {
            name: math.sqrt(place["last"] * place["next"]) if place else None for name, place in places.items()
        }
        self.facts = facts
        self.b12 = middles["b12"] or math.sqrt(options.start[0] * options.start[1])
        self.b2ab, self.b23 = middles["b2AB"] or 3 * self.b12, middles["b23"] or 30 * self.b12

    def with_outcomes(self, known, asks):
        """What is known after these runs."""
        records = known.records or Records([], [], self.facts)
        by_stage = {
            stage: [ask for ask in asks if ask.stage == stage] for stage in ("pretrain", "finetune", "converge")
        }
        pretrained, finetuned = (
            map(self.pretrained, by_stage["pretrain"]),
            map(self.finetuned, by_stage["finetune"]),
        )
        longer = records.facts["trained_longer"] | {ask.plr: False for ask in by_stage["converge"]}
        records = records._replace(
            pretrained=[*records.pretrained, *pretrained],
            finetuned=[*records.finetuned, *finetuned],
            facts=records.facts | {"trained_longer": longer},
        )
        return known._replace(records=records, done=known.done | {*asks})

    def pretrained(self, ask):
        converges, guesses = ask.plr < self.b12, ask.plr > self.b23 and self.facts["diverges"]
        accuracy = 1 / self.facts["classes"] if guesses else 0.99
        away = abs(math.log(ask.plr / self.b12))
        return Pretrained(
            plr=ask.plr,
            unit=ask.seed,
            converged=converges,
            stays_finite=True,
            late_loss=0.01 * (1 + away),
            part_of_loss=1 if guesses else 0,
            late_accuracy=accuracy,
            accuracy=accuracy,
        )

    def finetuned(self, ask):
        inside = ask.plr < self.b2ab or ask.flr > LOW_FLR * self.b12 * 2
        return Finetuned(ask.plr, ask.seed, ask.flr, 1.0 if inside else 0.5)
