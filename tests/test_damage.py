"""Run folders whose files were damaged, exchanged or edited: refused in one line, or as good as they were."""

import copy
import json
import random
import re
import shutil

import pytest
import torch
from test_runs import call, command, contents, one_line, pretraining, unfinished, write_image_set

from data.commandline import BadInput
from data.files import digest_of, read_tensors, write_json, write_tensors
from data.runs import Run

KINDS = {"ticks": 10, "images": 2}  # and how long the runs are that others continue


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A folder with an image set and two complete runs to continue: tiny.pt, ticks, images."""
    folder = tmp_path_factory.mktemp("origin")
    write_image_set(folder / "tiny.pt")
    for kind, steps in KINDS.items():
        assert call("train", *pretraining(kind, folder), "--steps", steps, "--out", folder / kind) == 0
    return folder


def changed(path, change):
    """Change the content of a file of tensors, with a digest that is right."""
    content, _ = read_tensors(path, "")
    change(content)
    write_tensors(path, content)


# Weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_refused_or_changes_nothing(kind, origin, tmp_path):
    run = Run(shutil.copytree(origin / kind, tmp_path / "run"))
    path, expected = run.path / "checkpoint.pt", digest_of(run.weights())
    sound, chance, refused = path.read_bytes(), random.Random(1), 0
    for position in chance.sample(range(8 * len(sound)), 100):
        flipped = bytearray(sound)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert digest_of(run.weights()) == expected
        except BadInput as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 20


def one_number(content):
    content["weights"] = content["weights"][:, :1].clone()


def one_row(content):
    content["weights"] = content["weights"][:1, :1].clone()


def of_doubles(content):
    content["weights"] = content["weights"].double()


def no_weights(content):
    del content["weights"]


def short_buffer(content):
    name = max(content["buffers"])
    content["buffers"][name] = content["buffers"][name].flatten()[:1].clone()


def no_buffer(content):
    content["buffers"].popitem()


def one_buffer_more(content):
    content["buffers"]["more"] = torch.zeros(1)


def no_buffers(content):
    content["buffers"] = torch.zeros(1)


def no_step(content):
    del content["step"]


def step_in_words(content):
    content["step"] = "last"


def other_network(content):
    content["network"] = "vit"


UNFIT = [one_number, one_row, of_doubles, no_weights, short_buffer, no_buffer, one_buffer_more, no_buffers]
UNFIT_CHECKPOINT = [*UNFIT, no_step, step_in_words, other_network]


@pytest.mark.parametrize("change", UNFIT_CHECKPOINT, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_shape_are_not_continued(kind, change, origin, tmp_path, capsys):
    path = shutil.copytree(origin / kind, tmp_path / "run") / "checkpoint.pt"
    changed(path, change)
    for continuing in (
        ["finetune", path.parent, "--lr", 1e-4, "--steps", 1],
        ["swa", path.parent, "--windows", 2, "--anchor", "start"],
    ):
        capsys.readouterr()
        assert call(*continuing, "--out", tmp_path / "to") == 2
        assert f"{path}: is not of this run and its network (" in one_line(capsys)


def no_averages(content):
    del content["averages"]


def short_average(content):
    content["averages"][2] = content["averages"][2][:, :1].clone()


def other_average(content):
    content["averages"] = {99: content["weights"].clone()}


@pytest.mark.parametrize(
    "change", [one_number, no_step, no_averages, short_average, other_average], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_does_not_go_on_from_weights_of_another_shape(kind, change, origin, tmp_path, capsys):
    arguments, folder = unfinished("swa", kind, origin, tmp_path)
    changed(folder / "checkpoint.pt", change)
    before = contents(folder)
    capsys.readouterr()
    assert call(*arguments) == 2
    assert f"{folder / 'checkpoint.pt'}: is not of this run and its network (" in one_line(capsys)
    assert contents(folder) == before


def test_kept_weights_under_the_name_of_others_are_refused(origin, tmp_path):
    arguments, folder = command("train", "ticks", origin, tmp_path)
    assert call(*arguments) == 0
    shutil.copy(folder / "step-7.pt", folder / "step-0.pt")
    with pytest.raises(BadInput, match=r"step-0.pt: is not of this run and its network \(its step is 7\); remove"):
        Run(folder).weights_at(0)


@pytest.mark.parametrize("change", UNFIT, ids=lambda change: change.__name__)
def test_weights_of_another_shape_are_not_measured(change, origin, tmp_path, capsys):
    path = shutil.copytree(origin / "ticks", tmp_path / "run") / "checkpoint.pt"
    changed(path, change)
    call("analyze", "features", tmp_path)
    printed = capsys.readouterr()
    assert f"{path}: is not of this run and its network (" in printed.out + printed.err
    assert Run(path.parent).measurement("features") is None


# What a run began from


def nudged(content):
    content["weights"] = content["weights"].nextafter(torch.tensor(2.0))


CHILDREN = {
    "finetune": ["--lr", 1e-4, "--steps", 2],
    "swa": ["--windows", 2, "--spacing", 1, "--anchor", "start"],
}


def child(stage, parent, out):
    """(the command that continues a run, the folder of that)."""
    name = f"{parent.name}-flr1e-4" if stage == "finetune" else parent.name
    return [stage, parent, *CHILDREN[stage], "--out", out], out / name


@pytest.mark.parametrize("stage", CHILDREN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_it_began_from_and_does_not_go_on_from_other_weights(
    kind,
    stage,
    origin,
    tmp_path,
    capsys,
):
    parent = shutil.copytree(origin / kind, tmp_path / "parent")
    command, folder = child(stage, parent, tmp_path / "out")
    assert call(*command) == 0
    assert Run(folder).config["parent"]["sha256"] == digest_of(Run(parent).weights())
    assert call(*command) == 0
    shutil.copytree(folder, tmp_path / "earlier" / folder.name)
    changed(parent / "checkpoint.pt", nudged)
    before = contents(folder)
    capsys.readouterr()
    assert call(*command) == 3
    assert f"{folder}: began from other weights than {parent} now has at" in one_line(capsys)
    assert contents(folder) == before
    # Runs that do not say what they began from are as they were.
    command[-1] = tmp_path / "earlier"
    config = Run(command[-1] / folder.name).config
    del config["parent"]["sha256"]
    write_json(command[-1] / folder.name / "config.json", config)
    assert call(*command) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_run_needs_its_parents_weights_no_more(kind, origin, tmp_path, capsys):
    parent = shutil.copytree(origin / kind, tmp_path / "parent")
    command, folder = child("finetune", parent, tmp_path / "out")
    assert call(*command) == 0
    (parent / "checkpoint.pt").unlink()
    assert call(*command) == 0
    capsys.readouterr()
    command, folder = child("swa", parent, tmp_path / "out")
    assert call(*command) == 2
    assert "checkpoint.pt: does not exist" in one_line(capsys) and not folder.exists()


def test_weights_replaced_while_a_command_runs_are_not_begun_from(origin, tmp_path):
    parent = Run(shutil.copytree(origin / "ticks", tmp_path / "parent"))
    digest = parent.digest_at(10)
    parent.weights_at(10, digest=digest)
    changed(parent.path / "checkpoint.pt", nudged)
    with pytest.raises(BadInput, match="a run that continues it began from other weights"):
        parent.weights_at(10, digest=digest)


# JSON


OTHERS = [
    "x",
    "",
    -1,
    0,
    1.5,
    None,
    True,
    [],
    {},
    [1],
    ["x"],
    {"a": 1},
    1e300,
    10**200,
    "\x1b[2J\n",
    "../x",
    "$x_",
]


def places(content, path=()):
    """All paths into nested lists and dictionaries but the empty one."""
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def with_something_else(content, chance):
    """JSON with one of its values replaced or removed, or with one more."""
    content = copy.deepcopy(content)
    all_places = list(places(content))
    depth = chance.randint(1, 4)  # as most values are numbers far inside
    place = chance.choice([place for place in all_places if len(place) <= depth])
    inside = content
    for key in place[:-1]:
        inside = inside[key]
    kind = chance.random()
    if kind < 0.75:
        inside[place[-1]] = chance.choice(OTHERS)
    elif kind < 0.9 or isinstance(inside, dict):
        del inside[place[-1]]
    else:
        inside.insert(place[-1], inside[place[-1]])
    return content


@pytest.fixture(scope="module")
def measured(origin, tmp_path_factory):
    """{kind: a folder of runs of all stages with all measurements but those of images that take long}."""
    folder = tmp_path_factory.mktemp("measured")
    for kind in KINDS:
        (folder / kind).mkdir()
        for lr in ("1e-3", "1e-2"):
            trained = [*pretraining(kind, origin)[: -2 if kind == "images" else None]]
            if kind == "images":
                trained += ["--lr", lr]
            else:
                trained[trained.index("--lr") + 1 : trained.index("--log-every")] = [lr]
            assert call("train", *trained, "--steps", 5, "--out", folder / kind / f"pretrain/plr{lr}") == 0
        runs = sorted((folder / kind / "pretrain").iterdir())
        assert call("finetune", *runs, "--lr", 1e-5, 1e-4, "--steps", 2, "--out", folder / kind / "finetune") == 0
        swa = ["--windows", 2, 5, "--spacing", 1, "--anchor", "start", "--out", folder / kind / "swa"]
        assert call("swa", *runs, *swa) == 0
    measuring = [["features", "ticks"], ["geometry", "ticks"], ["norms", "images"]]
    measuring += [
        ["bands", "images", "--low-ends", 2],
        ["sharpness", "images", "--end", "--images", 4, "--probes", 2],
    ]
    for name, kind, *more in measuring:
        assert call("analyze", name, folder / kind, *more) == 0
    return folder


@pytest.mark.parametrize("seed", range(80))
def test_other_values_in_run_folders_end_in_no_traceback(seed, measured, tmp_path, monkeypatch, capsys):
    chance = random.Random(seed)
    kind = chance.choice([*KINDS])
    path = chance.choice(sorted((measured / kind).rglob("*.json"))).relative_to(measured / kind)
    shutil.copytree(measured / kind, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    content = with_something_else(json.loads((tmp_path / "runs" / path).read_text()), chance)
    (tmp_path / "runs" / path).write_text(json.dumps(content))
    runs = sorted((tmp_path / "runs/pretrain").iterdir())
    name = chance.choice(["runs", "claims", "boundary", "band", "norms" if kind == "images" else "features"])
    tuning = ["finetune", *runs, "--lr", 1e-5, "--steps", 2, "--out", "runs/finetune"]
    for run_command in (lambda: call("analyze", name, "runs"), lambda: call(*tuning)):
        capsys.readouterr()
        code, error = run_command(), capsys.readouterr().err
        # The boundary says on stderr what it knows of every run before.
        assert code == 0 or code in (2, 3) and (name == "boundary" or error.count("\n") == 1), error


@pytest.mark.parametrize("seed", range(12))
def test_other_values_in_figures_end_in_no_traceback(seed, measured, tmp_path, monkeypatch, capsys):
    chance = random.Random(seed)
    monkeypatch.chdir(tmp_path)
    name = chance.choice(["1", "2", "7", "10"])
    assert call("analyze", "figures", measured / "images", "--only", name, "--out", tmp_path) == 0
    [path] = tmp_path.glob("figure*.json")
    path.write_text(json.dumps(with_something_else(json.loads(path.read_text()), chance)))
    capsys.readouterr()
    code = call("analyze", "draw", path)
    assert code == 0 or code == 2 and f"{path}: " in one_line(capsys)


def test_a_curve_of_another_length_is_not_drawn(measured, tmp_path, capsys):
    assert call("analyze", "figures", measured / "images", "--only", "2", "--out", tmp_path) == 0
    path = tmp_path / "figure02.json"
    numbers = json.loads(path.read_text())
    numbers["pretrain"]["n"].append(1)
    path.write_text(json.dumps(numbers))
    capsys.readouterr()
    assert call("analyze", "draw", path) == 2
    assert one_line(capsys).endswith(
        f"{path}: pretrain.n has 3 entries, not 2; write it again with analyze.py figures\n"
    )


@pytest.mark.parametrize("name", ["config", "metrics", "features"])
@pytest.mark.parametrize(
    "content", [b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 10**5, b"[]", b"1", b'{"step": []}']
)
def test_what_is_not_strict_json_is_one_line(name, content, measured, tmp_path, capsys):
    shutil.copytree(measured / "ticks", tmp_path / "runs")
    [path, *_] = sorted((tmp_path / "runs/pretrain").iterdir())
    (path / f"{name}.json").write_bytes(content)
    capsys.readouterr()
    assert call("analyze", "features", tmp_path / "runs") == 2
    assert f"{path / name}.json: " in one_line(capsys)


def test_missing_rows_are_noticed(measured, tmp_path, capsys):
    shutil.copytree(measured / "images", tmp_path / "runs")
    [path, *_] = sorted((tmp_path / "runs/pretrain").iterdir())
    metrics = json.loads((path / "metrics.json").read_text())
    for name in ("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        del metrics[name][1:3]
    (path / "metrics.json").write_text(json.dumps(metrics))
    capsys.readouterr()
    assert call("analyze", "claims", tmp_path / "runs") == 2
    assert f"{path}/metrics.json: step lacks 2 of the multiples of 1 (settings.log_every); restore" in one_line(
        capsys
    )


@pytest.mark.parametrize(
    "kind, name, content, only, drawn",
    [
        ("ticks", "features", "{", [], ["04", "15", "16"]),
        ("ticks", "geometry-*", '{"angle": 1}', ["--only", 4, 16], ["04"]),
        ("images", "norms", "[]", ["--only", 1], ["01"]),
    ],
)
def test_damaged_measurements_are_no_success(kind, name, content, only, drawn, measured, tmp_path, capsys):
    """Figures that do not need them are drawn first; claims would be judged by what is left."""
    shutil.copytree(measured / kind, tmp_path / "runs")
    [path, *_] = sorted((tmp_path / "runs/pretrain").rglob(f"{name}.json"))
    path.write_text(content)
    capsys.readouterr()
    for arguments in (
        ["claims", tmp_path / "runs"],
        ["figures", tmp_path / "runs", *only, "--out", tmp_path / "out"],
    ):
        assert call("analyze", *arguments) == 2
        assert re.search(f"{path}: .*; remove it and measure again\n$", one_line(capsys))
    assert [file.stem[-2:] for file in sorted((tmp_path / "out").glob("*.png"))] == drawn
