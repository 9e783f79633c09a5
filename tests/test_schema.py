"""What JSON in run folders must look like: whatever is missing, of another kind or another length is found."""

import copy
import json
import re
import time

import pytest

from data import schema
from data.schema import fault_of_config, fault_of_measurement, fault_of_metrics

SETTINGS = {
    "data": "ticks",
    "classes": 2,
    "model": "si-mlp",
    "optimizer": {"name": "sgd", "momentum": 0.9},
    "batch_size": 64,
    "rho": 6.5,
    "compile": False,
    "first_step": 0,
    "steps": 20,
    "log_every": 10,
    "keep": [10],
    "until_loss": 0.5,
    "keep_loss": [0.5],
}
EXECUTION = {
    "argv": ["train.py"],
    "git_commit": "ab",
    "versions": {"torch": "2.6.0"},
    "device": "cpu, 1 threads",
    "processor": "AVX2",
}
CONFIG = {
    "format": 2,
    "stage": "swa",
    "network": {
        "task": "ticks",
        "kind": "ticks",
        "lr_label": "learning rate",
        "converged": 0.999,
        "diverges": True,
        "barrier": {"points": 11, "on_sphere": False, "batch_norm": False, "floor": 0.01},
    },
    "settings": SETTINGS | {"windows": [2, 5], "spacing": 1, "anchor": "start"},
    "members": [{"lrs": [0.1, 0.2], "seed": seed, "data_seed": 1} for seed in (1, 2)],
    "parent": {"run": "../a", "step": 10, "sha256": "ab"},
    "data_file": "a.pt",
    "earlier": [{"steps": 10, "keep": [10], "resumed": [{"step": 5} | EXECUTION]} | EXECUTION],
    "resumed": [{"step": 5} | EXECUTION],
    **EXECUTION,
}
ON_IMAGES = {
    "digest": "ab",
    "width": 4,
    "shape": {"depth": 2},
    "precision": "fp32",
    "augment": "none",
    "report": "test",
}
IMAGE_CONFIG = {
    "stage": "pretrain",
    "settings": SETTINGS | {"data": "cifar10"} | ON_IMAGES,
    "members": [{"lrs": [0.1], "seed": 1}],
    "parent": None,
    "data_file": "a.pt",
    "samples": {"train": 10, "test": 5},
}
OF_WINDOWS = [[0.5, None], [0.5, 1]]
METRICS = {
    "status": "complete",
    "unit": "iteration",
    "diverged_at": [None, 10],
    "step": [0, 10, 20],
    **{name: [[0.5, 1], [0.5, None], [2, None]] for name in schema.SERIES},
    "swa": {"window": [2, 5], **{name: OF_WINDOWS for name in schema.SERIES}},
    "reestimated": {"test_loss": [0.5, None], "test_accuracy": [0.5, 1]},
}
NUMBERS = [0.5, None]
MEASUREMENTS = {
    "features": {"solution": ["swa-2", "swa-5"], "balanced_accuracy": [[[0.5] * 16] * 2] * 2},
    "geometry-flr1-flr2": {
        "low_flr": 1e-4,
        "high_flr": 1,
        "window": 5,
        **{name: {"LH": NUMBERS} for name in ("angle", "train_barrier", "test_barrier")},
    },
    "bands-keep": {
        "solution": "checkpoint",
        "normalisation": "keep",
        "limits": {"low": [1, 8], "mid": [9, 24]},
        "accuracy": {"low": NUMBERS, "mid": NUMBERS},
    },
    "low-ends-keep": {
        "solution": "checkpoint",
        "normalisation": "keep",
        "low_ends": [4, 6],
        "limits": {"low": {"4": [1, 4], "6": [1, 6]}},
        "accuracy": {"low": {"4": NUMBERS, "6": NUMBERS}},
    },
    "norms": {"checkpoint": [[0.5, 0.5], [0.5, 0.5]]},
    "sharpness-loss-1e-1": {
        "solution": "loss-1e-1",
        "images": 10,
        "most": 10,
        "probes": 2,
        "step": [3, 4],
        **{name: NUMBERS for name in schema.CURVATURE},
        **{name: NUMBERS for name in schema.SERIES if name != "test_loss"},
    },
    "band-images": {
        "class": "cat",
        "panels": [
            {
                "name": "low",
                "limits": [1, 8],
                "pixels": [[[0, 1, 2]] * 2] * 2,
                "spectrum": [[0.5, None]] * 2,
            }
        ],
    },
}
CHECKS = {
    "config": lambda content: fault_of_config(content, {}),
    "image-config": lambda content: fault_of_config(content, {}),
    "metrics": lambda content: fault_of_metrics(content, {"member": 2, "window": 2}, SETTINGS),
    **{
        name: lambda content, name=name: fault_of_measurement(name, content, {"member": 2})
        for name in MEASUREMENTS
    },
}
CONTENTS = {"config": CONFIG, "image-config": IMAGE_CONFIG, "metrics": METRICS, **MEASUREMENTS}
# What earlier files lack, or those of other runs.
NOT_NEEDED = {
    "format",
    "network",
    "argv",
    "samples",
    "earlier",
    "sha256",
    "swa",
    "reestimated",
    "balanced_accuracy",
}
NOT_NEEDED |= {"resumed", "torch", *EXECUTION}
NOT_NEEDED |= {"optimizer", "compile", "until_loss", "keep_loss", "shape", "precision", "augment", "report"}
NOT_NEEDED |= {"task", "kind", "lr_label", "converged", "diverges", "barrier"}  # of a network
OF_SHARPNESS = "sharpness-loss-1e-1"
MAY_BE_MISSING = {(OF_SHARPNESS, "solution"), ("config", "momentum"), ("image-config", "momentum")}
MAY_BE_MISSING |= {("image-config", "depth")}
MAY_BE_MISSING |= {(OF_SHARPNESS, name) for name in (*schema.CURVATURE, "train_loss", "train_accuracy")}


