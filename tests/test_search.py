"""The search for a band of learning rates, against worlds whose boundaries are known."""

import math

import numpy as np
import pytest
from test_analyze import EPOCHS, IMAGES, TICKS, write_run

from data.analysis import boundaries, search
from data.analysis.boundaries import Finetuned, Pretrained
from data.analysis.regimes import Records
from data.analysis.search import Ask, Known, Options, known_of, next_asks
from data.locks import hold, release

CHANCE, BEST = 0.1, 0.7
LOSSES = [2.3] + [0.1] * EPOCHS
FACTS = search.NOTHING_KNOWN | {"test_samples": 10_000}


class World:
    """Where the boundaries lie, and what a run leads to there.

    b12: runs converge below it, b2ab: fine-tuning from below it hangs on no FLR, b23: runs guess above it. slow: below it
    runs are too slow to converge. hurry: the factor next to b12, on both sides, within which runs are not finished. best: where fine-tuning at the high FLR is best, if 2A does not hold it. std: of a run's test accuracy; blur: standard deviation, in logarithms, of where a run
    meets a boundary.
    """

    def __init__(self, b12, b2ab, b23=math.inf, slow=0.0, hurry=1.0, best=None, std=0.0, blur=0.0, **facts):
        self.b12, self.b2ab, self.b23, self.slow, self.std, self.blur = b12, b2ab, b23, slow, std, blur
        self.hurry, self.best = hurry, best
        self.facts = FACTS | {"diverges": b23 < math.inf} | facts

    def run(self, ask):
        random = np.random.default_rng(
            [int(1e6 * -math.log(ask.plr)) % 2**32, ask.seed, int(1e9 * (ask.flr or 0))]
        )
        plr, accuracy = (
            ask.plr * math.exp(self.blur * random.standard_normal()),
            self.std * random.standard_normal(),
        )
        if ask.stage == "finetune":
            if self.best is not None:
                accuracy += 0.05 * math.log(min(plr, self.best) / self.b12) - 0.2 * max(
                    math.log(plr / self.best), 0
                )
                lost = 0.0 if plr < self.b2ab or ask.flr > 0.3 * self.b12 else 0.02
                return Finetuned(ask.plr, ask.seed, ask.flr, BEST - lost + accuracy)
            lost = 0.0 if plr < self.b2ab else 0.1 * (1 + math.log(plr / self.b2ab)) * (1.5 - ask.flr / self.b12)
            return Finetuned(ask.plr, ask.seed, ask.flr, BEST - lost + accuracy)
        converges, guesses = self.slow < plr < self.b12 / self.hurry, plr > self.b23
        accuracy += CHANCE if guesses else BEST - 0.02 * abs(math.log(plr / self.b12))
        return Pretrained(
            plr=ask.plr,
            unit=ask.seed,
            converged=converges,
            stays_finite=not guesses or ask.seed % 2 == 0,
            late_loss=math.nan if guesses and ask.seed % 2 else self.loss(plr, converges),
            part_of_loss=1 if guesses else 0.2,
            unfinished=abs(math.log(plr / self.b12)) < math.log(self.hurry),
            late_accuracy=accuracy,
            accuracy=accuracy,
        )

    def loss(self, plr, converges):
        """Noise keeps it up above b12, the more, the larger the PLR; below, slowness does where no accuracy tells."""
        return 0.001 if converges and self.facts["by_accuracy"] else 0.1 + abs(math.log(plr / self.b12))

    def known(self, done, **more):
        """What is known after these runs; no Records as long as no pre-training is among them."""
        runs = {stage: [] for stage in ("pretrain", "finetune")}
        longer = {ask.plr: ask.plr < self.b12 for ask in done if ask.stage == "converge"}
        for ask in sorted(done, key=str):
            if ask.stage in runs:
                runs[ask.stage].append(self.run(ask))
        records = Records(*runs.values(), self.facts | {"trained_longer": longer})
        until = next((ask.until for ask in done if ask.until), None)
        return Known(records if runs["pretrain"] else None, frozenset(done), until=until, **more)


def searched(world, options, done=(), most=100):
    """What is known where nothing more is asked for, and how many times there was."""
    known = world.known({*done})
    for turns in range(most):
        asks = next_asks(known, options)
        assert len(asks) <= options.parallel and not {*asks} & known.done and len({*asks}) == len(asks)
        if not asks:
            return known, turns
        known = world.known(known.done | {*asks})
    raise AssertionError("the search does not end")


