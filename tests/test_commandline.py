"""The parser, argument types, progress and exit codes that all scripts share."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import commandline
from data.commandline import (
    BadInput,
    Parser,
    Progress,
    Refused,
    lr_name,
    natural,
    one_line,
    positive_float,
    positive_int,
    run,
)


@pytest.fixture
def parser():
    parser = Parser(description="Train something.", example="python train.py --lr 1e-3")
    parser.add_argument("--lr", nargs="+", type=positive_float, help="learning rates")
    parser.add_argument("--steps", type=positive_int, default=200, help="epochs")
    parser.add_argument("--seed", type=natural, default=1, help="of everything")
    parser.add_argument("--out", help="folder")
    return parser


# Presets


def test_preset_holds_several_lines_and_comments(parser, tmp_path):
    (tmp_path / "preset").write_text("# paper\n\n--lr 1e-3 2e-3   # two\n  --steps 7 --out 'my runs/a'\n")
    args = parser.parse_args([f"@{tmp_path}/preset", "--seed", "3"])
    assert (args.lr, args.steps, args.seed, args.out) == ([1e-3, 2e-3], 7, 3, "my runs/a")


def test_what_follows_a_preset_overrides_it(parser, tmp_path):
    (tmp_path / "preset").write_text("--lr 1e-3\n--steps 7\n")
    args = parser.parse_args([f"@{tmp_path}/preset", "--steps", "8"])
    assert (args.lr, args.steps) == ([1e-3], 8)


def test_missing_preset_is_one_line(parser, tmp_path, capsys):
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args([f"@{tmp_path}/none"])
    error = capsys.readouterr().err
    assert leaving.value.code == 2 and error.count("\n") == 1 and f"{tmp_path}/none" in error


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda path: path.write_bytes(b"--out \xff"), "is no text in UTF-8"),
        (lambda path: path.write_bytes(b"--out a\0b"), "is no text"),
        (lambda path: path.write_text(f"--steps 3 @{path}"), "reads itself"),
        (lambda path: path.write_text("--out 'a"), "has the line"),
        (lambda path: path.write_text("#" * 200_000), "is no file of arguments"),
        (lambda path: path.mkdir(), "is no file of arguments"),
        (lambda path: os.mkfifo(path), "is no file of arguments"),
    ],
)
def test_odd_presets_are_one_line(parser, made, message, tmp_path, capsys):
    made(tmp_path / "preset")
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args([f"@{tmp_path}/preset"])
    error = capsys.readouterr().err
    assert (
        leaving.value.code == 2 and error.count("\n") == 1 and f"@{tmp_path}/preset" in error and message in error
    )


def test_presets_read_presets(parser, tmp_path):
    (tmp_path / "short").write_text("--steps 7\n")
    (tmp_path / "preset").write_text(f"--lr 1e-3\n@{tmp_path}/short --seed 3\n")
    args = parser.parse_args([f"@{tmp_path}/preset", "--lr", "2e-3"])
    assert (args.lr, args.steps, args.seed) == ([2e-3], 7, 3)


# Types


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("0.5", 0.5), ("3", 3.0)])
def test_positive_float(text, value):
    assert positive_float(text) == value


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--lr", text] for text in ("0", "-1", "-0.5", "nan", "inf", "1e999", "-0.0", "x", "")),
        *(["--steps", text] for text in ("0", "-2", "1.5", "x", "")),
        *(["--seed", text] for text in ("-1", "0.5", "x")),
        ["--lr"],
        ["--lr", "-inf"],
        ["--unknown"],
        ["stray"],
    ],
)
def test_bad_argument_is_one_line_that_names_it(parser, arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(arguments)
    error = capsys.readouterr().err
    assert leaving.value.code == 2
    assert error.count("\n") == 1 and error.endswith("(see --help)\n") and arguments[0] in error


@pytest.mark.parametrize(
    "arguments, meant",
    [(["--stesp", "3"], "--steps"), (["--sedd=3"], "--seed"), (["--model", "vitt"], "vit"), (["--xyzw"], None)],
)
def test_what_may_have_been_meant(parser, arguments, meant, monkeypatch, capsys):
    monkeypatch.setattr(
        Parser, "flags", {"--lr", "--steps", "--seed", "--out"}
    )  # without those of scripts in this process
    parser.add_argument("--model", choices=["vit", "resnet18"])
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    error = capsys.readouterr().err
    assert (f"; did you mean {meant}? (see --help)" in error) == (meant is not None)
    assert "did you mean" in error or meant is None


def test_natural_takes_zero(parser):
    assert parser.parse_args(["--seed", "0"]).seed == 0


def test_help_shows_defaults_and_the_example(parser, capsys):
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert leaving.value.code == 0
    assert "epochs (default: 200)" in text and "example: python train.py --lr 1e-3" in text


@pytest.mark.parametrize(
    "lr, name",
    [(1e-4, "1e-4"), (0.00005, "5e-5"), (10**-4.5, "3.162278e-5"), (0.0075, "7.5e-3"), (1.0, "1e0"), (20, "2e1")],
)
def test_learning_rates_in_names(lr, name):
    assert lr_name(lr) == name


# Exit codes


@pytest.fixture(autouse=True)
def sigterm_handler():
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("SIGTERM is not handled"))
    yield
    signal.signal(signal.SIGTERM, before)


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "main, code, message",
    [
        (raising(BadInput("a.pt: is missing")), 2, "train.py: a.pt: is missing\n"),
        (raising(Refused("runs/a: is held")), 3, "train.py: runs/a: is held\n"),
        (
            raising(KeyboardInterrupt()),
            130,
            "train.py: interrupted; the same command goes on where it was\n",
        ),
        (
            lambda: os.kill(os.getpid(), signal.SIGTERM),
            143,
            "train.py: interrupted; the same command goes on where it was\n",
        ),
        (raising(SystemExit(2)), 2, ""),
    ],
)
def test_exit_codes(main, code, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(commandline, "die_by", lambda signum: sys.exit(128 + signum))
    with pytest.raises(SystemExit) as leaving:
        run(main)
    assert leaving.value.code == code and capsys.readouterr().err == message


INTERRUPTED = """
import os, sys, time
from data.commandline import run

