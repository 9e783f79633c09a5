"""What the command lines of all scripts share: the parser, argument types, and errors that become exit codes."""

import argparse
import contextlib
import difflib
import io
import os
import re
import shlex
import signal
import stat
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

from data.startup import die_by


class BadInput(Exception):
    """Wrong arguments or input data. The message is one line: what is wrong, where, and the fix. Exit code 2."""


class Refused(Exception):
    """A run folder that is held by another process or was made with other settings. One line; exit code 3."""


LONGEST_MESSAGE = 1000  # characters


def one_line(text, most=300):
    """Any text as a terminal shows it on one line: what is not printable is escaped, and its middle cut out if it is long.

    So no name of a file can clear the screen, nor break the output where it is not UTF-8. most: characters.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(shown) <= most:
        return shown
    end = most // 3  # messages end with the fix
    return f"{shown[: most - end - 3]}...{shown[-end:]}"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not that there is none."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False, (), []) else super()._get_help_string(action)


MOST_OF_A_PRESET = 100_000  # bytes


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest names, defaults shown in the help, and presets: `@file` reads arguments.

    A preset holds arguments as one would type them in a shell, on any number of lines, `#` starting a comment.
    """

    # Of all parsers of the script: those of subcommands report what they do not know to the first one.
    flags = set()

    def __init__(self, description=None, example=None, **subparser_options):
        super().__init__(
            description=description,
            epilog=example and f"example: {example}",
            formatter_class=HelpFormatter,
            **subparser_options,
        )

    def add_argument(self, *names, **options):
        self.flags.update(name for name in names if name.startswith("--"))
        return super().add_argument(*names, **options)

    def parse_args(self, args=None, namespace=None):
        return super().parse_args(self._with_presets(sys.argv[1:] if args is None else args), namespace)

    def _with_presets(self, arguments, inside=()):
        """The arguments with those of presets in the place of their names."""
        found = []
        for argument in arguments:
            if argument.startswith("@"):
                path = argument[1:]
                if path in inside:
                    self.error(f"{argument}: reads itself")
                found += self._with_presets(self._of_preset(path), (*inside, path))
            else:
                found.append(argument)
        return found

    def _of_preset(self, path):
        """The arguments in a preset."""
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_OF_A_PRESET:
                self.error(f"@{path}: is no file of arguments")
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            self.error(f"@{path}: cannot be read ({error.strerror})")
        except ValueError:  # also of names that no file can have
            self.error(f"@{path}: is no text in UTF-8")
        if "\0" in text:
            self.error(f"@{path}: is no text")
        arguments = []
        for line in text.splitlines():
            try:
                arguments += shlex.split(line, comments=True)
            except ValueError as error:
                self.error(f"@{path}: has the line {line!r}: {error}")
        return arguments

    def error(self, message):
        message = one_line(f"{message}{self._suggestion(message)}", LONGEST_MESSAGE)
        self.exit(2, f"{self.prog}: {message} (see --help)\n")

    def _suggestion(self, message):
        """What may have been meant, for a message of argparse that names something unknown."""
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
        if choice:
            return suggestion(choice[1], [name.strip("' ") for name in choice[2].split(",")])
        return suggestion(unknown[1], sorted(self.flags)) if unknown else ""


def suggestion(name, names):
    """`; did you mean NAME?` for the closest of some names; nothing where none is close."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


# Of finite numbers above 0: of these and of radii float32 holds all products lr * rho^2, so that none becomes 0 or infinite.
LIMITS = (1e-30, 1e30)
RADII = (1e-4, 1e4)
LARGEST = 10**15  # whole number: products of such with small ones are still exact in the floats of JSON's readers


def positive_float(text):
    """A finite number above 0, within LIMITS, for argparse."""
    return _number(text, float, lambda value: _within(LIMITS, value), f"a finite number above 0, {_range(LIMITS)}")


def radius(text):
    """A number within RADII, for argparse."""
    return _number(text, float, lambda value: _within(RADII, value), f"a radius {_range(RADII)}")


def non_negative_float(text):
    """A finite number of at least 0, which is 0 or within LIMITS, for argparse."""
    return _number(
        text,
        float,
        lambda value: value == 0 or _within(LIMITS, value),
        f"a finite number of at least 0: 0, or {_range(LIMITS)}",
    )


def fraction(text):
    """A number of at least 0 and below 1, for argparse."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")


