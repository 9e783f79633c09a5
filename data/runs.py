"""Run folders: the one contract between the scripts (see "Run folders" in the README).

This is the only file that names files inside a run folder:

    config.json     what the run is: arguments, members, parent, versions; written once, and anew when the run grows
    metrics.json    what was measured, arrays indexed [logged step][member]; null = not measured or not finite;
                    `reestimated`: test loss and accuracy of the end with re-estimated batch-norm statistics
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
    sharpness-*.json gradient norm and curvature of weights (loss-L.pt, step-N.pt, checkpoint.pt), measured by analyze.py
    lock            held by the live process that works on the folder
"""

import contextlib
import copy
import fcntl
import os
import platform
import shlex
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from data import schema
from data.commandline import BadInput, Refused, lr_name, say
from data.files import digest_of, read_json, read_tensors, write_json, write_tensors

RUNNING, COMPLETE, LOCK = "running", "complete", "lock"
# What makes two runs the same experiment. The rest of config.json (argv, versions, device) tells of one execution.
IDENTITY = ("stage", "settings", "members", "parent")
GROWING = ("steps", "keep", "windows")  # the settings that a longer run has more of
MEASURED_AT_THE_END = ("features", "geometry-*", "bands-*", "low-ends-*", "norms", "sharpness-checkpoint")
METRICS_OF_THE_END = ("swa", "reestimated")  # of a run, which may grow, as the measurements before
FORMAT = 2  # of run folders; those of format 1 do not say it, nor what is filled in for them here
# What runs had, and image runs in particular, that were made before there was a choice.
EARLIER_SETTINGS = {"compile": False, "until_loss": None, "keep_loss": [], "optimizer": {"name": "projected-sgd"}}
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
SERIES = ("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def describe_execution(device):
    """What config.json records about this execution: argv, git commit (null outside a checkout), versions, device, and
    the instructions that its processor has (null on a GPU)."""
    try:
        command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
        commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # git is not installed
        commit = ""
    return {
        "argv": sys.argv,
        "git_commit": commit or None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "processor": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None,
    }


def differing_executions(now, before):
    """What differs between two executions that changes how numbers are rounded, as texts; what is not known does not."""
    named = {name: (now.get(name), before.get(name)) for name in ("device", "processor", "git_commit")}
    named["torch"] = tuple((execution.get("versions") or {}).get("torch") for execution in (now, before))
    return [f"{name} {new}, not {old}" for name, (new, old) in named.items() if new and old and new != old]


class Run:
    """A run folder that may only be read: config and metrics as on disk.

    Raises BadInput where the folder is not a run folder or its files cannot be read.
    """

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
        self.metrics = {}
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

    end = "checkpoint"  # the name of the weights of its end

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
            fix = "use them, name another folder, or remove this one"
            parent, other = self.config["parent"], config["parent"]
            if parent and other and parent["run"] == other["run"] and parent["step"] != other["step"]:
                fix = f"--from-step {parent['step']} goes on with it; or name another folder, or remove this one"
            raise Refused(f"{self.path}: was made with other settings ({'; '.join(differences)}); {fix}")
        return settings

    def _differences(self, asked, **settings):
        """Where the config differs from what is asked for, as texts; as if it had these settings."""
        there = {key: self.config[key] for key in IDENTITY}
        return _differences(there | {"settings": self.settings | settings}, asked)

    def _with_length(self, asked):
        """The settings with the length that is asked for, None where this run cannot become one of it."""
        there, trained = self.settings, self.trained_to
        lengths = {
            name: asked["settings"][name] for name in GROWING if name in there and name in asked["settings"]
        }
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

    def measured(self):
        """The names of the measurements that were made."""
        names = {path.stem for path in self.path.glob("*.json")} - {"config", "metrics"}
        return {name for name in names if self.measurement(name)} if "earlier" in self.config else names

    def write_measurement(self, name, content):
        """Write a measurement beside the run. Raises Refused while another process holds the folder."""
        held = hold(self.path)
        try:
            write_json(
                self.path / f"{name}.json", content | ({"end": self.last_step} if measures_the_end(name) else {})
            )
        finally:
            release(held)


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


def is_held(path):
    """Whether a live process holds a run folder; nothing is written."""
    for place in (Path(path), Path(path) / LOCK):
        try:
            release([_locked(place, os.O_RDONLY, fcntl.LOCK_SH)])
        except BlockingIOError:
            return True
        except (OSError, NotImplementedError):  # there is none, or it cannot be locked
            pass
    return False


def finished_runs(paths, step=None):
    """Runs to continue from a step, by default their last one. Raises BadInput where one has not come to it."""
    runs = [Run(path) for path in paths]
    for parent in runs:
        if parent.config["stage"] == "swa":
            raise BadInput(f"{parent.path}: is an SWA run; give the run that it continued, or another")
        if not parent.complete and not (parent.metrics and step in parent.kept):
            command = parent.finishing_command or "the command that began it"
            kept = parent.metrics and sorted(parent.kept)
            instead = f", or begin at a step that it has kept: --from-step {kept[-1]}" if kept else ""
            raise BadInput(f"{parent.path}: is not complete; finish it first: {command}{instead}")
    return runs


def step_to_begin_at(parent, step):
    """The step of a run that is continued from a step on: that, or its last where it ended early (diverged) before."""
    ended_early = parent.complete and parent.last_step < parent.settings["steps"]
    return min(step, parent.last_step) if ended_early else step


def refuse_others(runs):
    """Raise Refused where a folder holds a run that another command made. runs: [(folder, config)]."""
    for path, config in runs:
        if is_run(path):
            Run(path).settings_for(config)


def describe_child(stage, parent, path, step, lrs, steps, log_every, data_file, keep_losses=()):
    """The config of a run at `path` that continues `parent` (a Run) from one of its steps, lrs appended to its own.

    Raises BadInput, before anything is written, where the parent has not kept that step.
    """
    kept = sorted(parent.kept | ({parent.last_step} if parent.complete else set()))
    if step not in kept:
        raise BadInput(
            f"{parent.path}: has no weights of {parent.unit} {step}, only of {', '.join(map(str, kept))}; "
            f"more are kept by train.py --keep"
        )
    try:
        digest = parent.digest_at(step)
    except BadInput:
        if not is_run(path):
            raise
        digest = None  # a run that is complete needs them no more
    settings = parent.settings | {
        "first_step": parent.settings["first_step"] + step,
        "steps": steps,
        "log_every": log_every,
        "keep": [],
        "until_loss": None,
        "keep_loss": sorted(set(keep_losses)),
    }
    return {
        "format": FORMAT,
        "stage": stage,
        "network": parent.network,
        "settings": settings,
        "members": [{**member, "lrs": member["lrs"] + lrs} for member in parent.members],
        "parent": {"run": os.path.relpath(parent.path, path), "step": step, "sha256": digest},
        "data_file": data_file or parent.config["data_file"],
    }


class OpenRun(Run):
    """A run folder that this process holds and writes.

    path: the folder, made if missing. config: a dictionary with the keys of IDENTITY; what tells of this execution
    is added to it when the folder is new. Where it is that of a run of another length, take_length() makes it one,
    which is not complete then.
    Raises Refused where another live process holds the folder, or it was made with another config, and BadInput
    where the folder cannot be made or holds other things.
    """

    other_length = None  # the settings of the run that is asked for, where this one is to become it

    def __init__(self, path, config, device):
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{path}: cannot be made a folder ({error.strerror}); name another one") from None
        names = {file.name for file in path.iterdir()}
        strangers = sorted(name for name in names - {LOCK} if not name.startswith("."))
        if strangers and "config.json" not in names:
            raise BadInput(f"{path}: is not a run folder, yet it holds {strangers[0]}; name a new or empty folder")
        self.held = hold(path)
        try:
            self._open(path, config, device)
        except BaseException:
            release(self.held)
            raise

    def _open(self, path, config, device):
        for left_by_a_kill in path.glob(".*.tmp"):
            left_by_a_kill.unlink()
        if not (path / "config.json").exists():
            write_json(path / "config.json", {**config, **describe_execution(device)})
        super().__init__(path)
        self.device = device
        asked = self.settings_for(config)
        if asked != self.settings:
            self.other_length = asked

    def begin_from(self, parent, put):
        """Call put(tensors) with the weights of `parent` (a Run) that this run began from, or begins from now."""
        described = self.config["parent"]
        parent.weights_at(described["step"], put, described.get("sha256"))

    @property
    def complete(self):
        return super().complete and self.other_length is None

    def take_length(self):
        """Make this the run of another length that was asked for, where it is not: what is missing is then to be trained.

        The weights of its end are kept. After a kill at any moment the run is still the former one, perhaps not
        complete, or already the other one; the same command goes on with either.
        """
        if self.other_length is None:
            return
        there, asked, execution = self.settings, self.other_length, describe_execution(self.device)
        changed = [f"{k} {there[k]}, now {asked[k]}" for k in ("steps", "windows") if there.get(k) != asked.get(k)]
        say(f"{self.path}: is made {'longer' if is_longer(asked, there) else 'shorter'} ({'; '.join(changed)})")
        kept = self._end_to_keep()
        for step in kept:
            self.keep(step_name(step), self.weights())
        if self.metrics:
            of_any_length = {k: v for k, v in self.metrics.items() if k not in METRICS_OF_THE_END}
            self.write_metrics(of_any_length | {"status": RUNNING})
        self._forget_geometry()
        windows = there.get("windows", [])
        if any(window < max(windows) for window in {*asked.get("windows", [])} - {*windows}):
            # Weights were not summed for such a window: they are passed again, from where the run began.
            (self.path / "checkpoint.pt").unlink(missing_ok=True)
        self._say_other_execution(execution, self.trained_to)
        earlier = {name: self.config.pop(name) for name in (*execution, "resumed") if name in self.config}
        earlier |= {"steps": there["steps"], "keep": sorted({*there["keep"], *kept})}
        all_earlier = [*self.config.get("earlier", []), earlier]
        self.config |= execution | {"settings": asked, "earlier": all_earlier}
        write_json(self.path / "config.json", self.config)
        self.settings, self.other_length = asked, None

    def _forget_geometry(self):
        """Remove what was measured among the solutions that continue the same pre-training, if this is one of them."""
        if self.config["stage"] == "finetune":
            for file in self.parent_path.glob("geometry-*.json"):
                say(f"{file}: is removed, as it measures {self.path} at another length; measure again")
                file.unlink()

    def resume(self, put=None):
        """(checkpoint, metrics trimmed to it) to go on from, or None for a new run; for `put` see weights()."""
        if not (self.path / "checkpoint.pt").exists():
            return None
        if not self.metrics:
            raise BadInput(
                f"{self.path}: has a checkpoint.pt but no metrics.json; remove the folder and run again"
            )
        checkpoint = self.weights(put=put)
        execution = describe_execution(self.device)
        if self._say_other_execution(execution, checkpoint["step"]):
            self.config["resumed"] = [*self.config.get("resumed", []), {"step": checkpoint["step"], **execution}]
            write_json(self.path / "config.json", self.config)
        return checkpoint, metrics_until(self.metrics, checkpoint["step"])

    def _say_other_execution(self, execution, step):
        """Whether the run goes on in other conditions than it had; that is printed."""
        differing = differing_executions(execution, (self.config.get("resumed") or [self.config])[-1])
        if differing and step >= 0:
            say(
                f"{self.path}: goes on from {self.unit} {step} with {'; '.join(differing)}: bits may differ from those of a "
                f"run that was never interrupted"
            )
        return bool(differing)

    def save(self, metrics, checkpoint):
        """Write metrics, then the checkpoint, which so never points past the metrics on disk."""
        self.write_metrics(metrics)
        write_tensors(self.path / "checkpoint.pt", checkpoint)

    def write_metrics(self, metrics):
        self.metrics = metrics
        write_json(self.path / "metrics.json", metrics)

    def keep(self, name, tensors):
        """Write weights that stay: step-N, loss-L or swa-K."""
        write_tensors(self.path / f"{name}.pt", tensors)

    def finish(self, metrics):
        """Declare the run complete: the last thing written."""
        if "earlier" in self.config:
            self._forget_geometry()  # measured again while the run was shown as it was
        self.write_metrics(metrics | {"status": COMPLETE})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        release(self.held)


def hold(path):
    """Lock a folder until release() of what is returned, or until this process ends, however it ends.

    The folder itself is locked, so that it is held when the file `lock` has been removed, and that file, as some file
    systems lock no folders. Raises Refused where another process has it.
    """
    held = []
    try:
        with contextlib.suppress(NotImplementedError):
            held.append(_locked(path, os.O_RDONLY, fcntl.LOCK_EX))
        held.append(_locked(path / LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX))
    except BlockingIOError:
        release(held)
        raise Refused(f"{path}: another process is working on it; wait for it or stop it") from None
    return held


def release(held):
    """Let go of what hold() gave."""
    for descriptor in held:
        os.close(descriptor)


def _locked(path, flags, kind):
    """A descriptor of a file or folder that is locked as long as it is open.

    Raises BlockingIOError where another process keeps it locked (those that only look do so for a moment), and
    NotImplementedError where the file system locks no folders.
    """
    descriptor = os.open(path, flags, 0o666)
    for last in (False, False, True):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if last:
                os.close(descriptor)
                raise
            time.sleep(0.05)
        except OSError:
            os.close(descriptor)
            if Path(path).is_dir():
                raise NotImplementedError from None
            raise


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
