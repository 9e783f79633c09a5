"""What the command lines of all scripts share: the parser, argument types, and errors that become exit codes."""

import argparse
import math
import shlex
import signal
import sys
import time

from tqdm import tqdm

from data.startup import die_by


class BadInput(Exception):
    """Wrong arguments or input data. The message is one line: what is wrong, where, and the fix. Exit code 2."""


class Refused(Exception):
    """A run folder that is held by another process or was made with other settings. One line; exit code 3."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not that there is none."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, defaults shown in the help, and presets: `@file` reads arguments from a file.

    A preset holds arguments as one would type them in a shell, on any number of lines, `#` starting a comment.
    """

    def __init__(self, description=None, example=None, **subparser_options):
        super().__init__(
            description=description,
            epilog=example and f"example: {example}",
            fromfile_prefix_chars="@",
            formatter_class=HelpFormatter,
            **subparser_options,
        )

    def convert_arg_line_to_args(self, line):
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            self.error(f"a file of arguments has the line {line!r}: {error}")

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def positive_float(text):
    """A finite number above 0, for argparse."""
    return _number(text, float, lambda value: math.isfinite(value) and value > 0, "a finite number above 0")


def non_negative_float(text):
    """A finite number of at least 0, for argparse."""
    return _number(text, float, lambda value: math.isfinite(value) and value >= 0, "a finite number of at least 0")


def fraction(text):
    """A number of at least 0 and below 1, for argparse."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")


def positive_int(text):
    """A whole number above 0, for argparse."""
    return _number(text, int, lambda value: value > 0, "a whole number above 0")


def natural(text):
    """A whole number of at least 0, for argparse."""
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def _number(text, kind, is_allowed, description):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_allowed(value):
        raise argparse.ArgumentTypeError(f"{text} is not {description}")
    return value


def lr_name(lr):
    """A learning rate as it stands in the names of folders: 1e-4, 3.162278e-5."""
    mantissa, exponent = f"{lr:.6e}".split("e")
    return f"{float(mantissa):.7g}e{int(exponent)}"


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
            print(f"{self.name}: {self.unit} {step}/{self.total}, {text}{self._time_left(step)}", flush=True)
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

    at_interrupt: what is said then of what becomes of the work.
    """

    def terminate(signum, frame):
        raise Terminated

    signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of those of data.startup
    signal.signal(signal.SIGTERM, terminate)
    try:
        main()
    except (BadInput, Refused) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 3)
    except KeyboardInterrupt as interrupt:
        print(f"{sys.argv[0]}: interrupted; {at_interrupt}", file=sys.stderr)
        die_by(signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; nothing is lost, and a traceback would help nobody.
        sys.stderr.close()
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"{sys.argv[0]}: {error.filename}: {error.strerror}; fix that or name another place", file=sys.stderr
        )
        sys.exit(2)
