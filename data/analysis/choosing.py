"""Which of the runs in a folder an analysis is about: what the command line chooses, and runs that do not go together."""

import json
import shlex
from fnmatch import fnmatchcase

from data.commandline import BadInput, counted
from data.locks import is_held
from data.runs import RUNNING, Run, run_paths

MOST_NAMED = 8  # runs that a message names


def add_choice_arguments(parser):
    """Add --only-runs and --exclude to a command that reads the runs in a folder."""
    of = "shell patterns of run folders, by their path in the folder or their name"
    parser.add_argument(
        "--only-runs", nargs="+", default=(), metavar="PATTERN", help=f"take only these runs: {of}"
    )
    parser.add_argument("--exclude", nargs="+", default=(), metavar="PATTERN", help=f"skip these runs: {of}")


def chosen_paths(folder, only=(), exclude=()):
    """The run folders in a folder and below it that match one of `only`, if there are any, and none of `exclude`.

    Raises BadInput where a pattern matches nothing, or no run is left.
    """
    paths = run_paths(folder)
    for flag, patterns in (("--only-runs", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not match_any(paths, folder, [pattern]):
                raise BadInput(
                    f"{flag} {shlex.quote(pattern)}: matches no run folder in {folder}, such as {paths[0]}"
                )
    excluded = match_any(paths, folder, exclude)
    chosen = [path for path in (match_any(paths, folder, only) if only else paths) if path not in excluded]
    if not chosen:
        raise BadInput(f"{folder}: --only-runs and --exclude leave no run; choose others")
    return chosen


def choice_by_folder(folders, only, exclude):
    """[(folder, only, exclude)] of several folders, where it is enough that a pattern matches in one of them."""
    paths = {folder: run_paths(folder) for folder in folders}

    def of_folder(folder, patterns):
        """Those that match here, or nowhere, which is refused."""
        return [
            pattern
            for pattern in patterns
            if match_any(paths[folder], folder, [pattern])
            or not any(match_any(paths[other], other, [pattern]) for other in paths)
        ]

    return [(folder, of_folder(folder, only), of_folder(folder, exclude)) for folder in folders]


def chosen_runs(folder, only=(), exclude=()):
    """The Runs of chosen_paths(), in order of their paths. Raises BadInput."""
    return [Run(path) for path in chosen_paths(folder, only, exclude)]


def match_any(paths, folder, patterns):
    """The run folders that one of these shell patterns matches, by their path in the folder or their name.

    `*` matches `/`, too.
    """
    patterns = [pattern.rstrip("/") for pattern in patterns]
    return [
        path
        for path in paths
        if any(fnmatchcase(name, pattern) for pattern in patterns for name in (relative(path, folder), path.name))
    ]


def relative(path, folder):
    """A run folder's path in a folder, as text."""
    return path.relative_to(folder).as_posix()


def named(names, separator=", "):
    """Names, cut where they are many."""
    names = list(names)
    rest = len(names) - MOST_NAMED
    return separator.join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def refuse_differences(folder, runs, names):
    """Raise BadInput where runs differ in settings with these names; it names all runs but the largest group of equals."""
    groups = {}
    for run in runs:
        values = [run.settings.get(name) for name in sorted(names)]
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(run)
    if len(groups) < 2:
        return
    most, *others = sorted(groups.values(), key=len, reverse=True)
    differing = [
        name for name in sorted(names) if len({str(of[0].settings.get(name)) for of in groups.values()}) > 1
    ]

    def values(groups):
        """What these groups have, in words: `steps 20, width 8`, or `steps 20 or 30`."""
        of_names = {name: dict.fromkeys(str(of[0].settings.get(name)) for of in groups) for name in differing}
        return ", ".join(f"{name.replace('_', ' ')} {' or '.join(found)}" for name, found in of_names.items())

    odd = [run for group in others for run in group]
    example = relative(most[0].path, folder)
    others_text = f"{len(most)} others, as {example}" if len(most) > 1 else f"other, {example}"
    longer = ""
    if differing == ["steps"]:
        longest = max(run.settings["steps"] for run in runs)
        longer = f", make the shorter ones longer by their commands with --steps {longest}"
    raise BadInput(
        f"{folder}: {named(relative(run.path, folder) for run in odd)} ha{'s' if len(odd) == 1 else 've'} "
        f"{values(others)}, and the {others_text}, {values([most])}; "
        f"{ways_out(folder, odd)}{longer}, or give the folder of one experiment"
    )


def refuse_repeated(folder, repeated):
    """Raise BadInput where solutions are there twice. repeated: [(run, an earlier run with the same one)]."""
    if repeated:
        first, second = (list(dict.fromkeys(runs)) for runs in zip(*repeated))
        names = [named(relative(run.path, folder) for run in runs) for runs in (first, second)]
        raise BadInput(
            f"{folder}: {' and '.join(names)} hold the same learning rate and seed; {ways_out(folder, first)}, or remove "
            f"them"
        )


def ways_out(folder, odd):
    """How to go on without odd runs, or with them."""
    return f"skip the former by --exclude {exact_patterns(folder, odd)}, take others by --only-runs PATTERN..."


def exact_patterns(folder, runs):
    """Shell patterns, quoted, that match these runs and no others in the folder; `PATTERN...` where there are many."""
    paths, wanted, patterns = run_paths(folder), {run.path for run in runs}, {}
    for path in (run.path for run in runs):
        of_siblings = f"{relative(path.parent, folder)}/*"
        matched = match_any(paths, folder, [of_siblings])
        patterns[of_siblings if len(matched) > 1 and wanted >= {*matched} else relative(path, folder)] = None
    return shlex.join(patterns) if len(patterns) <= MOST_NAMED else "PATTERN..."


# ----------------------------------------------------------------------------------------------------- unfinished runs


def progress_of(run):
    """How far a run is: `epoch 35 of 200`, or `not begun`."""
    if not run.metrics:
        return "not begun"
    length = run.settings.get("steps")
    return f"{run.metrics.get('unit', RUNNING)} {run.last_step}" + (f" of {length}" if length else "")


def how_to_finish(run):
    """The command that finishes a run, or that a process is at work on it."""
    if is_held(run.path):
        return "a process is at work on it"
    return run.finishing_command or "by the command that began it"


def fix_of_incomplete(folder, runs):
    """How to finish the first of some runs, if there are any."""
    return runs and f"finish {relative(runs[0].path, folder)} ({progress_of(runs[0])}): {how_to_finish(runs[0])}"


def incomplete_lines(folder, runs):
    """What to say of runs that are not complete: how many, and by the command that finishes them which, cut where many."""
    if not runs:
        return []
    by_command = {}
    for run in runs:
        by_command.setdefault(how_to_finish(run), []).append(run)
    are, they, them = ("are", "these", "them") if runs[1:] else ("is", "it", "it")
    count = counted(len(runs), "run")
    lines = [f"{folder}: {count} {are} not complete and {are} skipped; {they} and what finishes {them}:"]
    for command, of_command in list(by_command.items())[:MOST_NAMED]:
        lines.append(
            f"  {named(f'{relative(run.path, folder)} ({progress_of(run)})' for run in of_command)}: {command}"
        )
    rest = len(by_command) - MOST_NAMED
    return lines + (
        [f"  and those of {counted(rest, 'more command')}: analyze.py runs {folder}"] if rest > 0 else []
    )
