"""Files that are never seen half-written or changed unnoticed: tensors with a digest, and strict JSON."""

import contextlib
import fcntl
import gc
import hashlib
import json
import math
import os
import pickletools
import re
import stat
import zipfile
from pathlib import Path

import numpy
import torch

from data.commandline import BadInput


def write_atomically(path, write):
    """Call write(file) on a temporary binary file in the same folder, then put it in the place of `path` at once.

    A reader, or a process that resumes after a kill at any moment, sees the old file or the new one, never a part.
    The temporary name carries the process number, so that two processes never write one file; a kill can leave it
    behind, for remove_strays(). Raises BadInput where the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: is no regular file; name another place")
        with _open_held(temporary) as file:
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
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _open_held(path):
    """Open a file for writing bytes that remove_strays() leaves alone as long as it is open."""
    while True:
        file = open(path, "wb")
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(file, fcntl.LOCK_SH)
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(file.fileno())):
            return file
        file.close()  # it was removed in between


def remove_strays(folder, *endings):
    """Remove what killed processes left in a folder, if there is one, of files whose names end so (".json", ...)."""
    ending = "|".join(map(re.escape, endings))
    left_by_a_kill = re.compile(rf"\..+({ending})\.\d+\.tmp")  # as write_atomically() names them
    try:
        strays = [path for path in Path(folder).iterdir() if left_by_a_kill.fullmatch(path.name)]
    except OSError:  # no folder, or not to be read
        return
    for stray in strays:
        # Those of living processes are held, see _open_held(); others may be somebody else's.
        with contextlib.suppress(OSError, BadInput), open_regular(stray) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stray.unlink()


DIGEST = "sha256"  # key of the digest in a tensor file


def write_tensors(path, content):
    """Write a dictionary of tensors and plain containers atomically, with its digest, for read_tensors().

    torch.load(weights_only=True) reads it, too; it then has the digest (hexadecimal) under `sha256`.
    """
    write_atomically(path, lambda file: torch.save(content | {DIGEST: digest_of(content)}, file))


def read_tensors(path, fix, wholly=True):
    """(content, digest) of a file of write_tensors(), its tensors on the CPU.

    wholly: or the tensors are only mapped, so that this takes no time, and nothing is checked that lies in them, nor the
    digest, where there is one: files of earlier versions have none, so that it is computed. Raises FileNotFoundError where
    there is no file, and BadInput, which ends with the fix, where it is damaged or something else: nothing of it is run,
    and what it declares to hold is not allocated unless it is there.
    """
    try:
        with open_regular(path) as file:
            content = _load(file, path if not wholly else None)
            stored = content.pop(DIGEST, None)
            digest = digest_of(content) if wholly or stored is None else stored
            if stored not in (None, digest):
                raise ValueError("its tensors do not match their digest")
    except (FileNotFoundError, BadInput):
        raise
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise BadInput(f"{path}: is damaged or no file of this program ({reason}); {fix}") from None
    return content, digest


# All that the pickle in a file of write_tensors() names. torch.load() knows more, which can take memory that no file holds.
PLAIN = re.compile(r"torch\._utils _rebuild_tensor_v2|torch \w+Storage|collections OrderedDict")


def _load(file, mapped=None):
    """The dictionary in a file of torch.save(), or as it is mapped, where its path is given.

    Raises all kinds of errors for another file, ValueError for large ones.
    """
    length = file.seek(0, os.SEEK_END)
    archive = zipfile.ZipFile(file)
    parts = archive.infolist()
    if sum(part.file_size for part in parts) > length:
        raise ValueError("its parts are longer than the file")
    if mapped is None and archive.testzip() is not None:  # of earlier files, and of the digest itself
        raise ValueError("a part of it does not match its checksum")
    [pickled] = [part for part in parts if part.filename.endswith("/data.pkl")]
    if not all(PLAIN.fullmatch(name) for name in _names_in_pickle(archive.read(pickled))):
        raise ValueError("it holds more than tensors and plain containers")
    file.seek(0)
    content = torch.load(mapped or file, map_location="cpu", weights_only=True, mmap=mapped is not None)
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary")
    _refuse_more_than_stored(content, length, [part.file_size for part in parts if "/data/" in part.filename])
    return content


def _names_in_pickle(pickled):
    """What a pickle imports, as `module name`; empty for what is not named in it."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            yield argument
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield ""


