"""A table of the runs in a folder, whatever they are: how far they are, what came out, what is missing or odd.

    rows = table(folder)
    print(*text_lines(rows), sep="\\n")

Nothing is refused: runs may differ, be half-written, or continue a run that is gone. A row is a run folder; of folders with
several members it is what shares stage, learning rates, length and notes, in any number of folders, with means over
members.
"""

import csv
import io
import json
from collections import Counter

import numpy as np

from data.analysis.choosing import chosen_paths, relative
from data.analysis.lengths import Lengths, kind_of, stage_of
from data.analysis.pairing import STAGES, title
from data.analysis.regimes import FALLS, TOO_SHORT, as_float, why_unfinished
from data.analysis.study import LENGTHS, measurements
from data.commandline import BadInput, counted, lr_name
from data.files import write_atomically
from data.images import TEST, reported_split
from data.locks import is_held
from data.runs import Run

KEPT = ("log_every", "keep", "keep_loss", "stop_when_clear")  # settings in which runs of a stage may well differ
ONCE = {"band-images", "test"}  # measurements of one run alone
NOT_CONVERGED = {
    FALLS: "not converged, and the train loss still falls",
    TOO_SHORT: "not converged, and too few steps are logged to tell if the train loss still falls",
}
COLUMNS = (
    "run", "stage", "lrs", "window", "seed", "n", "status", "done", "planned", "unit", "train_loss", "train_accuracy",
    "test_accuracy", "report", "notes", "command",
)  # fmt: skip


def table(folder, only=(), exclude=()):
    """The rows, dictionaries with COLUMNS as keys, in order of stages, learning rates and paths.

    `lrs` are those of all stages, and `window` the number of weights in the average that a row of SWA is of, the largest
    one; `seed` of a row for several members is None and `n` their number; `status` is
    `complete`, `running` (a process is at work), `stopped` or `unreadable`; `done` and `planned` count in `unit`;
    accuracies are fractions at the last logged step, of SWA runs those of the average, None where not finite;
    `report` is the split that `test_accuracy` is of, `test` or `validation`;
    `notes` are texts, and `command` is what finishes a run that stopped.
    Raises BadInput where there are no run folders, or a pattern matches none.
    """
    runs, unreadable = [], []
    for path in chosen_paths(folder, only, exclude):
        try:
            runs.append(checked(Run(path)))
        except BadInput as error:
            unreadable.append((path, str(error)))
    surroundings, rows, merged = Surroundings(runs), [], {}
    for run in runs:
        notes = surroundings.notes_on(run)
        for index in range(len(run.members)):
            row = row_of(run, index, folder, notes)
            if len(run.members) == 1:
                rows.append(row)
            else:
                shared = ("stage", "lrs", "window", "status", "done", "planned", "notes", "command")
                merged.setdefault(json.dumps([row[name] for name in shared]), []).append(row)
    rows += [mean_row(of_row) for of_row in merged.values()]
    rows.sort(key=lambda row: (STAGES.index(row["stage"]), row["lrs"], row["run"]))
    for path, error in unreadable:
        rows.append(
            dict.fromkeys(COLUMNS) | {"run": relative(path, folder), "status": "unreadable", "notes": [error]}
        )
    return rows


def checked(run):
    """The run. Raises BadInput where config.json or metrics.json is not what rows are made of."""
    try:
        stage_of(run), [(member["lrs"], member["seed"]) for member in run.members]
        if run.metrics:
            row_values(run, 0), run.last_step
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadInput(
            f"{run.path}: is damaged ({type(error).__name__} {error}); remove it and run again"
        ) from None
    return run


def row_of(run, index, folder, notes):
    member, found = run.members[index], row_values(run, index) if run.metrics else {}
    status = "complete" if run.complete else "running" if is_held(run.path) else "stopped"
    verdict = run.metrics.get("verdict", [None] * len(run.members))[index] if run.complete else None
    if verdict and run.last_step < run.settings["steps"]:
        notes = [*notes, f"stopped when clear: {verdict}"]
    if found.pop("diverged_at", None) is not None:
        notes = [*notes, f"diverged at {run.unit} {run.metrics['diverged_at'][index]}"]
    elif run.complete and stage_of(run) == "pretrain":
        unfinished = why_unfinished(run.metrics, index, run.network["converged"])
        notes = [*notes, *([NOT_CONVERGED[unfinished]] if unfinished else [])]
    return dict.fromkeys(COLUMNS) | {
        "run": relative(run.path, folder),
        "stage": stage_of(run),
        "lrs": member["lrs"],
        "window": max(run.settings.get("windows") or [None]),
        "seed": member["seed"],
        "n": 1,
        "status": status,
        "done": run.last_step if run.metrics else 0,
        "planned": run.settings.get("steps"),
        "unit": run.metrics.get("unit"),
        "report": reported_split(run.settings),
        "notes": notes,
        "command": run.finishing_command if status == "stopped" else None,
        **found,
    }


