"""A wheelhouse's list, its signature, and what is not on it."""

import re
import subprocess
from pathlib import Path

import pytest

from fedkd.audit.officer import new_key, sign_paper
from fedkd.cli.wheelhouse import KIND, LETTERBOX, LIST, _ship, listed, main
from fedkd.knowledge import BadInput

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "deploy.md"


@pytest.fixture
def house(tmp_path):
    """A small wheelhouse that was signed, and its signer's verifier key."""
    folder = tmp_path / "house"
    (folder / "wheels").mkdir(parents=True)
    for name in ("fedkd-0.1.0-py3-none-any", "Some.Thing_x-1.2+cpu-cp311-cp311-linux_x86_64"):
        (folder / "wheels" / f"{name}.whl").write_bytes(name.encode())
    (folder / "packaging").mkdir()
    (folder / "packaging" / "a.service").write_text("[Service]\nUser=fedkd\n")
    (folder / LETTERBOX).write_bytes(b"\n".join(listed(folder).splitlines()[-1:]) + b"\n")
    paper = listed(folder)
    (folder / LIST).write_bytes(paper)
    key = new_key(tmp_path / "coordinator.key", "Coordinator")
    (folder / f"{LIST}.sig").write_bytes(sign_paper(key, KIND, paper))
    return folder, key.verifier().text()


def test_a_list_names_every_wheel_with_its_hash(house):
    lines = (house[0] / LIST).read_text().splitlines()
    assert lines[0].startswith("# fedkd ")
    beside = [line.removeprefix("#: ").split("  ") for line in lines[1:3]]
    assert [name for _, name in beside] == ["letterbox.txt", "packaging/a.service"]
    assert [line.split(" ")[0] for line in lines[3:]] == ["some-thing-x==1.2+cpu", "fedkd==0.1.0"]
    assert all(len(line.split("--hash=sha256:")[1]) == 64 for line in lines[3:])


def test_a_wheelhouse_as_it_was_signed_is_accepted(house, capsys):
    folder, key = house
    assert main(["check", str(folder), "--key", key]) == 0
    assert "2 wheels as Coordinator signed them" in capsys.readouterr().out


@pytest.mark.parametrize("name", [LETTERBOX, "packaging/a.service", "packaging/b.service"])
def test_a_file_beside_the_wheels_that_was_changed_or_added_is_refused(house, name):
    folder, key = house
    with (folder / name).open("a") as file:
        file.write("evil==1 --hash=sha256:00\n")
    assert main(["check", str(folder), "--key", key]) == 1


def test_a_wheelhouse_of_a_newer_version_is_accepted(house, tmp_path):
    """It is what an update is: whoever checks it is older."""
    folder, _ = house
    _, *rest = (folder / LIST).read_bytes().splitlines(keepends=True)
    paper = b"".join([b"# fedkd 9.9.9 and all that it needs\n", *rest])
    key = new_key(tmp_path / "newer.key", "Coordinator")
    (folder / LIST).write_bytes(paper)
    (folder / f"{LIST}.sig").write_bytes(sign_paper(key, KIND, paper))
    assert main(["check", str(folder), "--key", key.verifier().text()]) == 0


def typed_at_the_hospital(folder):
    """What the guide has a person type before any fedkd is there: all its lines but pip's."""
    block = re.search(r"```sh\n(cd wheelhouse.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = block[1].replace("cd wheelhouse", f"cd {folder}").splitlines()
    (check,) = (line for line in lines if "--check" in line)
    return subprocess.run(
        ["bash", "-c", f"cd {folder} && {check}"], capture_output=True, text=True, check=False
    ).returncode


def test_what_a_person_types_first_notices_every_change_beside_the_wheels(house):
    """Pip holds the wheels to the list; nothing else would hold what lies beside them."""
    folder, _ = house
    assert typed_at_the_hospital(folder) == 0
    for name in (LETTERBOX, "packaging/a.service"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b"evil==1 --hash=sha256:00\n")
        assert typed_at_the_hospital(folder) == 1
        (folder / name).unlink()
        assert typed_at_the_hospital(folder) == 1
        (folder / name).write_bytes(kept)
    assert typed_at_the_hospital(folder) == 0


def test_whatever_the_guide_and_its_alarms_point_at_is_brought_along(tmp_path):
    _ship(ROOT, tmp_path)
    for page in (tmp_path / "docs" / "deploy.md", tmp_path / "docs" / "alarms.md"):
        for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


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


def test_a_letterbox_may_take_nothing_that_is_not_on_the_list(house, tmp_path):
    folder, _ = house
    with (folder / LETTERBOX).open("a") as file:
        file.write("evil==1 --hash=sha256:00\n")
    paper = listed(folder)
    key = new_key(tmp_path / "careless.key", "Coordinator")
    (folder / LIST).write_bytes(paper)
    (folder / f"{LIST}.sig").write_bytes(sign_paper(key, KIND, paper))
    assert main(["check", str(folder), "--key", key.verifier().text()]) == 1


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
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="a link"):
        listed(folder)
    (folder / "wheels" / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        listed(folder)
