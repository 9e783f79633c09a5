"""A table of the boundaries between regimes of several experiments, from what `analyze.py claims --json` wrote."""

from pathlib import Path

from data.analysis.boundaries import RESAMPLES
from data.analysis.captions import experiment_title
from data.analysis.explanations import TITLES
from data.commandline import BadInput, lr_name
from data.files import read_json

HEADER = ("experiment", "folder", *(title.replace("|", r"\|") for title in TITLES.values()))


def boundary_table(paths):
    """Lines of a Markdown table, one for every file. Raises BadInput where one is not such a file."""
    rows = [HEADER, ("---",) * len(HEADER), *map(table_row, paths)]
    return [f"| {' | '.join(row)} |" for row in rows]


def table_row(path):
    content = read_json(path)
    try:
        title, regimes = experiment_title(content), content["regimes"]
        return title, Path(path).parent.name, *(boundary_text(regimes[name]) for name in TITLES)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise BadInput(f"{path}: is not what `analyze.py claims --json` writes; write it again") from None


def boundary_text(place):
    """Where a boundary lies: the PLRs next to it, in how many resamples, and the range of all places that are likely."""
    if place is None:
        return "not bracketed"
    text = between([place["last"], place["next"]])
    if "shares" not in place:
        return f"{text} (single runs)"
    share, likely = place["shares"].get(str(place["last"]), 0), between(place["range"])
    return f"{text} ({100 * share:.0f} % of {RESAMPLES} resamples{f'; {likely}' if likely != text else ''})"


def between(plrs):
    return " to ".join(lr_name(float(f"{plr:.3g}")) for plr in plrs)
