"""Run folders: the one contract between the scripts (see "Run folders" in the README).

What is in a run folder, which nothing but this file and open_run.py, which writes it, knows by name:

    config.json     what the run is: arguments, members, parent, versions; written once, and anew when the run grows
    metrics.json    what was measured, arrays indexed [logged step][member]; null = not measured or not finite;
                    `reestimated`: test loss and accuracy of the end with re-estimated batch-norm statistics;
                    `verdict`: what regimes were decided at the end of a run that stops when they are
    checkpoint.pt   everything needed to resume
    step-N.pt       weights kept on request
    loss-L.pt       weights kept where the train loss first crossed a level L
    swa-K.pt        averages of K weights (SWA runs)
    features.json   single-feature accuracies, measured by analyze.py
    geometry-*.json angles and error barriers between the solutions that continue the run, measured by analyze.py
    band-images.json an image and its frequency bands, as numbers
    bands-*.json    accuracies on frequency bands, one file for each way to normalise them, measured by analyze.py
    low-ends-*.json the same on the low and the mid band, with other ends of the low one
    norms.json      norms of filters, measured by analyze.py
    test.json       loss and accuracy over the test set, of runs that report on other images as well, by analyze.py
    sharpness-*.json gradient norm and curvature of weights (loss-L.pt, step-N.pt, checkpoint.pt), measured by analyze.py
    lock            held by the live process that works on the folder
"""

import copy
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from data import schema
from data.commandline import BadInput, Refused, lr_name
from data.files import digest_of, read_json, read_tensors, remove_strays, write_json
from data.locks import hold, release

RUNNING, COMPLETE = "running", "complete"
# What makes two runs the same experiment. The rest of config.json (argv, versions, device) tells of one execution.
IDENTITY = ("stage", "settings", "members", "parent")
GROWING = ("steps", "keep", "windows")  # the settings that a longer run has more of
MEASURED_AT_THE_END = ("features", "geometry-*", "bands-*", "low-ends-*", "norms", "test", "sharpness-checkpoint")
METRICS_OF_THE_END = ("reestimated", "verdict")  # of a run, which may grow, as the measurements before
FORMAT = 2  # of run folders; those of format 1 do not say it, nor what is filled in for them here
# What runs had, and image runs in particular, that were made before there was a choice.
EARLIER_SETTINGS = {
    "compile": False,
    "until_loss": None,
    "stop_when_clear": False,
    "keep_loss": [],
    "optimizer": {"name": "projected-sgd"},
}
EARLIER_IMAGE_SETTINGS = {"precision": "fp32", "augment": "none", "shape": {}, "report": "test"}
# What the analysis must know of the network of a run made before config.json said so, by what it is trained on.
EARLIER_NETWORK = {
    "ticks": {
        "task": "ticks",
        "kind": "ticks",
        "lr_label": "learning rate (effective)",
        "converged": 0.999,
        "diverges": True,
        "barrier": {"points": 11, "on_sphere": False, "batch_norm": False, "floor": 0.01},
    },
    "images": {
        "task": "images",
        "kind": "scale-invariant",
        "lr_label": "learning rate (effective)",
        "converged": 0.999,
        "diverges": True,
        "barrier": {"points": 21, "on_sphere": True, "batch_norm": True, "floor": 0.1},
    },
}
RUN_AGAIN = "remove the folder and run again"
# The arrays of metrics.json with an entry per logged step: `step` itself, and one number per member in the others.
SERIES = ("step", *schema.SERIES)


