"""Which seeds are compared at a PLR: those that all of its stages have, and which are missing there.

Means over other seeds at other stages would differ by the seeds, too. A stage is pre-training, fine-tuning at one FLR, or
SWA; at a PLR those count of which a run is there, as stages are missing while a sweep goes on.
"""

import functools
from collections import Counter

from data.analysis.choosing import named
from data.commandline import lr_name

STAGES = ("pretrain", "converge", "finetune", "swa")  # in order, as Study.of_stage() names them


def key_of(member):
    """What makes two members of different stages one run that goes on: its data seed, if any, and seed."""
    return member.get("data_seed"), member["seed"]


class Pairing:
    """The seeds of a study at its PLRs.

    members: [(stage, learning rates, key)], stages as Study.of_stage() names them. flrs: those of compared fine-tunings.
    """

    def __init__(self, members, flrs):
        self.flrs = flrs
        self.stages = {}  # {PLR: {(stage, later learning rates): keys}}
        for stage, (plr, *later), key in members:
            if self.is_compared(stage, later):
                self.stages.setdefault(plr, {}).setdefault((stage, *later), set()).add(key)

    def is_compared(self, stage, later_lrs):
        """Whether the seeds of a stage are compared: those of second stages and of training until convergence are not."""
        if stage == "finetune":
            return len(later_lrs) == 1 and later_lrs[0] in self.flrs
        return stage in ("pretrain", "swa")

    @functools.cached_property
    def common(self):
        """{PLR: the keys that all of its stages have}; without PLRs of which no key has all."""
        found = {plr: set.intersection(*of_plr.values()) for plr, of_plr in self.stages.items()}
        return {plr: keys for plr, keys in found.items() if keys}

    def holds(self, stage, lrs, key):
        """Whether a member is one of those that are compared, or of a stage that is not compared."""
        plr, *later = lrs
        return not self.is_compared(stage, later) or key in self.common.get(plr, {key})

    def lines(self):
        """What to say of seeds that are missing: a line for every stage that lacks some, cut where they are many."""
        missing, without = {}, []
        for plr in sorted(self.stages):
            every = set.union(*self.stages[plr].values())
            if plr not in self.common:
                without.append(lr_name(plr))
                continue
            for stage, keys in self.stages[plr].items():
                if keys != every:
                    text = f"{len(keys)} of {len(every)} at PLR {lr_name(plr)}"
                    missing.setdefault(stage, []).append(text)
        lines = [
            f"{title(*stage)} lacks seeds, and the others are skipped there: it has {named(found)}"
            for stage, found in sorted(missing.items(), key=lambda item: (STAGES.index(item[0][0]), item[0][1:]))
        ]
        if without:
            lines.append(f"no seed has all stages at PLR {named(without)}: means there are of different seeds")
        missing = [
            f"PLR {lr_name(plr)} has no seed {named(map(seed_text, keys))}" for plr, keys in self.absent.items()
        ]
        return lines + ([named(missing, "; ")] if missing else [])

    @functools.cached_property
    def absent(self):
        """{PLR: the seeds that other PLRs have and no stage there}, in order; empty where most PLRs have seeds of their own."""
        at_plrs = {plr: set().union(*self.stages[plr].values()) for plr in sorted(self.stages)}
        places = Counter(key for keys in at_plrs.values() for key in keys)
        every = {*places}
        if 2 * sum(max(places[key] for key in keys) > 1 for keys in at_plrs.values()) < len(at_plrs):
            return {}
        return {
            plr: sorted(every - keys, key=lambda key: (key[0] or 0, key[1]))
            for plr, keys in at_plrs.items()
            if keys != every
        }


def seed_text(key):
    data_seed, seed = key
    return f"{seed}" if data_seed is None else f"{seed} of data seed {data_seed}"


def title(stage, *later_lrs):
    """A stage in words: `pre-training`, `fine-tuning at 1e-4`, `SWA`."""
    if stage == "finetune":
        return f"fine-tuning at {', '.join(map(lr_name, later_lrs))}"
    return {"pretrain": "pre-training", "swa": "SWA", "converge": "training until convergence"}[stage]