def places(content, path=()):
    """All paths into nested lists and dictionaries."""
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    yield path
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(content, path, change):
    """A copy in which change(container, key) is called for the place."""
    content = copy.deepcopy(content)
    container = content
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return content


def found(content, path):
    for key in path:
        content = content[key]
    return content


@pytest.mark.parametrize("name", CONTENTS)
def test_sound_files_have_no_fault(name):
    assert CHECKS[name](CONTENTS[name]) is None
    assert CHECKS[name](CONTENTS[name] | {"more": 1}) is None or name == "norms"


@pytest.mark.parametrize("name", CONTENTS)
def test_whatever_is_of_another_kind_is_found(name):
    for path in places(CONTENTS[name]):
        for wrong in ({}, [], True, "1", float("nan")):
            value = found(CONTENTS[name], path)
            is_number = isinstance(wrong, float) and isinstance(value, int | float | None)
            is_option = path[-2:] == ("optimizer", "momentum") and isinstance(wrong, bool)
            if not path or isinstance(value, type(wrong)) or is_number or is_option:  # which it may be
                continue

            def put(container, key, wrong=wrong):
                container[key] = wrong

            fault = CHECKS[name](changed(CONTENTS[name], path, put))
            assert fault and "\n" not in fault, (path, wrong)


@pytest.mark.parametrize("name", CONTENTS)
def test_whatever_is_missing_is_found(name):
    def remove(container, key):
        del container[key]

    for path in places(CONTENTS[name]):
        is_key = path and isinstance(path[-1], str)
        of_table = name == "norms" or {"limits", "accuracy", "angle", "train_barrier", "test_barrier"} & {
            *path[:-1]
        }
        if is_key and not of_table and path[-1] not in NOT_NEEDED and (name, path[-1]) not in MAY_BE_MISSING:
            assert f"{path[-1]}`" in CHECKS[name](changed(CONTENTS[name], path, remove))


@pytest.mark.parametrize(
    "path",
    [*[(name,) for name in ("step", *schema.SERIES, "diverged_at")], ("train_loss", 1), ("swa", "window")],
)
def test_series_of_unequal_lengths_are_found(path):
    fault = CHECKS["metrics"](changed(METRICS, path, lambda container, key: container[key].pop()))
    assert "entries, not" in fault


@pytest.mark.parametrize("steps", [[0, 10, 10], [0, 20, 10]])
def test_steps_must_increase(steps):
    assert fault_of_metrics(METRICS | {"step": steps}, {}, SETTINGS) == "step is not strictly increasing"


