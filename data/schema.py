"""What JSON in run folders looks like, and the check of all that is read from there.

A schema is a Kind; an Array or a Table of a schema; a Nullable or, in dictionaries, an Optional one; or a dictionary of
what must stand under its keys, beside which others may, which are of the schema under OTHERS, if any.
"""

import itertools
import math
from typing import NamedTuple

from data.commandline import LIMITS, RADII

NULL = type(None)
LARGEST = 2**53  # of whole numbers: more is nothing that is counted here, and too large for tensors


class Kind(NamedTuple):
    """A value of one of some types; numbers above a limit, up to another; where there are choices, one of these."""

    types: frozenset
    above: float = -math.inf
    most: float = math.inf
    choices: tuple = ()


class Array(NamedTuple):
    """A list. Arrays whose length has the same name, such as `member`, are equally long in all of a run."""

    of: object
    length: str | None = None


class Table(NamedTuple):
    """A dictionary with any keys."""

    of: object


class Optional(NamedTuple):
    """What may be missing under its key."""

    of: object


class Nullable(NamedTuple):
    """Something or null."""

    of: object


OTHERS = ...  # the key, in a schema, of all keys that it does not name


def one_of(*choices):
    return Kind(frozenset({str}), choices=choices)


WHOLE = Kind(frozenset({int}), above=-1)  # at least 0
COUNT = Kind(frozenset({int}), above=0)
TEXT, FLAG = Kind(frozenset({str})), Kind(frozenset({bool}))
REAL, POSITIVE = Kind(frozenset({int, float})), Kind(frozenset({int, float}), above=0)
# What is beyond what can be asked for would be infinite in training, and is nothing to draw.
RATE, RADIUS = (Kind(frozenset({int, float}), above=0, most=most) for _, most in (LIMITS, RADII))
MEASURED = Kind(frozenset({int, float, NULL}))  # null: not measured or not finite
OPTION = Kind(frozenset({int, float, bool}), most=LIMITS[1])

OF_MEMBERS = Array(MEASURED, "member")
SERIES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
VERDICTS = ("diverged", "at chance", "converged", "plateaued")  # early ones, see regimes.early_verdict()
OF_SOLUTIONS = {name: Array(OF_MEMBERS, "window") for name in SERIES}

