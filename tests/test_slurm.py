"""Job arrays: what the job script does about signals, and what becomes of its runs in a SLURM of the test's own (slow)."""

import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import random_image_set

from data.images import save_image_set

ROOT = Path(__file__).parent.parent
SWEEP, SEARCH = ["scripts/sweep.slurm"], ["scripts/find_lr.slurm", "si-mlp", "ticks"]
BY_SIGTERM = 128 + signal.SIGTERM


def wait_until(condition, seconds, explain):
    """What condition() returns once it is true. Fails after some seconds, with the text that explain() returns."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} seconds: {explain()}"
        time.sleep(0.1)
    return found


def commands(folder, **texts):
    """Make commands of these names and texts; returns the environment in which they are the first that are found."""
    (folder / "bin").mkdir()
    for name, text in texts.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}"}


# Signals, with stand-ins for Python and for SLURM. They list what becomes of them in the file `seen`. The check of the
# image set and training go on until there is a file of its name; at SIGTERM it takes training a moment to save.

PYTHON = """#!/usr/bin/env bash
trap 'sleep 0.5; echo "$1 saves" >> seen; trap - TERM; kill -TERM $$' TERM
case "$*" in "-m pip "*) exit ;; "analyze.py next-lr "*) cat lines; exit ;; "analyze.py band "*) echo "analyze.py band" >> seen; exit ;; esac
echo "$1 begins" >> seen
case $1 in -m | train.py) until [ -e "./$1" ]; do sleep 0.05; done ;; esac
echo "$1 ends" >> seen
[ "$1" = -m ] || exit ${CODE:-0}
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >> seen
exit ${SCONTROL_CODE:-0}
"""
SBATCH = """#!/bin/sh
(printf 'sbatch'; printf ' <%s>' "$@"; echo) >> submitted
case $1 in --parsable) echo 8 ;; esac
"""


class Task:
    """Task 1 of the array 7, in a copy of the scripts."""

    def __init__(self, folder, command, environment):
        self.folder = folder
        with open(folder / "output", "w") as output:
            self.process = subprocess.Popen(
                ["bash", *command],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def seen(self):
        path = self.folder / "seen"
        return path.read_text().splitlines() if path.exists() else []

    def reaches(self, line):
        wait_until(lambda: line in self.seen(), 10, (self.folder / "output").read_text)

    def signal_all(self, signum):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # ended meanwhile
                session = int(stat.read_text().rpartition(")")[2].split()[3])
                if session == self.process.pid:
                    os.kill(int(stat.parent.name), signum)

    def code(self):
        """Its exit code; negative where it died of a signal."""
        return self.process.wait(10)


@pytest.fixture
def start(tmp_path):
    """Starts the task; start(CODE="2") with something more in its environment, start("a.slurm", "b") of another script."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/cifar10.pt").touch()
    (tmp_path / "-m").touch()
    environment = os.environ | commands(tmp_path, python=PYTHON, scontrol=SCONTROL, sbatch=SBATCH)
    environment["VIRTUAL_ENV"] = sys.prefix
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "7"}
    tasks = []

    def start(*command, **more):
        tasks.append(Task(tmp_path, command or SWEEP, environment | more))
        return tasks[-1]

    yield start
    for task in tasks:
        task.signal_all(signal.SIGKILL)
        task.process.wait()


CHECKED = ["-m begins", "-m ends"]
SAVED = [*CHECKED, "train.py begins", "train.py saves"]


def test_a_warned_task_saves_and_then_is_requeued_by_its_index(start):
    task = start()
    task.reaches("train.py begins")
    task.process.send_signal(signal.SIGUSR1)
    assert task.code() == BY_SIGTERM and task.seen() == [*SAVED, "scontrol requeue 7_1"]


def test_a_task_that_is_warned_before_it_begins_is_requeued(start):
    task = start()
    (task.folder / "-m").unlink()
    task.reaches("-m begins")
    task.process.send_signal(signal.SIGUSR1)
    (task.folder / "-m").touch()
    assert task.code() == BY_SIGTERM and task.seen()[-1] == "scontrol requeue 7_1"
    assert "train.py ends" not in task.seen()


def test_a_task_that_cannot_be_requeued_has_failed(start):
    task = start(SCONTROL_CODE="1")
    task.reaches("train.py begins")
    task.process.send_signal(signal.SIGUSR1)
    assert task.code() == BY_SIGTERM


def test_a_task_that_slurm_ends_saves_and_leaves_it_to_slurm_to_requeue_it(start):
    task = start()
    task.reaches("train.py begins")
    task.signal_all(signal.SIGTERM)
    assert task.code() == BY_SIGTERM and task.seen() == SAVED