def main():
    open("started", "a").write("x")
    time.sleep(60)

run(main)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_dies_of_the_signal(signum, tmp_path):
    process, _ = started([sys.executable, "-c", INTERRUPTED], tmp_path)
    process.send_signal(signum)
    assert process.communicate(timeout=30)[1] == "-c: interrupted; the same command goes on where it was\n"
    assert process.returncode == -signum  # a shell says 128 + signum


def test_the_first_process_of_a_container_exits_instead(monkeypatch):
    """The system keeps signals without a handler from it."""
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as leaving:
        run(raising(KeyboardInterrupt()))
    signal.signal(signal.SIGINT, before)
    assert leaving.value.code == 130


def test_ctrl_c_ends_a_loop_in_the_shell(tmp_path):
    """The terminal sends the signal to the shell, too, which goes on with its loop where the command only exits."""
    (tmp_path / "train.py").write_text(INTERRUPTED)
    loop = f"for plr in 1e-3 1e-2; do {sys.executable} train.py --lr $plr; done; touch done"
    process, marks = started(["bash", "-c", loop], tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "train.py: interrupted; the same command goes on where it was\n"
    assert process.returncode == -signal.SIGINT
    assert marks.read_text() == "x" and not (tmp_path / "done").exists()


def started(command, folder):
    """A process group of its own, as of a terminal, where Python has come to INTERRUPTED's main()."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # where tests run in the background
    )
    marks, deadline = folder / "started", time.monotonic() + 60
    while not marks.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return process, marks


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a naïve 'name'", "a naïve 'name'"),
        ("two\nlines\r\tand\x00", "two\\nlines\\r\\tand\\x00"),
        ("\x1b[2Jclears \x9b2J", "\\x1b[2Jclears \\x9b2J"),
        ("caf\udce9", "caf\\udce9"),  # as Python holds a name that is not UTF-8
        ("gpj.\u202epng\u2028", "gpj.\\u202epng\\u2028"),
        ("a" * 300, "a" * 300),
        (200 * "a" + "b" + 100 * "c", 197 * "a" + "..." + 100 * "c"),
    ],
)
def test_one_line(text, shown):
    assert one_line(text) == shown and one_line(shown) == shown


@pytest.mark.parametrize(
    "error, code",
    [
        (BadInput("\x1b[2J\udcff\n: is missing"), 2),
        (Refused("\x1b[2J\udcff\n: is held"), 3),
        (OSError(5, "is gone", "\x1b[2J\udcff\n"), 2),
    ],
)
def test_names_in_messages_are_escaped(error, code, capsys):
    with pytest.raises(SystemExit) as leaving:
        run(raising(error))
    message = capsys.readouterr().err
    assert leaving.value.code == code and "\\x1b[2J\\udcff\\n: is " in message and message.count("\n") == 1


def test_long_messages_keep_the_fix(capsys):
    with pytest.raises(SystemExit):
        run(raising(BadInput(f"{'x' * 5000}: is missing; prepare it")))
    message = capsys.readouterr().err
    assert len(message) < 1100 and message.endswith("x: is missing; prepare it\n")


def test_bad_arguments_are_escaped_and_cut(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--steps", "\x1b[2J\udcff\n" + "9" * 5000])
    message = capsys.readouterr().err
    assert "\\x1b[2J\\udcff\\n9" in message and len(message) < 1100 and message.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_can_be_printed(encoding):
    script = "from data.commandline import run; run(lambda: print('caf\\udce9 \u00e9'))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONIOENCODING": encoding}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    ).stdout
    assert printed == "caf\\udce9 \u00e9\n".encode(encoding, "backslashreplace")


def test_success_and_bugs_pass_through(capsys):
    assert run(lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


# Progress


def test_progress_without_a_terminal_is_few_lines(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(commandline.time, "monotonic", lambda: now)
    with Progress("runs/a", 40, "epoch", start=0) as progress:
        for step in range(1, 41):
            now += 1.5
            progress.update(step, f"loss {step}")
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    # The first is later than ten seconds; the 33 epochs left take 1.5 seconds each.
    assert lines[0] == "runs/a: epoch 7/40, loss 7, 00:49 left"
    assert lines[-1] == "runs/a: epoch 40/40, loss 40" and len(lines) == 6


def test_progress_on_a_terminal_is_one_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("runs/a", 4, "epoch", start=1) as progress:
        progress.update(3, "loss 0.5")
        assert progress.bar.n == 3 and progress.bar.total == 4
    captured = capsys.readouterr()
    assert captured.out == "" and "runs/a" in captured.err and "loss 0.5" in captured.err
