"""Commands that make several runs: what stands in the way of a later one is said before the first is begun."""

import shutil

import pytest
from test_runs import call, one_line, write_image_set

from data import device, images
from data.runs import Run

CHILDREN = {
    "finetune": ["--lr", 1e-4, "--steps", 1],
    "swa": ["--windows", 2, "--spacing", 1, "--anchor", "start"],
}


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """A folder with two runs on image sets of their own, a and b, the latter's network being larger."""
    folder = tmp_path_factory.mktemp("parents")
    for seed, (name, width) in enumerate((("a", 2), ("b", 8))):
        write_image_set(folder / f"{name}.pt", seed=seed)
        model = ["--model", "si-convnet", "--width", width, "--batch-size", 4, "--lr", 1e-2, "--steps", 1]
        assert call("train", "--data", folder / f"{name}.pt", *model, "--out", folder / name) == 0
    return folder


@pytest.fixture(params=CHILDREN)
def command(request, parents, tmp_path, monkeypatch):
    """The command that continues copies of a and b here, in this order, in `out`."""
    shutil.copytree(parents, tmp_path, dirs_exist_ok=True)
    for name in ("a", "b"):
        config = tmp_path / name / "config.json"
        config.write_text(config.read_text().replace(str(parents), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return [request.param, "a", "b", *CHILDREN[request.param], "--out", "out"]


def child(command, name):
    return f"out/{name}-flr1e-4" if command[0] == "finetune" else f"out/{name}"


def no_set(folder, _):
    (folder / "b.pt").unlink()
    return "b.pt: the run's image set is not there"


def damaged_set(folder, _):
    (folder / "b.pt").write_bytes((folder / "b.pt").read_bytes()[:-100])
    return "b.pt: is damaged"


def another_set(folder, _):
    shutil.copy(folder / "a.pt", folder / "b.pt")
    return "b.pt: holds other data than the run's random"


def damaged_weights(folder, _):
    """A bit of a number, which nothing but the digest tells."""
    path = folder / "b/checkpoint.pt"
    sound, tensor = path.read_bytes(), Run(folder / "b").weights()["weights"].numpy().tobytes()
    at = sound.index(tensor[:64])
    path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    return "checkpoint.pt: is damaged"


def other_things(_, command):
    """In the place of the run folder."""
    path = Run("b").path.parent / child(command, "b")
    path.mkdir(parents=True)
    (path / "mine.txt").write_text("")
    return "is not a run folder, yet it holds mine.txt"


def a_file(folder, _):
    """In the place of all of them."""
    (folder / "out").write_text("")
    return "cannot be made a folder (out is a file)"


@pytest.mark.parametrize(
    "change", [no_set, damaged_set, another_set, damaged_weights, other_things, a_file], ids=lambda c: c.__name__
)
def test_nothing_is_begun_where_a_later_run_cannot_be(change, command, tmp_path, capsys):
    words = change(tmp_path, command)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert call(*command) == 2
    assert words in one_line(capsys)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_nothing_is_begun_where_a_later_network_does_not_fit(command, monkeypatch, capsys):
    parameters = [Run(name).weights()["weights"].numel() for name in ("a", "b")]
    monkeypatch.setattr(device, "free_memory", lambda _: 8 * sum(parameters))
    capsys.readouterr()
    assert call(*command) == 2
    assert "of memory, of which" in (error := one_line(capsys)) and "stop other programs, or use another" in error
    assert not Run("a").path.with_name("out").exists()


def test_two_runs_of_one_name_are_not_put_into_one_folder(command, capsys):
    shutil.copytree("b", "other/a")
    command[1:3] = ["a", "other/a"]
    assert call(*command) == 2
    assert f"{child(command, 'a')}: two runs of this command would be in this folder" in one_line(capsys)
    command[1:3] = ["a", "a"]
    assert call(*command) == 0


def test_what_is_complete_needs_nothing(command, tmp_path, capsys):
    assert call(*command) == 0
    for change in (damaged_weights, no_set):
        change(tmp_path, command)
    assert call(*command) == 0
    (tmp_path / child(command, "b") / "metrics.json").unlink()
    capsys.readouterr()
    assert call(*command) == 2
    assert "b.pt: the run's image set is not there" in one_line(capsys)


def test_an_image_set_is_read_once(command, monkeypatch):
    read, reads = images.read_tensors, []
    monkeypatch.setattr(images, "read_tensors", lambda path, *more: reads.append(path) or read(path, *more))
    images.load_once.cache_clear()
    assert call(*command) == 0
    assert sorted(map(str, reads)) == sorted({*map(str, reads)}) and len(reads) == 2