def test_a_task_that_fails_is_not_requeued(start):
    task = start(CODE="2")
    (task.folder / "train.py").touch()
    assert task.code() == 2 and task.seen() == [*CHECKED, "train.py begins", "train.py ends"]


def test_a_task_that_is_done_is_not_requeued(start):
    task = start()
    (task.folder / "train.py").touch()
    assert task.code() == 0
    scripts = ("-m", "train.py", "swa.py", "finetune.py")
    assert task.seen() == [f"{script} {what}" for script in scripts for what in ("begins", "ends")]


LINES = ["pretrain 1e-3 1", "finetune pretrain/plr1e-2-seed1 1e-4"]


@pytest.mark.parametrize("before", [[], LINES[:1]])
def test_a_search_submits_what_to_run_next_and_itself_after_that(before, start, tmp_path):
    (tmp_path / "lines").write_text("\n".join(LINES) + "\n")
    task = start(*SEARCH, "out", *before, SLURM_ARRAY_JOB_ID="", OPTIONS="--gres=none -t 60")
    assert task.code() == 0
    script = " ".join(f"<{word}>" for word in (*SEARCH, "out", *LINES))
    assert (tmp_path / "submitted").read_text().splitlines() == [
        f"sbatch <--parsable> <--array=0-1> <--gres=none> <-t> <60> {script}",
        f"sbatch <--dependency=afterany:8> <--gres=none> <-t> <60> {script}",
    ]


def test_a_task_of_a_search_is_one_of_the_lines(start, tmp_path):
    task = start(*SEARCH, "out", *LINES)
    assert task.code() == 0 and task.seen() == ["finetune.py begins", "finetune.py ends"]
    task = start(*SEARCH, "out", *LINES, SLURM_ARRAY_TASK_ID="0")
    task.reaches("train.py begins")
    task.process.send_signal(signal.SIGUSR1)
    assert task.code() == BY_SIGTERM and task.seen()[-2:] == ["train.py saves", "scontrol requeue 7_0"]


def test_a_search_whose_runs_fail_ends(start, tmp_path):
    (tmp_path / "lines").write_text("\n".join(LINES) + "\n")
    task = start(*SEARCH, "out", *LINES, SLURM_ARRAY_JOB_ID="")
    assert task.code() == 2 and not (tmp_path / "submitted").exists()
    line = "out: these runs were made and are not there: pretrain 1e-3 1 finetune pretrain/plr1e-2-seed1 1e-4\n"
    assert (tmp_path / "output").read_text().endswith(line)


def test_a_search_ends_with_its_answer(start, tmp_path):
    (tmp_path / "lines").touch()
    task = start(*SEARCH, "out", *LINES, SLURM_ARRAY_JOB_ID="")
    assert task.code() == 0 and not (tmp_path / "submitted").exists()
    assert task.seen()[-1] == "analyze.py band"