def positive_int(text):
    """A whole number above 0, for argparse."""
    return _number(text, int, lambda value: 0 < value <= LARGEST, f"a whole number above 0, at most {LARGEST}")


def natural(text):
    """A whole number of at least 0, for argparse."""
    return _number(
        text, int, lambda value: 0 <= value <= LARGEST, f"a whole number of at least 0, at most {LARGEST}"
    )


def _within(limits, value):
    return limits[0] <= value <= limits[1]


def _range(limits):
    return f"from {lr_name(limits[0])} to {lr_name(limits[1])}"


def _number(text, kind, is_allowed, description):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_allowed(value):
        raise argparse.ArgumentTypeError(f"{text} is not {description}")
    return value


def counted(number, noun):
    """A number of things in words: `1 run`, `2 runs`."""
    return f"{number} {noun}" + "s" * (number != 1)


def lr_name(lr):
    """A learning rate as it stands in the names of folders: 1e-4, 3.162278e-5."""
    mantissa, exponent = f"{lr:.6e}".split("e")
    return f"{float(mantissa):.7g}e{int(exponent)}"


def say(text):
    """Print a line on the progress of work, which goes on where nobody reads it, or the disk of a log is full."""
    try:
        print(text, flush=True)
    except OSError:
        silence()


def silence():
    """Have all further output go nowhere, also what is left of it when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# By SIGUSR1, where a scheduler warns all processes of a job. Of SLURM only the job's shell is warned: scripts/requeue.sh.
save_requested = threading.Event()


class Progress:
    """One bar on a terminal; elsewhere one line now and then, with the time left, and one at the end.

    Used as a context: `with Progress("runs/a", 200, "epoch", start) as progress: progress.update(step, text)`.
    """

    seconds_between_lines = 10

    def __init__(self, name, total, unit, start):
        self.name, self.total, self.unit = name, total, unit
        self.bar = tqdm(total=total, initial=start, desc=name, unit=unit) if sys.stderr.isatty() else None
        self.start, self.started_at = start, time.monotonic()
        self.printed_at = self.started_at

    def __enter__(self):
        return self

    def update(self, step, text):
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=step == self.bar.n)  # which update() does not draw then
            self.bar.update(step - self.bar.n)
        elif step == self.total or time.monotonic() - self.printed_at > self.seconds_between_lines:
            say(f"{self.name}: {self.unit} {step}/{self.total}, {text}{self._time_left(step)}")
            self.printed_at = time.monotonic()

    def _time_left(self, step):
        """At the speed so far, as text; nothing at the end, nor before anything is done."""
        if not self.start < step < self.total:
            return ""
        seconds = (time.monotonic() - self.started_at) / (step - self.start) * (self.total - step)
        return f", {tqdm.format_interval(seconds)} left"

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill; treated as Ctrl-C, so that both save before they stop."""


def run(main, at_interrupt="the same command goes on where it was"):
    """Call main() and leave as the contract says: exit code 0 done, 2 bad input, 3 refused; interrupted, by the signal.

    at_interrupt: what is said then of what becomes of the work. Where results cannot be printed, as their reader has gone,
    the process dies of that (SIGPIPE); SIGUSR1, by which schedulers warn, sets save_requested.
    """

    def terminate(signum, frame):
        raise Terminated

    signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of those of data.startup
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGUSR1, lambda *_: save_requested.set())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be of the terminal's encoding
            with contextlib.suppress(OSError):
                stream.reconfigure(errors="backslashreplace")
    try:
        main()
        print(end="", flush=True)
    except (BadInput, Refused) as error:
        print(f"{sys.argv[0]}: {one_line(str(error), LONGEST_MESSAGE)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 3)
    except KeyboardInterrupt as interrupt:
        print(f"{sys.argv[0]}: interrupted; {at_interrupt}", file=sys.stderr)
        die_by(signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        die_by(signal.SIGPIPE)
    except OSError as error:
        if error.filename is None:
            silence()
        place = one_line(os.fsdecode(error.filename or "the output cannot be written"), LONGEST_MESSAGE)
        print(f"{sys.argv[0]}: {place}: {error.strerror}; fix that or name another place", file=sys.stderr)
        sys.exit(2)