def places(known):
    return boundaries.measure(known.records.numbers())


def assert_bracketed(place, truth, ratio):
    assert place["last"] <= truth <= place["next"]
    assert place["next"] / place["last"] <= ratio * search.ROUNDED


def random_worlds(count, seed):
    random = np.random.default_rng(seed)
    for _ in range(count):
        b12 = 10 ** random.uniform(-6, -0.5)
        b2ab = b12 * 10 ** random.uniform(0.25, 1)
        yield b12, b2ab, b2ab * 10 ** random.uniform(0.25, 1.5)


def most_runs(options, b12):
    """A generous count: outwards by powers of ten, bisection of three brackets of a power of ten or more, fine-tunings."""
    outwards = 6 + abs(math.log10(b12) + 2.5)
    bisections = math.ceil(math.log2(math.log(10**2) / math.log(options.ratio))) + 1
    return 3 * (outwards + 3 * bisections) + 3 * options.parallel


@pytest.mark.parametrize("parallel", [1, 2, 5])
@pytest.mark.parametrize("ratio", [1.2, 1.5, 2])
def test_all_boundaries_are_bracketed_to_the_ratio_wherever_they_lie(ratio, parallel):
    options = Options(ratio=ratio, parallel=parallel, precise=("b12", "b2AB", "b23"), max_runs=1000)
    for b12, b2ab, b23 in random_worlds(20, seed=1):
        known, _ = searched(World(b12, b2ab, b23), options)
        found = places(known)
        for name, truth in (("b12", b12), ("b2AB", b2ab), ("b23", b23)):
            assert_bracketed(found[name], truth, ratio)
        assert len(known.done) <= most_runs(options, b12)


def test_the_end_of_regime_2_is_only_bracketed_unless_it_is_asked_for():
    world = World(1e-3, 3e-3, 4e-2)
    rough, _ = searched(world, Options(ratio=1.2))
    precise, _ = searched(world, Options(ratio=1.2, precise=("b12", "b2AB", "b23")))
    assert places(rough)["b23"]["last"] < 4e-2 < places(rough)["b23"]["next"]
    assert len(rough.done) < len(precise.done)


def test_more_at_a_time_take_fewer_turns():
    turns = [searched(World(2e-3, 7e-3, 5e-2), Options(parallel=parallel))[1] for parallel in (1, 4)]
    assert turns[1] < 0.7 * turns[0]


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_network_that_never_diverges(parallel):
    for b12, b2ab, _ in random_worlds(20, seed=2):
        known, _ = searched(World(b12, b2ab), Options(parallel=parallel))
        assert_bracketed(places(known)["b12"], b12, 1.5)
        assert_bracketed(places(known)["b2AB"], b2ab, 1.5)
        assert places(known)["b23"] is None


def test_the_first_seed_is_that_of_all_runs_without_repeats():
    world = World(2e-3, 7e-3, 5e-2)
    (one, turns), (five, as_many) = (searched(world, Options(seeds=2, first_seed=seed)) for seed in (1, 5))
    assert {ask._replace(seed=ask.seed + 4) for ask in one.done} == {*five.done} and turns == as_many


def test_a_network_that_never_converges_is_searched_around_its_lowest_loss():
    """Of networks without an accuracy of convergence 1|2 begins at the PLR of the lowest loss."""
    for b12, b2ab, _ in random_worlds(20, seed=3):
        known, _ = searched(World(b12, b2ab, by_accuracy=False), Options(parallel=2))
        found = places(known)["b12"]
        assert found["next"] / found["last"] <= 1.5 * search.ROUNDED
        assert found["last"] / 1.52 <= b12 <= found["last"] * 1.52
        assert known.records.finetuned and all(run.flr < found["last"] for run in known.records.finetuned)


@pytest.mark.parametrize("parallel", [1, 4])
def test_where_nothing_converges_the_search_ends_and_says_so(parallel):
    """All is too slow below the noise: no PLR converges, whatever it is."""
    world = World(1e-3, 3e-3, 5e-2, slow=1e-3)
    known, _ = searched(world, Options(parallel=parallel))
    assert places(known)["b12"] is None and not known.records.finetuned
    assert len(known.done) < 20 * parallel
    lowest = min(known.records.pretrained, key=lambda run: run.late_loss)
    assert 1 / 1.6 < lowest.plr / 1e-3 < 1.6