# A SLURM of the test's own: one node on loopback, whose daemons keep all they write in a folder.

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1
NodeName=localhost NodeAddr=127.0.0.1 CPUs=16
PartitionName=tests Nodes=ALL Default=YES
"""  # a requeued job waits for cred_expire, 5 seconds at least
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "squeue", "scontrol", "scancel")
ENDS, NEVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), "DependencyNeverSatisfied"


def install_slurm():
    """Skips where there is no SLURM, and none can be installed."""
    if all(map(shutil.which, PROGRAMS)) and os.geteuid() == 0:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
            subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, timeout=600)
    if not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0:
        pytest.skip("SLURM (Debian's slurm-wlm and munge) is not here, or is but cannot be started: be root")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Slurm:
    """A SLURM that runs. submit() gives the number of a job, whose tasks are then named as SLURM does: 7_1."""

    def __init__(self, folder):
        of_others = ("SLURM", "SBATCH", "SQUEUE", "SINFO", "SCANCEL", "SCONTROL")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(of_others)}
        self.folder, self.environment = folder, environment | {"SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command, folder=None, **environment):
        done = subprocess.run(
            command, cwd=folder, env=self.environment | environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *arguments, **environment):
        logs = ["--output", self.folder / "%A_%a.log"]
        number = self.call("sbatch", "--parsable", *logs, *arguments, folder=ROOT, **environment)
        return number.strip()

    def log(self, task):
        path = self.folder / f"{task}.log"
        return path.read_text() if path.exists() else ""

    def shown(self, task):
        """What SLURM shows of a task: JobState, Restarts, ExitCode, ..."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.call("scontrol", "show", "job", task)))

    def ends(self, task, seconds=240):
        """The state that a task ends in; NEVER, of one that cannot begin."""

        def end():
            shown = self.shown(task)
            if shown["Reason"] == NEVER:
                return NEVER
            return shown["JobState"] if shown["JobState"] in ENDS else None

        return wait_until(end, seconds, lambda: f"{self.shown(task)} {self.log(task)}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    install_slurm()
    folder = tmp_path_factory.mktemp("slurm")
    settings = {"folder": folder, "host": platform.node().split(".")[0]}
    settings |= {"controller_port": free_port(), "node_port": free_port()}
    (folder / "slurm.conf").write_text(CONF.format(**settings))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    slurm, started = Slurm(folder), []

    def start(*command, ready):
        with open(folder / f"{command[0]}.out", "w") as output:
            started.append(subprocess.Popen(command, env=slurm.environment, stdout=output, stderr=output))
        wait_until(ready, 30, (folder / f"{command[0]}.out").read_text)

    def node_is_idle():
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=slurm.environment, capture_output=True, text=True)
        return asked.stdout == "idle\n"

    files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
    socket_file = folder / "munge.socket"
    try:
        start("munged", "--foreground", "--force", f"--socket={socket_file}", *files, ready=socket_file.exists)
        start("slurmctld", "-D", ready=lambda: True)
        start("slurmd", "-D", "-N", "localhost", ready=node_is_idle)
        yield slurm
        slurm.call("scancel", "--user=root")
        wait_until(lambda: not slurm.call("squeue", "-h"), 60, lambda: slurm.call("squeue"))
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)


# A sweep of two runs. Run 1 is made slow until it has something to go on from, so that its first time is over then.

