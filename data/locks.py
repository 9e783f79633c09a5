"""Folders that one process at a time works on."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from data.commandline import Refused

LOCK = "lock"  # the name of a file in such a folder


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
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)  # where it is a pipe, nobody need write into it
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