def _refuse_more_than_stored(content, length, stored):
    """Raise ValueError where tensors would take more memory than the file is long, once each is copied.

    stored: bytes of each tensor's numbers in the file, of which PyTorch 2.6 takes for granted what the pickle declares.
    """
    needed, storages = 0, {}
    for count, item in enumerate(_items(content)):
        if isinstance(item, torch.Tensor):
            needed += item.numel() * item.element_size()
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        if max(needed, count) > length:
            raise ValueError("it declares more than it holds")
    if sorted(filter(None, storages.values())) != sorted(filter(None, stored)):
        raise ValueError("its tensors are not as long as it declares")


def _items(content):
    """All that is in nested dictionaries and lists, themselves among it, but for keys."""
    yield content
    if isinstance(content, (dict, list, tuple)):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _items(item)


def digest_of(content):
    """sha256 (hexadecimal) of tensors in dictionaries and lists: of their names, types, shapes and bytes."""
    hashed = hashlib.sha256()
    for part in _parts(content):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(content):
    """What digest_of() hashes, in order; every part says its kind and length, so that no two contents look alike."""
    if isinstance(content, torch.Tensor):
        yield f"tensor {content.dtype} {list(content.shape)}\n".encode()
        if content.numel():
            flat = content.detach().cpu().contiguous().view(-1)
            flat = flat.as_strided(flat.shape, [1])  # the stride of a single number may be anything
            yield flat.view(torch.uint8).numpy()
    elif isinstance(content, dict):
        yield f"dictionary {len(content)}\n".encode()
        for key in sorted(content, key=repr):
            yield from _parts(key)
            yield from _parts(content[key])
    elif isinstance(content, (list, tuple)):
        yield f"list {len(content)}\n".encode()
        for item in content:
            yield from _parts(item)
    else:
        text = repr(content).encode()
        yield b"%s %d\n%s" % (type(content).__name__.encode(), len(text), text)


def open_regular(path):
    """Open a file for reading bytes. Raises BadInput where it is a pipe, a device or a folder, which might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening has effects: on devices, and on who writes into a pipe
        raise BadInput(f"{path}: is no regular file; name one")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not wait where it has become a pipe since
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput(f"{path}: is no regular file; name one")
    return os.fdopen(descriptor, "rb")


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


def read_json(path, fix="restore it or remove the folder and run again"):
    """Read a file of strict JSON. Raises BadInput, naming the file and the fix, where it is missing or anything else.

    Strict: no NaN or Infinity, no key twice in an object, no number beyond what a float holds.
    """
    try:
        with open_regular(path) as file, _no_collection():
            text = file.read()
            if _depth(text) > DEEPEST:
                raise ValueError("nested too deep")
            return json.loads(
                text,
                parse_constant=_refuse_constant,
                parse_float=_finite,
                parse_int=_of_a_float,
                object_pairs_hook=_unique,
            )
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except ValueError as error:
        raise BadInput(f"{path}: is not valid JSON ({error}); {fix}") from None


DEEPEST = 100  # what is nested no deeper is safe to walk by functions that call themselves
NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _depth(text):
    """How deep JSON is nested, or more, where texts in it hold brackets."""
    brackets = numpy.frombuffer(text.translate(None, delete=NO_BRACKETS), dtype=numpy.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return numpy.where(opening, 1, -1).cumsum().max(initial=0)


@contextlib.contextmanager
def _no_collection():
    """Without the search for cycles, which lists of JSON are never in, and which takes most of the time of reading them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_constant(name):
    raise ValueError(f"{name} is no number of JSON")


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _of_a_float(text):
    if len(text) > 300:
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)


def _unique(pairs):
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return content


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