def without_rows(metrics, *rows):
    """Metrics that lack some rows of all series."""
    kept = {
        name: [of_row for row, of_row in enumerate(metrics[name]) if row not in rows]
        for name in ("step", *schema.SERIES)
    }
    return metrics | kept


@pytest.mark.parametrize("rows", [(0, 1), (1, 2), (0,), (1,), (3, 4), (4,)])
def test_missing_rows_are_found_in_series_of_equal_length(rows):
    series = {name: [[0.5]] * 5 for name in schema.SERIES}
    metrics = {"status": "complete", "unit": "epoch", "diverged_at": [None], "step": [0, 4, 5, 8, 12]} | series
    settings = SETTINGS | {"steps": 12, "log_every": 4, "until_loss": None}
    assert fault_of_metrics(metrics, {"member": 1}, settings) is None
    assert fault_of_metrics(without_rows(metrics, *rows), {"member": 1}, settings).startswith("step ")
    of_the_end = rows[-1] == 4 and metrics["step"][4 - len(rows)] != 4  # as of a run that goes on
    running = without_rows(metrics, *rows) | {"status": "running"}
    assert (fault_of_metrics(running, {"member": 1}, settings) is None) == of_the_end


def test_a_run_may_end_early_where_it_diverged_or_reached_its_loss():
    ended = METRICS | {"diverged_at": [10, 20]}
    assert fault_of_metrics(ended, {}, SETTINGS | {"steps": 30, "until_loss": None}) is None
    assert fault_of_metrics(METRICS, {}, SETTINGS | {"steps": 30}) is None
    fault = fault_of_metrics(METRICS, {}, SETTINGS | {"steps": 30, "until_loss": None})
    assert fault == "step ends at 20, but status is complete and settings.steps 30"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"stage": "pretrain"}, "parent is an object"),
        ({"stage": "anneal"}, "stage is 'anneal', none of pretrain, finetune, swa"),
        ({"settings": SETTINGS}, "has no `settings.windows`"),
        ({"settings": CONFIG["settings"] | {"data": "cifar10"}}, "network.task is ticks"),
        ({"settings": CONFIG["settings"] | {"batch_size": 0}}, "settings.batch_size is 0, not above 0"),
        ({"settings": CONFIG["settings"] | {"keep": [-1]}}, r"settings.keep\[0\] is -1, not above -1"),
        ({"settings": CONFIG["settings"] | {"steps": 10**300}}, "settings.steps is 1e\\+300, more than"),
        ({"members": [{"lrs": [0.1], "seed": 1}]}, "has no `members\\[0\\].data_seed`"),
        ({"members": [{"lrs": [0], "seed": 1, "data_seed": 1}]}, "lrs\\[0\\] is 0, not above 0"),
    ],
)
def test_what_does_not_fit_together_is_found(change, words):
    assert re.search(words, fault_of_config(CONFIG | change, {}))


def test_an_image_run_has_a_data_file():
    assert "data_file is null" in fault_of_config(IMAGE_CONFIG | {"data_file": None}, {})


def test_a_million_numbers_take_seconds():
    metrics = {name: METRICS[name] for name in ("status", "unit")}
    metrics |= {"step": list(range(250_000)), "diverged_at": [None]}
    metrics |= {name: [[0.5]] * 250_000 for name in schema.SERIES}
    started = time.process_time()
    settings = SETTINGS | {"log_every": 1, "steps": 249_999}
    assert fault_of_metrics(metrics, {"member": 1}, settings) is None
    assert time.process_time() - started < 2


def test_members_must_have_a_learning_rate():
    for members in ([], [{"lrs": [], "seed": 1, "data_seed": 1}]):
        assert fault_of_config(CONFIG | {"members": members}, {}) == "members have no learning rate"


def test_faults_name_the_place():
    metrics = copy.deepcopy(METRICS)
    metrics["test_loss"][2][1] = "1"
    assert (
        fault_of_metrics(metrics, {}, SETTINGS)
        == "test_loss[2][1] is text, not a number or a whole number or null"
    )
    assert fault_of_metrics([], {}, SETTINGS) == "the file is a list, not an object"
    assert fault_of_config(json.loads("{}"), {}) == "has no `stage`"