SETTINGS = """
flags="--model si-convnet --width 2 --batch-size 20 --checkpoint-seconds 3600"
prepare=none plrs="1e-3 1e-2" flrs=1e-3 epochs=40 finetune_epochs=2 windows="2 3" keep_losses=2.2
"""
SLOW = """
import sys, time, train
advance, begun_at = train.ImageTraining.advance, []
def slowly(self, step, until):
    if not begun_at:
        print("begins at epoch", step, flush=True)
    begun_at.append(step)
    if begun_at[0] == 0:
        time.sleep(2)
    return advance(self, step, until)
train.ImageTraining.advance = slowly
sys.argv = sys.argv[1:]
train.run(train.main)
"""
SLOW_PYTHON = """#!/bin/sh
case "$SLURM_ARRAY_TASK_ID $1" in "1 train.py") set -- {folder}/slow.py "$@" ;; esac
PYTHONPATH={root} exec {python} "$@"
"""
ON_CPUS = ["--gres=none", "--cpus-per-task=1"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The environment of the sweep, and that of one with a slow run; each wants an OUT."""
    folder = tmp_path_factory.mktemp("sweep")
    save_image_set(random_image_set(), folder / "set.pt")
    (folder / "settings.sh").write_text(SETTINGS)
    (folder / "slow.py").write_text(SLOW)
    setup = {"SETUP": str(folder / "settings.sh"), "DATA": str(folder / "set.pt"), "OMP_NUM_THREADS": "1"}
    paths = []
    for name, text in (("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'), ("slow", SLOW_PYTHON)):
        (folder / name).mkdir()
        paths.append(commands(folder / name, python=text.format(folder=folder, root=ROOT, python=sys.executable)))
    return [setup | path for path in paths]


@pytest.fixture(scope="module")
def expected(sweep, tmp_path_factory):
    """The files of the sweep's two runs, made without SLURM."""
    out = tmp_path_factory.mktemp("expected")
    both = [
        subprocess.Popen(
            ["bash", *SWEEP], cwd=ROOT, env=os.environ | sweep[0] | {"OUT": str(out), "SLURM_ARRAY_TASK_ID": index}
        )
        for index in "01"
    ]
    assert [process.wait(300) for process in both] == [0, 0]
    return results(out)


def results(out):
    """Every tensor file and all metrics in a folder, byte for byte."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.name == "metrics.json" or path.suffix == ".pt"
    }


def began_at(log):
    return [int(epoch) for epoch in re.findall("begins at epoch (.*)", log)]


@pytest.mark.slow
def test_a_task_ended_by_its_time_limit_and_requeued_ends_in_the_same_bits(slurm, sweep, expected, tmp_path):
    """A limit of a minute, the shortest that there is; SLURM looks at limits twice a minute. Nothing saves by the clock."""
    environment = sweep[1] | {"OUT": str(tmp_path)}
    number = slurm.submit("--array=0-1", "--time=1", *ON_CPUS, *SWEEP, **environment)
    tuned = "finetune/plr1e-2-flr1e-3/metrics.json"
    copying = ["--wrap", f"cp {tmp_path}/{tuned} {tmp_path}/copy.json"]
    later = slurm.submit(f"--dependency=afterok:{number}", *copying)
    tasks = [f"{number}_0", f"{number}_1"]
    assert [slurm.ends(task) for task in tasks] == ["COMPLETED"] * 2
    assert slurm.ends(later) == "COMPLETED"  # which needs that no task was killed at its limit
    assert (tmp_path / "copy.json").read_bytes() == expected[tuned]
    (tmp_path / "copy.json").unlink()
    begun = began_at(slurm.log(tasks[1]))
    assert begun[0] == 0 < begun[-1] < 40
    for task in tasks:  # none was requeued that was not warned
        assert int(slurm.shown(task)["Restarts"]) == slurm.log(task).count("the task is requeued")
    assert slurm.shown(tasks[1])["JobId"] == number  # whose requeuing would be that of the whole array
    assert results(tmp_path) == expected


@pytest.mark.slow
def test_a_task_that_slurm_requeues_ends_in_the_same_bits(slurm, sweep, expected, tmp_path):
    """As on preemption, or by hand."""
    number = slurm.submit("--array=0,1", *ON_CPUS, *SWEEP, **sweep[1], OUT=str(tmp_path))
    task = f"{number}_1"
    wait_until(lambda: "epoch 5/40" in slurm.log(task), 60, lambda: slurm.log(task))
    slurm.call("scontrol", "requeue", task)
    assert [slurm.ends(each) for each in (f"{number}_0", task)] == ["COMPLETED"] * 2
    assert slurm.shown(task)["Restarts"] == "1" and slurm.shown(f"{number}_0")["Restarts"] == "0"
    assert began_at(slurm.log(task))[-1] >= 5 and results(tmp_path) == expected


@pytest.mark.slow
def test_a_task_that_is_not_finished_does_not_look_it(slurm, sweep, tmp_path):
    environment = sweep[1] | {"OUT": str(tmp_path)}
    number = slurm.submit("--array=1,2", *ON_CPUS, *SWEEP, **environment)
    later = slurm.submit(f"--dependency=afterok:{number}", "--wrap", "true")
    assert slurm.ends(f"{number}_2") == "FAILED"
    assert slurm.shown(f"{number}_2")["ExitCode"] == "2:0"
    assert "not the index of a run of settings: give --array=0-1" in slurm.log(f"{number}_2")
    wait_until(lambda: began_at(slurm.log(f"{number}_1")), 60, lambda: slurm.log(f"{number}_1"))
    slurm.call("scancel", f"{number}_1")
    assert slurm.ends(f"{number}_1") == "CANCELLED"
    assert "interrupted; the same command goes on where it was" in slurm.log(f"{number}_1")
    assert slurm.shown(f"{number}_1")["Restarts"] == "0"
    assert slurm.ends(later) == NEVER


@pytest.mark.slow
def test_a_search_on_many_machines_makes_the_runs_of_one(slurm, sweep, tmp_path):
    """Two rounds, of two runs and of one, and a job that prints the answer."""
    few = sweep[0] | {"VIRTUAL_ENV": sys.prefix, "JOBS": "2", "MAX_RUNS": "3", "EPOCHS": "60"}
    script = ["bash", "scripts/find_lr.sh", *SEARCH[1:], str(tmp_path / "one")]
    one = subprocess.Popen(script, cwd=ROOT, env=os.environ | few, stdout=subprocess.PIPE, text=True)
    options = [*ON_CPUS, f"--output={slurm.folder}/search-%j.log"]
    environment = few | {"OPTIONS": " ".join(options)}
    number = slurm.submit(*options, *SEARCH, str(tmp_path / "many"), **environment)
    assert slurm.ends(number) == "COMPLETED"
    wait_until(lambda: not slurm.call("squeue", "-h", "-n", "find-lr"), 240, lambda: slurm.call("squeue"))
    answer, _ = one.communicate()
    assert one.returncode == 0
    assert len(results(tmp_path / "one")) == 6 and results(tmp_path / "many") == results(tmp_path / "one")
    last = max(slurm.folder.glob("search-*.log"), key=lambda path: path.stat().st_mtime).read_text()
    assert last.splitlines()[-10:-1] == answer.splitlines()[-10:-1]