def row_values(run, index):
    """The numbers of a member at the last logged step, or of the largest average of SWA; None where not finite."""
    source = {name: run.metrics[name][-1][index] for name in ("train_loss", "train_accuracy", "test_accuracy")}
    swa = run.metrics.get("swa") or {}
    if swa.get("window"):
        largest = swa["window"].index(max(swa["window"]))
        source |= {name: swa[name][largest][index] for name in source if swa.get(name)}
    found = {name: as_float(number) for name, number in source.items()}
    found = {name: None if np.isnan(number) else number for name, number in found.items()}
    return found | {"diverged_at": run.metrics["diverged_at"][index]}


def mean_row(rows):
    """One row for members of several: means over those whose value is finite, and how many members there are.

    Means have 7 digits, as metrics do.
    """
    first, folders = rows[0], list(dict.fromkeys(row["run"] for row in rows))
    found = {
        "run": folders[0] + (f" and {len(folders) - 1} more" if folders[1:] else ""),
        "seed": None if rows[1:] else first["seed"],
    }
    for name in ("train_loss", "train_accuracy", "test_accuracy"):
        values = [row[name] for row in rows if row[name] is not None]
        found[name] = float(f"{np.mean(values):.7g}") if values else None
    return first | found | {"n": len(rows)}


# --------------------------------------------------------------------------------------------------------------- notes


class Surroundings:
    """What the runs in a folder are like, beside which one may be odd."""

    def __init__(self, runs):
        self.paths = {run.path.resolve() for run in runs}
        self.most = most_common_settings(runs, {name for run in runs for name in run.settings} - {*LENGTHS})
        of_kinds, self.measured = {}, {}
        self.measurements = {run: measurements(run) if run.complete else (set(), []) for run in runs}
        for run in runs:
            of_kinds.setdefault(kind_of(run), []).append(run)
            there, _ = self.measurements[run]
            self.measured.setdefault((kind_of(run), later_lrs(run)), set()).update(there - ONCE)
        lengths = set(LENGTHS) - {*KEPT}
        self.most_of_kind = {kind: most_common_settings(of_kind, lengths) for kind, of_kind in of_kinds.items()}
        self.next_stages, self.expected_stages = next_stages(runs)
        self.at_length = Lengths(runs).at_length

    def notes_on(self, run):
        """What is odd about a run: settings unlike most, a parent that is gone, what is damaged, what only others have."""
        most = self.most | self.most_of_kind[kind_of(run)]
        notes = [
            f"{name.replace('_', ' ')} {run.settings.get(name)}, of most {of_most}"
            for name, of_most in sorted(most.items())
            if str(run.settings.get(name)) != of_most
        ]
        if run.parent_path and run.parent_path not in self.paths:
            notes.append(f"the run that it continues, {run.config['parent']['run']}, is not here")
        shown = self.at_length[run]
        if shown is not None and shown is not run:
            notes.append(f"compared as it was at {run.unit} {shown.settings['steps']}")
        if run.complete:
            there, damage = self.measurements[run]
            notes += damage
            missing = self.measured[kind_of(run), later_lrs(run)] - there
            missing = sorted(name for name in missing if is_measurable(run, name))
            notes += [f"not measured: {', '.join(missing)}"] if missing else []
            notes += self.note_on_next_stages(run) if stage_of(run) == "pretrain" else []
        return notes

    def note_on_next_stages(self, run):
        """The stages that continue other pre-trainings and not this one."""
        missing = self.expected_stages - self.next_stages.get(run.path.resolve(), set())
        flrs = sorted(flr for stage, flr in missing if stage == "finetune")
        titles = [
            *([title("finetune", *flrs)] if flrs else []),
            *([title("swa")] if ("swa", None) in missing else []),
        ]
        return [f"not continued by: {', '.join(titles)}"] if titles else []