class Run:
    """A run folder that may only be read: config and metrics as on disk.

    Raises BadInput where the folder is not a run folder or its files cannot be read.
    """

    end = "checkpoint"  # the name of the weights of its end

    def __init__(self, path):
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise BadInput(f"{path}: is not a run folder (no config.json in it)")
        self.config = read_json(self.path / "config.json")
        self._refuse_newer()
        sizes = {}
        self._refuse("config", schema.fault_of_config(self.config, sizes))
        self._sizes = {"member": sizes["member"]}
        on_images = "digest" in self.config["settings"]
        earlier = EARLIER_SETTINGS | (EARLIER_IMAGE_SETTINGS if on_images else {})
        self.config["settings"] = earlier | self.config["settings"]
        earlier_network = EARLIER_NETWORK["images" if on_images else "ticks"]
        self.network = earlier_network | self.config.get("network", {})
        self.members = self.config["members"]
        self.settings = self.config["settings"]
        self.metrics, self._at_end = {}, {}
        if (self.path / "metrics.json").exists():
            self.metrics = read_json(self.path / "metrics.json")
            self._refuse("metrics", schema.fault_of_metrics(self.metrics, {**self._sizes}, self.settings))

    def _refuse_newer(self):
        """Raise BadInput for what a newer version made, which may look in any way."""
        number = self.config.get("format") if isinstance(self.config, dict) else None
        if type(number) is int and number > FORMAT:
            raise BadInput(f"{self.path}: was made by a newer version of this program; use that")

    def _refuse(self, name, fault, fix=f"restore it or {RUN_AGAIN}"):
        """Raise BadInput where there is a fault in a JSON file."""
        if fault:
            raise BadInput(f"{self.path / name}.json: {fault}; {fix}")

    @property
    def complete(self):
        return self.metrics.get("status") == COMPLETE

    @property
    def lengths(self):
        """The lengths at which the run is or has been complete."""
        earlier = {earlier["steps"] for earlier in self.config.get("earlier", [])}
        there = {step for step in earlier if self.has_row(step) and (step >= self.last_step or step in self.kept)}
        return there | ({self.settings["steps"]} if self.complete else set())

    @property
    def kept(self):
        """The steps before the last one whose weights the run has kept."""
        return {step for step in {*self.settings["keep"], *self.kept_earlier} if step < self.last_step}

    @property
    def all_diverged(self):
        return None not in self.metrics["diverged_at"]

    @property
    def trained_to(self):
        """The step of the checkpoint, from which the run goes on; -1 where there is none."""
        return self._read_weights("checkpoint", wholly=False)[0]["step"] if self.has_weights("checkpoint") else -1

    def has_row(self, step):
        """Whether metrics tell of the run as it was at a step: it is logged, or every member had diverged before."""
        steps = self.metrics.get("step", [])
        return step in steps or (bool(steps) and steps[-1] < step and self.all_diverged)

    def until(self, step):
        """The run as it was when it ended at a step that has_row()."""
        run = copy.copy(self)
        run.settings = self.settings | {"steps": step}
        of_any_length = {k: v for k, v in self.metrics.items() if k not in METRICS_OF_THE_END}
        run.metrics = metrics_until(of_any_length, step) | {"status": COMPLETE}
        run.end = step_name(step) if run.last_step == step else "checkpoint"
        return run

    @property
    def parent_path(self):
        """The folder of the run that this one continues, absolute, whether it is there or not; None of a pre-training."""
        parent = self.config["parent"]
        return (self.path / parent["run"]).resolve() if parent else None

    @property
    def kept_earlier(self):
        """The steps whose weights a run has that was shorter once, whether its command now asks for them or not."""
        return {step for earlier in self.config.get("earlier", []) for step in earlier["keep"]}

    @property
    def unit(self):
        """What steps of the run are: `epoch` or `iteration`."""
        return self.metrics["unit"]

    def with_reestimated_statistics(self):
        """The run with the test loss and accuracy of its end re-estimated, see final(), where it has batch norm."""
        run = copy.copy(self)
        run._at_end = self.metrics.get("reestimated", {})
        return run

    def final(self, name):
        """The last values of a series of metrics.json, [member]."""
        return self._at_end.get(name, self.metrics[name][-1])

    @property
    def last_step(self):
        """The last logged step: the whole length, or less where every member diverged."""
        return self.metrics["step"][-1]

    def weights(self, name="checkpoint", put=None):
        """The tensors of checkpoint.pt, step-N.pt or swa-K.pt, by name without the ending, on the CPU.

        `checkpoint` of a run as it was earlier, see until(), are those kept of its end then.
        put: called with them to put them into a network; what it raises ValueError for does not fit, which is BadInput.
        """
        return self._read_weights(name, put)[0]

    def _read_weights(self, name, put=None, wholly=True):
        """(tensors, their digest), see read_tensors()."""
        name = self.end if name == "checkpoint" else name
        path = self.path / f"{name}.pt"
        try:
            content, digest = read_tensors(path, RUN_AGAIN, wholly)
            self._refuse_unfit(name, content)
            if put is not None:
                put(content)
        except FileNotFoundError:
            there = sorted(file.stem for file in self.path.glob("*.pt"))
            raise BadInput(f"{path}: does not exist; this run has {', '.join(there) or 'no weights'}") from None
        except ValueError as error:
            raise BadInput(f"{path}: is not of this run and its network ({error}); {RUN_AGAIN}") from None
        return content, digest

    def _refuse_unfit(self, name, content):
        """Raise ValueError where the tensors in a file are not such as a run like this one writes under this name."""
        kind, weights, step = name.split("-")[0], content.get("weights"), content.get("step")
        if not isinstance(weights, torch.Tensor) or weights.dim() != 2 or len(weights) != len(self.members):
            raise ValueError(f"it has no weights of {len(self.members)} members")
        if kind != "swa" and (type(step) is not int or kind == "step" and step_name(step) != name):
            raise ValueError(f"its step is {step!r:.40}")
        if content.get("network", self.settings["model"]) != self.settings["model"]:
            raise ValueError(f"its network is {content['network']!r:.40}")

    def has_weights(self, name):
        name = self.end if name == "checkpoint" else name
        return (self.path / f"{name}.pt").exists()

    def weights_at(self, step, put=None, digest=None):
        """The tensors at a step: the kept ones, or the checkpoint if it is at that step; for `put` see weights().

        digest: what digest_at() gave when a run began there, or None. Raises BadInput where they are others now.
        """

        def put_those(content):
            if digest not in (None, digest_of(content)):
                raise ValueError("a run that continues it began from other weights")
            if put is not None:
                put(content)

        return self._at(step, put_those)[0]

    def digest_at(self, step):
        """The digest of the tensors at a step, as it stands in their file: whether that is so is checked on loading them."""
        return self._at(step, None, wholly=False)[1]

    def _at(self, step, put, wholly=True):
        if self.has_weights(step_name(step)):
            return self._read_weights(step_name(step), put, wholly)
        reached = self._read_weights("checkpoint", wholly=False)[0]["step"]
        if reached != step:
            raise BadInput(
                f"{self.path}: has no weights of {self.unit} {step}, but of {reached}; others are kept by train.py --keep"
            )
        return self._read_weights("checkpoint", put, wholly)

    def _refuse_other_start(self, asked):
        """Raise Refused where the weights that the run began from are others now; returns the parent as it is compared.

        Earlier runs do not say what they began from, and weights that are gone cannot be told.
        """
        there, now = self.config["parent"].get("sha256"), asked.get("sha256")
        if asked == self.config["parent"] | {"sha256": now} and there and now and there != now:
            raise Refused(
                f"{self.path}: began from other weights than {self.parent_path} now has at {asked['step']} (sha256 "
                f"{there[:8]}, now {now[:8]}); restore those, name another folder, or remove this one"
            )
        return asked | {"sha256": there}

    def settings_for(self, config):
        """The settings of the run that a command asks for by its config: those of this one, or with another length.

        Longer are more steps, and more windows of an SWA run; and more weights may be kept, of steps that are to come. A
        run that is not complete may also become one that is shorter, as long as it has not been trained beyond that.
        Raises Refused where anything else differs.
        """
        asked = {key: config[key] for key in IDENTITY}
        if self.config["parent"] and asked["parent"]:
            asked["parent"] = self._refuse_other_start(asked["parent"])
        if self.kept_earlier:
            keep = sorted({*asked["settings"]["keep"], *self.kept_earlier})
            asked["settings"] = asked["settings"] | {"keep": keep}
        differences = self._differences(asked)
        settings = self._with_length(asked) if differences else self.settings
        if settings is None:
            differences = self._differences(asked, **lengths_asked(self.settings, asked)) or differences
            fix = "use them, name another folder, or remove this one"
            parent, other = self.config["parent"], config["parent"]
            if parent and other and parent["run"] == other["run"] and parent["step"] != other["step"]:
                fix = f"--from-step {parent['step']} goes on with it; or name another folder, or remove this one"
            elif asked["settings"].get("model_digest") != self.settings.get("model_digest"):
                fix = "restore the file that --model names, name another folder, or remove this one"
            elif not self.complete and 0 < asked["settings"]["steps"] < self.trained_to:
                fix = f"it has been trained to {self.trained_to}: that, or more, can be its length; or name another folder"
            if self.settings["stop_when_clear"] and asked["settings"]["stop_when_clear"]:
                fix = f"where a run stops when clear hangs on its length, which stays; {fix}"
            raise Refused(f"{self.path}: was made with other settings ({'; '.join(differences)}); {fix}")
        return settings

    def _differences(self, asked, **settings):
        """Where the config differs from what is asked for, as texts; as if it had these settings."""
        there = {key: self.config[key] for key in IDENTITY}
        return _differences(there | {"settings": self.settings | settings}, asked)

    def _with_length(self, asked):
        """The settings with the length that is asked for, None where this run cannot become one of it."""
        there, trained = self.settings, self.trained_to
        if there["stop_when_clear"]:
            return None
        lengths = lengths_asked(there, asked)
        if self._differences(asked, **lengths):
            return None
        shorter = is_longer(there, lengths) and not self.complete and trained <= lengths["steps"]
        if not shorter and not is_longer(lengths, there):
            return None
        if any(step <= trained for step in set(lengths["keep"]) - set(there["keep"])):
            return None
        keep = {*there["keep"], *lengths["keep"], *self._end_to_keep()}
        return there | lengths | {"keep": sorted(step for step in keep if step <= lengths["steps"])}

    def _end_to_keep(self):
        """[the last step], where the run got there and others may have begun there, or else []."""
        steps, stage = self.settings["steps"], self.config["stage"]
        return [steps] if self.trained_to == steps and stage != "swa" else []

    @property
    def finishing_command(self):
        """The command that began the run, and goes on with it, for a shell; None where config.json does not say."""
        argv, parent = self.config.get("argv"), self.config["parent"]
        if not argv:
            return None
        if parent and "--from-step" not in argv and is_run(self.parent_path):
            made_longer = "earlier" in read_json(self.parent_path / "config.json")
            argv = [*argv, "--from-step", str(parent["step"])] if made_longer else argv
        return f"python {shlex.join(argv)}"

    def measurement(self, name):
        """A later measurement (features, ...) as a dictionary, or None where it was not made, or of another end."""
        path, fix = self.path / f"{name}.json", "remove it and measure again"
        if not path.exists():
            return None
        content = read_json(path, fix)
        self._refuse(name, schema.fault_of_measurement(name, content, self._sizes), fix)
        if measures_the_end(name):
            of_whole = None if "earlier" in self.config else self.last_step  # those made before this was recorded
            return content if content.get("end", of_whole) == self.last_step else None
        return content

    @property
    def measurement_files(self):
        """The names of the measurements that there are files of, in order; some may be damaged, or of another end."""
        return sorted(path.stem for path in self.path.glob("*.json") if schema.is_measurement(path.stem))

    def write_measurement(self, name, content):
        """Write a measurement beside the run. Raises Refused while another process holds the folder."""
        held = hold(self.path)
        try:
            remove_strays(self.path, ".json")
            write_json(
                self.path / f"{name}.json", content | ({"end": self.last_step} if measures_the_end(name) else {})
            )
        finally:
            release(held)


