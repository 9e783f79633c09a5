"""Files that are never seen half-written, and strict JSON."""

import json
import math
import os
from pathlib import Path

import torch

from data.commandline import BadInput


def write_atomically(path, write):
    """Call write(file) on a temporary binary file in the same folder, then put it in the place of `path` at once.

    A reader, or a process that resumes after a kill at any moment, sees the old file or the new one, never a part.
    The temporary name carries the process number, so that two processes never write one file; a kill can leave it
    behind. Raises BadInput where the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch.save hides the system's own error behind one of its kind.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise BadInput(
            f"{path}: cannot be written ({cause.strerror}); make room there or name another place"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path, content):
    """Write tensors in plain containers atomically, for torch.load(weights_only=True)."""
    write_atomically(path, lambda file: torch.save(content, file))


def write_json(path, content):
    """Write a dictionary atomically as strict JSON, a line per key.

    Numbers that are not finite become null. Tensors become lists of numbers with 7 significant digits, about what
    float32 holds.
    """
    lines = (f"{json.dumps(key)}: {json.dumps(_strict(value), allow_nan=False)}" for key, value in content.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def as_written(tensor):
    """The numbers of a tensor as write_json() writes them and read_json() reads them: lists, None for what is not finite."""
    return _strict(_rounded(tensor.tolist()))


def read_json(path):
    """Read a JSON file. Raises BadInput, naming the file, where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(
            f"{path}: is not valid JSON ({error}); restore it or remove the folder and run again"
        ) from None


def _strict(value):
    if isinstance(value, torch.Tensor):
        return as_written(value)
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value