def test_a_band_below_which_runs_are_slow_is_found():
    """Convergence in a narrow place alone, which no PLR of the first ones hits."""
    known, _ = searched(World(1e-3, 3e-3, 5e-2, slow=5e-4), Options())
    assert_bracketed(places(known)["b12"], 1e-3, 1.5)
    assert_bracketed(places(known)["b2AB"], 3e-3, 1.5)


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_best_learning_rate_is_bracketed_where_2a_does_not_hold_it(parallel):
    """At the low FLR fine-tuning loses 2 pp above 2A, at the high one it gains for a while."""
    for b12, b2ab, _ in random_worlds(15, seed=8):
        best = 2.5 * b2ab
        known, _ = searched(World(b12, b2ab, 8 * b2ab, best=best), Options(parallel=parallel))
        assert_bracketed(places(known)["b2AB"], b2ab, 1.5)
        tuned = {}
        for run in known.records.finetuned:
            tuned[run.plr] = max(run.accuracy, tuned.get(run.plr, 0))
        found, plrs = max(tuned, key=tuned.get), sorted(tuned)
        assert 1 / 1.6 < found / best < 1.6
        neighbours = plrs[plrs.index(found) - 1], plrs[plrs.index(found) + 1]
        assert max(found / neighbours[0], neighbours[1] / found) <= 1.5 * search.ROUNDED


@pytest.mark.parametrize("parallel, seeds", [(1, 1), (3, 2)])
def test_where_the_loss_still_falls_next_to_1_2_longer_training_tells(parallel, seeds):
    """They all go on to one loss, that of the last PLR that converged in time."""
    for b12, b2ab, b23 in random_worlds(15, seed=7):
        world = World(b12, 2 * b2ab, 2 * b23, hurry=1.6)
        known, _ = searched(world, Options(parallel=parallel, seeds=seeds, max_runs=1000))
        assert_bracketed(
            places(known)["b12"], b12, 1.6**2
        )  # what lies above it and is not finished may be no PLR of 2
        longer = [ask for ask in known.done if ask.stage == "converge"]
        assert len({ask.until for ask in longer}) <= 1 and len(longer) < 8 * seeds
        assert all(world.hurry > ask.plr / b12 > 1 / world.hurry for ask in longer)
        assert places(known)["b2AB"]


def test_where_all_diverges_smaller_ones_are_asked_for_as_long_as_they_make_sense():
    known, _ = searched(World(1e-12, 3e-12, 1e-11), Options())
    assert min(ask.plr for ask in known.done) == pytest.approx(search.LOWEST, rel=10)
    assert len(known.done) < 12 and places(known) == {"b12": None, "b2AB": None, "b23": None}


def test_without_2a_no_more_is_asked_for():
    """Right above 1|2 fine-tuning hangs on the FLR: there is no band within the ratio."""
    known, _ = searched(World(1e-3, 1e-3, 5e-2), Options())
    assert places(known)["b2AB"] is None
    tuned = {run.plr for run in known.records.finetuned}
    assert tuned == {places(known)["b12"]["next"]}


def test_where_all_of_regime_2_is_2a_its_end_is_that_of_regime_2():
    known, _ = searched(World(1e-3, 1.0, 2e-2), Options())
    assert_bracketed(places(known)["b2AB"], 2e-2, 1.5)


def test_noise_needs_seeds_and_seeds_are_asked_for_next_to_boundaries_alone():
    options = Options(seeds=3, parallel=2, max_runs=1000)
    known, _ = searched(World(1e-3, 4e-3, 5e-2), options)
    counts = {plr: len(known.seeds_at(plr)) for plr in {ask.plr for ask in known.done}}
    found = places(known)
    assert {counts[found[name][end]] for name in ("b12", "b2AB") for end in ("last", "next")} == {3}
    assert counts[min(counts)] == counts[max(counts)] == 1
    tuned = [ask for ask in known.done if ask.stage == "finetune" and ask.plr == found["b2AB"]["last"]]
    assert len(tuned) == 6


