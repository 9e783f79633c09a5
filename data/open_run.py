"""Run folders that a process makes, continues and makes longer; runs.py says what is in them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from data.commandline import BadInput, say
from data.files import remove_strays, write_json, write_tensors
from data.locks import LOCK, hold, release
from data.runs import (
    COMPLETE,
    FORMAT,
    METRICS_OF_THE_END,
    RUNNING,
    Run,
    is_longer,
    is_run,
    metrics_until,
    step_name,
)


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


def is_finished(path, config):
    """Whether a run that is asked for by its config is there and complete.

    Raises Refused where the folder holds one that another command made, and BadInput where it holds other things.
    """
    if not is_run(path):
        refuse_unfit_folder(path)
        return False
    run = Run(path)
    return run.settings_for(config) == run.settings and run.complete


def refuse_unfit_folder(path):
    """Raise BadInput where there is no run folder and none can be made: in a file, or where other things are."""
    path = Path(path)
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise BadInput(f"{path}: cannot be made a folder ({there} is a file); name another one")
    names = {file.name for file in path.iterdir()} if there == path else set()
    strangers = sorted(name for name in names - {LOCK} if not name.startswith("."))
    if strangers and "config.json" not in names:
        raise BadInput(f"{path}: is not a run folder, yet it holds {strangers[0]}; name a new or empty folder")


def refuse_shared_folders(runs):
    """Raise BadInput where two runs that a command asks for, [(folder, config)], would be in one folder."""
    asked = {}
    for path, config in runs:
        if asked.setdefault(path, config) != config:
            raise BadInput(
                f"{path}: two runs of this command would be in this folder; give them to two commands with other --out"
            )


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
        "stop_when_clear": False,
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
        refuse_unfit_folder(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{path}: cannot be made a folder ({error.strerror}); name another one") from None
        self.held = hold(path)
        try:
            self._open(path, config, device)
        except BaseException:
            release(self.held)
            raise

    def _open(self, path, config, device):
        remove_strays(path, ".json", ".pt")
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
        """Write metrics until the checkpoint's step, then the checkpoint, which so never points past those on disk.

        Of a step after it metrics hold a part, where an interrupt came while it was recorded.
        """
        self.write_metrics(metrics_until(metrics, checkpoint["step"]))
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
