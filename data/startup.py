"""Imported by every script before all else: what must be settled before PyTorch is imported, which takes seconds.

Threads of OpenMP, which reads its settings once. By default those that wait spin, and where other processes compute
too, the thread that they wait for gets no core meanwhile: a process with a thread per core is then many times slower
than with one thread. They spin for a moment only, unless the user says otherwise (bench/threads.py).

Signals, until data.commandline.run() takes them: Ctrl-C and SIGTERM end the process with one line. SIGUSR1, by which
schedulers warn, is ignored from here on.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"


def die_by(signum):
    """End this process by a signal: a shell stops its loop only where a command died of Ctrl-C, whatever its exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    sys.exit(128 + signum)  # the first process of a container does not die of its own signals


def end(signum, _):
    """End the process, which has begun nothing, by the signal that it got."""
    with contextlib.suppress(OSError):
        os.write(2, os.fsencode(f"{sys.argv[0]}: interrupted before it began\n"))
    die_by(signum)


# Not where tests or a program of the user's import a script.
if Path(sys.argv[0]).resolve().parent in (ROOT, ROOT / "data", ROOT / "scripts"):
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