def lengths_asked(settings, config):
    """Of the settings in a config those that may grow, where a run with other settings has them, too."""
    return {name: config["settings"][name] for name in GROWING if name in settings and name in config["settings"]}


def is_longer(settings, other):
    """Whether a run with these settings has all windows and steps of one with other settings, and more."""
    windows, of_other = {*settings.get("windows", [])}, {*other.get("windows", [])}
    at_least = settings["steps"] >= other["steps"] and windows >= of_other
    return at_least and (settings["steps"] > other["steps"] or windows > of_other)


def metrics_until(metrics, step):
    """Metrics as they were when training had come to a step."""
    logged = sum(logged <= step for logged in metrics["step"])
    metrics = {key: value[:logged] if key in SERIES else value for key, value in metrics.items()}
    diverged_at = [None if at is None or at > step else at for at in metrics["diverged_at"]]
    return metrics | {"diverged_at": diverged_at}


def measures_the_end(name):
    """Whether a measurement is one of the weights at the end of a run."""
    return any(fnmatchcase(name, pattern) for pattern in MEASURED_AT_THE_END)


def is_run(path):
    """Whether a folder is a run folder."""
    return (Path(path) / "config.json").exists()


def loss_name(level):
    """The name of the weights kept where the train loss first crossed a level."""
    return f"loss-{lr_name(level)}"