NETWORK = {
    "task": Optional(one_of("ticks", "images")),
    "kind": Optional(TEXT),
    "lr_label": Optional(TEXT),
    "converged": Optional(Nullable(REAL)),
    "diverges": Optional(FLAG),
    "barrier": Optional({"points": COUNT, "on_sphere": FLAG, "batch_norm": FLAG, "floor": POSITIVE}),
}
SETTINGS = {
    "data": TEXT,
    "classes": COUNT,
    "model": TEXT,
    "model_digest": Optional(TEXT),
    "optimizer": Optional(
        {
            "name": one_of("projected-sgd", "sgd", "adam", "adamw"),
            "betas": Optional(Array(REAL, "beta")),
            OTHERS: OPTION,
        }
    ),
    "batch_size": COUNT,
    "rho": Nullable(RADIUS),
    "compile": Optional(FLAG),
    "first_step": WHOLE,
    "steps": WHOLE,
    "log_every": COUNT,
    "keep": Array(WHOLE),
    "until_loss": Optional(Nullable(POSITIVE)),
    "stop_when_clear": Optional(FLAG),
    "keep_loss": Optional(Array(POSITIVE)),
}
SETTINGS_ON_IMAGES = {
    "digest": TEXT,
    "width": Nullable(COUNT),
    "shape": Optional(Table(COUNT)),
    "precision": Optional(one_of("fp32", "tf32", "bf16")),
    "augment": Optional(one_of("none", "crop-flip", "randaugment")),
    "report": Optional(one_of("test", "validation")),
}
SETTINGS_OF_SWA = {"windows": Array(COUNT), "spacing": COUNT, "anchor": one_of("start", "end")}
EXECUTION = {
    "argv": Optional(Nullable(Array(TEXT))),
    "git_commit": Optional(Nullable(TEXT)),
    "versions": Optional(Nullable(Table(TEXT))),
    "device": Optional(Nullable(TEXT)),
    "processor": Optional(Nullable(TEXT)),
}
RESUMED = Optional(Array({"step": WHOLE} | EXECUTION))
CONFIG = EXECUTION | {
    "format": Optional(COUNT),
    "stage": one_of("pretrain", "finetune", "swa"),
    "network": Optional(NETWORK),
    "settings": SETTINGS,
    "members": Array({"lrs": Array(RATE), "seed": WHOLE, "data_seed": Optional(WHOLE)}, "member"),
    "parent": Nullable({"run": TEXT, "step": WHOLE, "sha256": Optional(TEXT)}),
    "data_file": Nullable(TEXT),
    "samples": Optional({"train": COUNT, "test": COUNT}),
    "resumed": RESUMED,
    "earlier": Optional(Array(EXECUTION | {"steps": WHOLE, "keep": Array(WHOLE), "resumed": RESUMED})),
}
METRICS = {
    "status": one_of("running", "complete"),
    "unit": one_of("epoch", "iteration"),
    "diverged_at": Array(Nullable(WHOLE), "member"),
    "step": Array(WHOLE, "step"),
    **{name: Array(OF_MEMBERS, "step") for name in SERIES},
    "swa": Optional({"window": Array(COUNT, "window")} | OF_SOLUTIONS),
    "reestimated": Optional({"test_loss": OF_MEMBERS, "test_accuracy": OF_MEMBERS}),
    "verdict": Optional(Array(Nullable(one_of(*VERDICTS)), "member")),
}
CURVATURE = ("gradient_norm", "largest_eigenvalue", "residual", "trace", "trace_error")
LIMITS = Array(WHOLE, "end of a band")
# By the first word of their names. Earlier ones may lack what is optional in them.
MEASUREMENTS = {
    "features": {
        "solution": Array(TEXT, "solution"),
        "balanced_accuracy": Optional(Array(Array(Array(MEASURED, "feature"), "member"), "solution")),
    },
    "geometry": {
        "low_flr": POSITIVE,
        "high_flr": POSITIVE,
        "window": COUNT,
        **{name: Table(OF_MEMBERS) for name in ("angle", "train_barrier", "test_barrier")},
    },
    "bands": {"solution": TEXT, "normalisation": TEXT, "limits": Table(LIMITS), "accuracy": Table(OF_MEMBERS)},
    "low": {
        "solution": TEXT,
        "normalisation": TEXT,
        "low_ends": Array(WHOLE),
        "limits": Table(Table(LIMITS)),
        "accuracy": Table(Table(OF_MEMBERS)),
    },
    "test": {
        "solution": Array(TEXT, "solution"),
        **{name: Array(OF_MEMBERS, "solution") for name in ("loss", "accuracy")},
    },
    "norms": {OTHERS: Array(Nullable(Array(MEASURED, "filter")), "member")},
    "sharpness": {
        "solution": Optional(TEXT),
        "images": COUNT,
        "most": COUNT,
        "probes": COUNT,
        "step": Array(WHOLE, "member"),
        "test_accuracy": OF_MEMBERS,
        **{name: Optional(OF_MEMBERS) for name in ("train_loss", "train_accuracy", *CURVATURE)},
    },
    "band": {
        "class": TEXT,
        "panels": Array(
            {
                "name": TEXT,
                "limits": Nullable(LIMITS),
                "pixels": Array(Array(Array(REAL, "colour"), "column"), "row"),
                "spectrum": Array(Array(MEASURED, "column"), "row"),
            }
        ),
    },
}


def fault(value, schema, sizes, where=""):
    """What is wrong with a value that is to be like a schema, in a few words; None where nothing is.

    sizes: {name of a length: length}, to which those are added that are met first. where: path of the value.
    """
    if isinstance(schema, Nullable):
        return None if value is None else fault(value, schema.of, sizes, where)
    if isinstance(schema, Optional):
        return fault(value, schema.of, sizes, where)
    if isinstance(schema, Array):
        return _fault_of_array(value, schema, sizes, where)
    if isinstance(schema, Kind):
        return _fault_of_kind(value, schema, where)
    if not isinstance(value, dict):
        return f"{where or 'the file'} is {_name_of(value)}, not an object"
    if isinstance(schema, Table):
        schema = dict.fromkeys(value, schema.of)
    missing = [key for key, of in schema.items() if key not in {*value, OTHERS} and not isinstance(of, Optional)]
    if missing:
        return f"has no `{_joined(where, missing[0])}`"
    named = [key for key in value if key in schema or OTHERS in schema]
    return _first(
        fault(value[key], schema.get(key, schema.get(OTHERS)), sizes, _joined(where, key)) for key in named
    )


def _fault_of_array(value, schema, sizes, where):
    if not isinstance(value, list):
        return f"{where} is {_name_of(value)}, not a list"
    if schema.length and sizes.setdefault(schema.length, len(value)) != len(value):
        return f"{where} has {len(value)} entries, not {sizes[schema.length]}, one for each {schema.length}"
    if _all_fit(value, schema.of, sizes):
        return None
    return _first(fault(item, schema.of, sizes, f"{where}[{index}]") for index, item in enumerate(value))