def test_seeds_find_boundaries_in_spite_of_noise():
    """Each run meets a boundary 10 % off, and accuracies have a standard deviation of half a point."""
    found = {1: [], 4: []}
    for seeds, near in found.items():
        for b12, b2ab, b23 in random_worlds(12, seed=4):
            world = World(b12, b2ab, b23, std=0.005, blur=0.1)
            known, _ = searched(world, Options(seeds=seeds, parallel=3, max_runs=1000))
            for name, truth in (("b12", b12), ("b2AB", b2ab)):
                place = places(known)[name]
                near.append(bool(place) and place["last"] / 1.3 < truth < place["next"] * 1.3)
    assert np.mean(found[4]) >= 0.95 and np.mean(found[1]) < np.mean(found[4])


# ------------------------------------------------------------------------------------- what is running, and interruptions


def test_what_is_at_work_is_not_asked_for_and_waited_for():
    world, options = World(1e-3, 3e-3, 5e-2), Options(parallel=3)
    known = Known()
    for _ in range(60):
        asks = next_asks(known, options)
        if not asks:
            break
        waiting = world.known(known.done, busy=frozenset(asks))
        more = next_asks(waiting, options)
        assert not {*more} & {*asks}
        assert all(
            ask.stage == "finetune" or ask.plr not in {a.plr for a in asks if a.stage == "pretrain"}
            for ask in more
        )
        known = world.known(known.done | {*asks})
    assert_bracketed(places(known)["b12"], 1e-3, 1.5)


def test_interrupted_anywhere_it_ends_where_an_uninterrupted_one_does():
    """A part of every turn's runs is stopped; these are asked for first, and the same boundaries come out."""
    options, random = Options(parallel=4), np.random.default_rng(5)
    for b12, b2ab, b23 in random_worlds(15, seed=6):
        world = World(b12, b2ab, b23)
        done, stopped = set(), ()
        for _ in range(200):
            asks = next_asks(world.known(done, stopped=stopped), options)
            if not asks:
                break
            if stopped:
                assert asks == list(stopped[:4])
            whole = [ask for ask in asks if random.random() < 0.6]
            done |= {*whole}
            stopped = tuple(ask for ask in dict.fromkeys([*stopped, *asks]) if ask not in done)
        found = places(world.known(done))
        assert_bracketed(found["b12"], b12, 1.5)
        assert_bracketed(found["b2AB"], b2ab, 1.5)


def test_it_begins_with_whatever_is_there():
    """A grid that was run before is used: no PLR of it is asked for again, and no more than fine-tuning and bisection."""
    world = World(1e-3, 4e-3, 5e-2)
    grid = {Ask(plr, 7) for plr in (1e-4, 5e-4, 8e-4, 1.1e-3, 2e-3, 5e-3, 2e-2, 1e-1)}
    known, _ = searched(world, Options(), done=grid)
    added = known.done - grid
    assert not {ask.plr for ask in added if ask.stage == "pretrain"} & {ask.plr for ask in grid}
    assert {ask.seed for ask in added if ask.stage == "finetune" and ask.plr in {a.plr for a in grid}} == {7}
    assert_bracketed(places(known)["b2AB"], 4e-3, 1.5)


def test_no_more_runs_than_allowed():
    for most in (0, 1, 5, 9):
        known, _ = searched(World(1e-3, 4e-3, 5e-2), Options(parallel=4, max_runs=most))
        assert len(known.done) == most


def test_flrs_are_parts_of_b12_or_those_that_are_there_or_those_asked_for():
    world = World(1e-3, 4e-3, 5e-2)
    known, _ = searched(world, Options())
    last = places(known)["b12"]["last"]
    assert {run.flr for run in known.records.finetuned} == {search.rounded(last / 10), search.rounded(last / 2)}
    asked, _ = searched(world, Options(flrs=(1e-5, 3e-4)))
    assert {run.flr for run in asked.records.finetuned} == {1e-5, 3e-4}
    grid = {Ask(plr, 1, flr) for plr in (1.3e-3,) for flr in (None, 2e-5, 5e-5, 2e-4, 9e-2)}
    there, _ = searched(world, Options(), done=grid | {Ask(9e-4, 1), Ask(8e-3, 1), Ask(1e-1, 1)})
    assert {ask.flr for ask in there.done - grid if ask.stage == "finetune"} == {2e-5, 2e-4}


