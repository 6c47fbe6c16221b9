"""A wheelhouse's list, its signature, and what is not on it."""

import pytest

from fedkd.audit.officer import new_key, sign_paper
from fedkd.cli.wheelhouse import KIND, LETTERBOX, LIST, listed, main
from fedkd.knowledge import BadInput


@pytest.fixture
def house(tmp_path):
    """A small wheelhouse that was signed, and its signer's verifier key."""
    folder = tmp_path / "house"
    (folder / "wheels").mkdir(parents=True)
    for name in ("fedkd-0.1.0-py3-none-any", "Some.Thing_x-1.2+cpu-cp311-cp311-linux_x86_64"):
        (folder / "wheels" / f"{name}.whl").write_bytes(name.encode())
    paper = listed(folder / "wheels")
    (folder / LIST).write_bytes(paper)
    (folder / LETTERBOX).write_bytes(b"\n".join(paper.splitlines()[:2]) + b"\n")
    key = new_key(tmp_path / "coordinator.key", "Coordinator")
    (folder / f"{LIST}.sig").write_bytes(sign_paper(key, KIND, paper))
    return folder, key.verifier().text()


def test_a_list_names_every_wheel_with_its_hash(house):
    lines = (house[0] / LIST).read_text().splitlines()
    assert lines[0].startswith("# fedkd ")
    assert [line.split(" ")[0] for line in lines[1:]] == ["some-thing-x==1.2+cpu", "fedkd==0.1.0"]
    assert all(len(line.split("--hash=sha256:")[1]) == 64 for line in lines[1:])


def test_a_wheelhouse_as_it_was_signed_is_accepted(house, capsys):
    folder, key = house
    assert main(["check", str(folder), "--key", key]) == 0
    assert "2 wheels as Coordinator signed them" in capsys.readouterr().out


def test_another_wheel_one_more_or_one_less_is_refused(house, capsys):
    folder, key = house
    wheel = folder / "wheels" / "fedkd-0.1.0-py3-none-any.whl"
    kept = wheel.read_bytes()
    wheel.write_bytes(kept + b"x")
    assert main(["check", str(folder), "--key", key]) == 1
    wheel.unlink()
    assert main(["check", str(folder), "--key", key]) == 1
    wheel.write_bytes(kept)
    (folder / "wheels" / "evil-1-py3-none-any.whl").write_bytes(b"x")
    assert main(["check", str(folder), "--key", key]) == 1
    assert "do not install" in capsys.readouterr().out


def test_a_letterbox_may_take_nothing_that_is_not_on_the_list(house):
    folder, key = house
    with (folder / LETTERBOX).open("a") as file:
        file.write("evil==1 --hash=sha256:00\n")
    assert main(["check", str(folder), "--key", key]) == 1


def test_another_list_or_another_signer_is_refused(house, tmp_path, capsys):
    folder, key = house
    other = new_key(tmp_path / "other.key", "Coordinator").verifier().text()
    assert main(["check", str(folder), "--key", other]) == 2
    (folder / LIST).write_bytes((folder / LIST).read_bytes() + b"\n")
    assert main(["check", str(folder), "--key", key]) == 2
    assert "signature" in capsys.readouterr().err


def test_what_is_no_wheel_or_no_new_folder_is_refused(house, tmp_path):
    folder, _ = house
    assert main(["make", str(folder)]) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no wheels"):
        listed(tmp_path / "empty")
    (folder / "wheels" / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        listed(folder / "wheels")