def next_stages(runs):
    """({pre-training's folder: what continues it, as ("finetune", FLR) or ("swa", None)}, all of these but second stages)."""
    goes_on = {run.parent_path for run in runs if run.config["stage"] == "finetune" and is_further(run)}
    paths, found, expected = {run.path.resolve() for run in runs}, {}, set()
    for run in runs:
        if run.parent_path in paths:
            for _, *later in (member["lrs"] for member in run.members):
                if (stage_of(run), len(later)) in (("finetune", 1), ("swa", 0)):
                    stage = (stage_of(run), *(later or [None]))
                    found.setdefault(run.parent_path, set()).add(stage)
                    if run.path.resolve() not in goes_on:
                        expected.add(stage)
    return found, expected


def is_further(run):
    """Whether a run continues fine-tuning at another learning rate, which makes that a second stage of pre-training."""
    return any(len(member["lrs"]) > 2 and member["lrs"][2] != member["lrs"][1] for member in run.members)


def later_lrs(run):
    """The learning rates of all stages after the first, of all members."""
    return tuple(sorted({tuple(member["lrs"][1:]) for member in run.members}))


def is_measurable(run, name):
    """Whether a run has the weights of a measurement that others have; sharpness is that of weights kept in some runs."""
    kept, _, weights = name.partition("-")
    return kept != "sharpness" or run.has_weights(weights)


def most_common_settings(runs, names):
    """{name: the value of most of the runs, as text}."""
    return {name: Counter(str(run.settings.get(name)) for run in runs).most_common(1)[0][0] for name in names}


# -------------------------------------------------------------------------------------------------------------- output

HEADINGS = (
    "run",
    "stage",
    "PLR",
    "seed",
    "n",
    "status",
    "done",
    "train loss",
    "train acc. %",
    "{split} acc. %",
    "notes",
)


def reported_name(rows, name, both):
    """A name in which {split} stands for what the rows report on, where they differ as `test<both>validation`."""
    return name.format(split=both.join(sorted({row["report"] for row in rows} - {None})) or TEST)


def text_lines(rows):
    """The table as lines of aligned columns, and how to finish what stopped."""
    headings = [reported_name(rows, heading, " or ") for heading in HEADINGS]
    cells = [headings, *(cells_of(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells]
    commands = dict.fromkeys(row["command"] for row in rows if row["command"])
    return [*lines, *(["to finish what stopped:", *(f"  {command}" for command in commands)] if commands else [])]


def cells_of(row):
    if row["status"] == "unreadable":
        return row["run"], *[""] * 4, "unreadable", *[""] * 4, "; ".join(row["notes"])
    plr, *later = row["lrs"]
    planned = "" if row["planned"] is None else f"/{row['planned']}"
    length = f"{row['done']}{planned} {row['unit'] or 'step'}s"
    return (
        row["run"],
        title(row["stage"], *later) + ("" if row["window"] is None else f" of {row['window']} weights"),
        lr_name(plr),
        counted(row["n"], "member") if row["seed"] is None else str(row["seed"]),
        str(row["n"]),
        row["status"],
        length,
        number_text(row["train_loss"], 1, ".3g"),
        number_text(row["train_accuracy"], 100, ".2f"),
        number_text(row["test_accuracy"], 100, ".2f"),
        "; ".join(row["notes"]),
    )


def number_text(number, scale, form):
    return "-" if number is None else format(scale * number, form)


def write_csv(path, rows):
    """Write the rows as comma-separated values; learning rates and notes are joined by spaces and semicolons.

    The column of `test_accuracy` is named by the split that it is of.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writerow(
        {name: name for name in COLUMNS} | {"test_accuracy": reported_name(rows, "{split}_accuracy", "_or_")}
    )
    for row in rows:
        lrs = " ".join(map(repr, row["lrs"] or []))
        writer.writerow(row | {"lrs": lrs, "notes": "; ".join(row["notes"])})
    # Names of folders that are not UTF-8 are written as they are.
    write_atomically(path, lambda file: file.write(text.getvalue().encode(errors="surrogateescape")))