def test_the_forecast_is_what_comes_where_the_boundaries_are_where_it_takes_them_to_be():
    options = Options(parallel=2)
    start = math.sqrt(options.start[0] * options.start[1])
    known, _ = searched(World(start, 3 * start, 30 * start), options)
    expected = search.forecast(Known(), options)
    assert len(expected) == pytest.approx(len(known.done), abs=4)
    assert len({*expected}) == len(expected)
    assert search.forecast(known, options) == []
    busy = frozenset({Ask(1e-2, 1)})
    assert Ask(1e-2, 1) in search.forecast(Known(busy=busy), options)


# ------------------------------------------------------------------------------------------------------------ on disk


def test_the_runs_of_a_folder_are_known(tmp_path):
    assert known_of(tmp_path / "none") == known_of(tmp_path) == Known()
    member = {"lrs": [1e-3], "seed": 4}
    series = {"train_accuracy": [1.0], "train_loss": [LOSSES]}
    write_run(tmp_path / "pretrain/a", "pretrain", [member], IMAGES, **series)
    write_run(
        tmp_path / "pretrain/b", "pretrain", [{"lrs": [1e-2], "seed": 5}], IMAGES, final_step=3, status="running"
    )
    write_run(
        tmp_path / "pretrain/c", "pretrain", [{"lrs": [2e-2], "seed": 5}], IMAGES, final_step=3, status="running"
    )
    tuned = [{"lrs": [1e-3, 1e-4], "seed": 4}]
    write_run(tmp_path / "finetune/a", "finetune", tuned, IMAGES, parent=tmp_path / "pretrain/a")
    again = [{"lrs": [1e-3, 1e-4, 1e-5], "seed": 4}]
    write_run(tmp_path / "finetune/aa", "finetune", again, IMAGES, parent=tmp_path / "finetune/a")
    held = hold(tmp_path / "pretrain/c")
    try:
        known = known_of(tmp_path)
    finally:
        release(held)
    assert known.done == {Ask(1e-3, 4), Ask(1e-3, 4, 1e-4)}
    assert known.stopped == (Ask(1e-2, 5),) and known.busy == {Ask(2e-2, 5)}
    assert known.folders[Ask(1e-3, 4)] == "pretrain/a" and known.until is None
    [run] = known.records.pretrained
    assert (run.plr, run.unit, run.converged) == (1e-3, 4, True)


def test_runs_that_train_until_they_converge_are_known_with_their_loss(tmp_path):
    member = {"lrs": [1e-3], "seed": 1}
    write_run(tmp_path / "pretrain/a", "pretrain", [member], IMAGES, train_loss=[LOSSES])
    losses = [2.3, 1.0, 0.04]
    settings = IMAGES | {"until_loss": 0.05}
    write_run(tmp_path / "converge/a", "pretrain", [member], settings, train_loss=[losses], final_step=2)
    known = known_of(tmp_path)
    assert known.done == {Ask(1e-3, 1), Ask(1e-3, 1, None, 0.05)} and known.until == 0.05
    assert known.records.facts["trained_longer"] == {1e-3: True}


def test_runs_none_of_which_is_complete_are_known(tmp_path):
    for name, lr in (("a", 1e-3), ("b", 1e-2)):
        member = {"lrs": [lr], "seed": 1}
        write_run(tmp_path / name, "pretrain", [member], IMAGES, final_step=EPOCHS // 2, status="running")
    known = known_of(tmp_path)
    assert known.records is None and known.stopped == (Ask(1e-3, 1), Ask(1e-2, 1))
    assert next_asks(known, Options(parallel=1)) == [Ask(1e-3, 1)]


def test_the_members_of_a_folder_on_ticks_are_runs_by_their_data_seeds(tmp_path):
    members = [{"lrs": [lr], "seed": 1, "data_seed": data_seed} for data_seed in (1, 2) for lr in (1e-3, 1e-2)]
    write_run(tmp_path / "all", "pretrain", members, TICKS, train_loss=[LOSSES] * 4)
    assert known_of(tmp_path).done == {Ask(lr, seed) for lr in (1e-3, 1e-2) for seed in (1, 2)}
