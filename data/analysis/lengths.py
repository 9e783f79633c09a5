"""At which length runs are compared, where some were made longer.

A run that was made longer can be looked at as it was before (Run.until()), while it grows and after. Runs that others
continue are compared as they were where those begin: a longer one beside them would be another pre-training. Others are
compared at the length that most of their stage are, or have been, complete at. The length of a run that stops when its
regime is clear is that which it was to have: where it stopped does not count, as that of one that diverged does not.
"""

from collections import Counter

from data.analysis.choosing import named, progress_of, relative


def stage_of(run):
    """The stage of a run as Study.of_stage() names them."""
    stage = run.config["stage"]
    return "converge" if stage == "pretrain" and run.settings["until_loss"] is not None else stage


def kind_of(run):
    """(stage, number of stages until then): runs of a kind are compared with each other."""
    return stage_of(run), len(run.members[0]["lrs"])


class Lengths:
    """The runs in a folder at the lengths that they are compared at.

    at_length: {run: the same one at that length, or None where it is not complete}.
    begins, averaged: {kind: Counter of the steps at which its runs are fine-tuned, or are complete for SWA}; more than one
    step where children do not go together.
    """

    def __init__(self, runs):
        self.begins, self.averaged = ends_for_children(runs, "finetune"), ends_for_children(runs, "swa")
        of_kinds = {}
        for run in runs:
            of_kinds.setdefault(kind_of(run), []).append(run)
        self.at_length = {}
        for kind, of_kind in of_kinds.items():
            length = self.length_of(kind, of_kind)
            self.at_length |= {run: self.at(run, length) for run in of_kind}

    def length_of(self, kind, runs):
        """The length at which runs of a kind are compared; None where each has its own."""
        if kind[0] not in ("pretrain", "finetune"):
            return None
        counts = self.begins.get(kind) or self.averaged.get(kind)
        counts = counts or Counter(length for run in runs for length in run.lengths)
        return max(counts, key=lambda length: (counts[length], length)) if counts else None

    def at(self, run, length):
        """A run at a length, if it has been complete at it or kept its weights; as it is, if that is complete; or None."""
        if not run.complete and "swa" in run.metrics:
            return before_more_windows(run)
        if length is None or run.settings["steps"] <= length:
            return run if run.complete else None
        if length in run.lengths or (
            length in run.kept and self.is_continued(kind_of(run)) and run.has_row(length)
        ):
            return run.until(length)
        return run if run.complete else None

    def is_continued(self, kind):
        return kind in self.begins or kind in self.averaged

    def lines(self, folder):
        """What to say of runs that are longer than they are compared at, and of stages that begin elsewhere."""
        longer, lines = {}, []
        for run, shown in self.at_length.items():
            if shown is not None and shown is not run:
                longer.setdefault((kind_of(run), shown.settings["steps"]), []).append(run)
        for (kind, length), runs in longer.items():
            why = "where others go on from them" if self.is_continued(kind) else "which most have come to"
            names = named(f"{relative(run.path, folder)} ({progress_of(run)})" for run in runs)
            lines.append(f"{folder}: compared as they were at {runs[0].unit} {length}, {why}: {names}")
        for kind, ends in self.averaged.items():
            if {*ends} != {*self.begins.get(kind, ends)}:
                steps = [" and ".join(map(str, sorted(of_stage))) for of_stage in (ends, self.begins[kind])]
                lines.append(
                    f"{folder}: SWA is of runs of length {steps[0]}, and fine-tuning of length {steps[1]}"
                )
        return lines


def before_more_windows(run):
    """An SWA run to which windows are being added, as it was before."""
    windows = run.metrics["swa"]["window"]
    run = run.until((max(windows) - 1) * run.settings["spacing"])
    run.settings = run.settings | {"windows": windows}
    return run


def ends_for_children(runs, stage):
    """{kind of runs: Counter of their lengths for runs of a stage that continue them}, without those that had_ended() then.

    Fine-tuning begins at the end, and SWA begins or ends there.
    """
    there, ends = {run.path.resolve(): run for run in runs}, {}
    for run in runs:
        parent = there.get(run.parent_path)
        if run.config["stage"] == stage and parent is not None and parent.metrics and run.lengths:
            step = run.config["parent"]["step"]
            if not had_ended(parent, step):
                at_end = run.settings.get("anchor") == "end"
                ends.setdefault(kind_of(parent), Counter())[step + (run.settings["steps"] if at_end else 0)] += 1
    return ends


def had_ended(run, step):
    """Whether a run had ended by a step, short of its length: its members had diverged, or it stopped when clear."""
    if run.settings["stop_when_clear"] and run.complete and run.last_step <= step < run.settings["steps"]:
        return True
    return all(at is not None and at <= step for at in run.metrics["diverged_at"])