def _all_fit(values, schema, sizes):
    """Whether all values of a list fit, told for a level of nested lists at once, as there may be millions of numbers.

    False also where that does not tell.
    """
    types = set(map(type, values))
    if isinstance(schema, Array) and types == {list}:
        lengths = set(map(len, values))
        if schema.length and lengths != {sizes.setdefault(schema.length, len(values[0]))}:
            return False
        return _all_fit(list(itertools.chain.from_iterable(values)), schema.of, sizes)
    if not isinstance(schema, Kind) or schema.choices or not types <= schema.types:
        return False
    numbers = [value for value in values if value is not None]
    is_any = not numbers or schema.above == -math.inf and schema.most == math.inf and int not in types
    return is_any or schema.above < min(numbers) and max(numbers) <= min(schema.most, LARGEST)


def _fault_of_kind(value, kind, where):
    if type(value) not in kind.types:
        return f"{where} is {_name_of(value)}, not {' or '.join(sorted({NAMES[of] for of in kind.types}))}"
    if kind.choices and value not in kind.choices:
        return f"{where} is {value!r:.40}, none of {', '.join(kind.choices)}"
    if isinstance(value, int | float) and not value > kind.above:
        return f"{where} is {value:g}, not above {kind.above:g}"
    most = min(kind.most, LARGEST if isinstance(value, int) else math.inf)
    if isinstance(value, int | float) and value > most:
        return f"{where} is {value:g}, more than {most:g}"


def fault_of_config(config, sizes):
    """What is wrong with a config.json, see fault()."""
    found = fault(config, CONFIG, sizes)
    if found:
        return found
    settings, members = config["settings"], config["members"]
    on_images = settings["data"] != "ticks" or "digest" in settings
    task = config.get("network", {}).get("task")
    if task not in (None, "images" if on_images else "ticks"):
        return f"network.task is {task}, but settings.data is {settings['data']!r:.40}"
    found = fault(settings, SETTINGS_ON_IMAGES if on_images else {}, sizes, "settings") or fault(
        settings, SETTINGS_OF_SWA if config["stage"] == "swa" else {}, sizes, "settings"
    )
    if found:
        return found
    if on_images and settings["width"] is None and "model_digest" not in settings:
        return "settings.width is null, but settings.model is no network of a user's own"
    if "model_digest" in settings and not (on_images and "side" in settings.get("shape", {})):
        return "settings.shape has no `side`, but settings.model_digest is there"
    if not members or not all(member["lrs"] for member in members):
        return "members have no learning rate"
    if on_images and config["data_file"] is None:
        return "data_file is null, but settings.data is an image set"
    if not on_images and not all("data_seed" in member for member in members):
        return "has no `members[0].data_seed`"
    if config["stage"] == "swa" and not settings["windows"]:
        return "settings.windows is empty"
    if config["stage"] == "pretrain" and config["parent"] is not None:
        return "parent is an object, but stage is pretrain"


def fault_of_metrics(metrics, sizes, settings):
    """What is wrong with a metrics.json, see fault(); settings: those of the run."""
    found = fault(metrics, METRICS, sizes)
    if found:
        return found
    steps, log_every, length = metrics["step"], settings["log_every"], settings["steps"]
    if not steps:
        return "step is empty"
    if any(map(int.__ge__, steps, steps[1:])):
        return "step is not strictly increasing"
    missing = steps[-1] // log_every + 1 - sum(step % log_every == 0 for step in steps)
    if missing:
        return f"step lacks {missing} of the multiples of {log_every} (settings.log_every)"
    is_clear = settings.get("stop_when_clear") and None not in metrics.get("verdict", [None])
    stopped_early = settings.get("until_loss") is not None or is_clear or None not in metrics["diverged_at"]
    if metrics["status"] == "complete" and (steps[-1] > length or steps[-1] < length and not stopped_early):
        return f"step ends at {steps[-1]}, but status is complete and settings.steps {length}"


def is_measurement(name):
    """Whether a measurement can have this name, see MEASUREMENTS."""
    return name.split("-")[0] in MEASUREMENTS


def fault_of_measurement(name, content, sizes):
    """What is wrong with a measurement of this name, see fault()."""
    return fault(content, MEASUREMENTS.get(name.split("-")[0], {}) | {"end": Optional(WHOLE)}, {**sizes})


def _first(faults):
    return next((found for found in faults if found), None)


def _joined(where, key):
    return f"{where}.{key}" if where else key


NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    NULL: "null",
    list: "a list",
    dict: "an object",
}


def _name_of(value):
    return NAMES[type(value)]