def geometry_name(low, high):
    """The name of the measured geometry of solutions fine-tuned at a low and a high FLR."""
    return f"geometry-flr{lr_name(low)}-flr{lr_name(high)}"


def bands_name(normalisation):
    """The name of measured accuracies on frequency bands, normalised in one of the ways of data/bands.py."""
    return f"bands-{normalisation}"


def low_ends_name(normalisation):
    """The name of measured accuracies on the low and the mid band for other ends of the low one."""
    return f"low-ends-{normalisation}"


def step_name(step):
    """The name of the weights kept at an epoch or iteration."""
    return f"step-{step}"


def sharpness_of(weights):
    """The name of the measured sharpness of weights: those named by loss_name() or step_name(), or `checkpoint`."""
    return f"sharpness-{weights}"


def sharpness_name(level):
    """The name of the measured sharpness of the weights kept at a level of train loss."""
    return sharpness_of(loss_name(level))


def run_paths(folder):
    """The run folders in a folder and below it, in order. Raises BadInput where there are none."""
    paths = sorted(path.parent for path in Path(folder).rglob("config.json"))
    if not paths:
        raise BadInput(f"{folder}: holds no run folders")
    return paths


def find_runs(folder):
    """All runs in a folder and below it, in order of their paths. Raises BadInput where there are none."""
    return [Run(path) for path in run_paths(folder)]


def _differences(old, new, prefix=""):
    """Where two nested dictionaries differ, as texts `name: old, not new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            text for key in {**old, **new} for text in _differences(old.get(key), new.get(key), f"{prefix}{key} ")
        ]
    # Lists and tuples are the same thing on disk.
    if old == (list(new) if isinstance(new, tuple) else new):
        return []
    if isinstance(old, list) and len(str(old)) + len(str(new)) > 200:
        return [f"{prefix.strip()}: {len(old)} there, {len(new)} asked for, and not the same"]
    return [f"{prefix.strip()}: {old} there, {new} asked for"]
