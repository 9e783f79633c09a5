"""What the benchmarks share: progress, the machine they ran on, what it cannot run, and the processes they start."""

import contextlib
import io
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from data.commandline import BadInput
from models import compiled

ROOT = Path(__file__).resolve().parent.parent
BASELINE = "baseline"  # the program that the others are compared with
NOTHING_KEPT = "nothing was kept; start it again"  # what Ctrl-C says of most benchmarks


def say(text):
    """Print progress, at once, to stderr: stdout has the results alone."""
    print(text, file=sys.stderr, flush=True)


def machine(device):
    """The machine and the version of PyTorch, for the JSON files."""
    name = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"machine": f"{platform.machine()}, {os.cpu_count()} cores, {name}", "torch": torch.__version__}


def require_compiled(make_task):
    """make_task(), a task of train.py that is compiled. Raises BadInput where it cannot be.

    train.py then goes on without, and says so; a benchmark would measure something else than its name says.
    """
    with contextlib.redirect_stderr(io.StringIO()) as said:
        task = make_task()
    if compiled.failures:
        raise BadInput(said.getvalue().partition("; going on")[0].strip() or "--compile: cannot compile here")
    return task


class Script:
    """A script of a checkout (its root: folder), running with one thread from now on; what it prints is held back.

    Ctrl-C at a terminal does not reach it: stopped() passes on one signal, so that it can save undisturbed.
    """

    def __init__(self, command, folder=ROOT):
        self.command = [str(word) for word in command]
        self.folder = folder
        self.said = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, *self.command],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            start_new_session=True,
        )

    def wait(self):
        """Wait until it is done. Raises BadInput where it fails, after printing what it said."""
        if self.process.wait() != 0:
            self.said.seek(0)
            say(self.said.read().rstrip())
            raise BadInput(f"{shlex.join(self.command)}: failed in {self.folder}; what it said is above")


@contextlib.contextmanager
def stopped(scripts):
    """A context that ends, when it is left for whatever reason, those of a list of Scripts that still run."""
    try:
        yield
    finally:
        for script in scripts:
            if script.process.poll() is None:
                script.process.terminate()
        for script in scripts:
            script.process.wait()
            script.said.close()
