"""A hospital's folder: who may read it, joining, pausing and leaving."""

import json
from pathlib import Path

import pytest

from fedkd.cli.app import run
from fedkd.deploy.coordinator import invite, rotate_key
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.invitations import Enrolment
from fedkd.deploy.joining import join
from fedkd.deploy.preparing import Whose, prepare_letterbox, whose
from fedkd.deploy.starting import explain_node, letterbox_environment
from fedkd.knowledge import BadInput
from tests.deploy.federations import coordinator, enrolled


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    enrolled(coordinator(tmp_path), "north", tmp_path / "hospital")
    return Hospital(tmp_path / "hospital")


def test_a_fresh_folder_is_private(hospital: Hospital) -> None:
    hospital.expect_private()


@pytest.mark.parametrize(
    ("what", "mode", "says"),
    [
        ("", 0o755, "chmod 700"),
        ("keys", 0o750, "chmod 700"),
        ("keys/node.key", 0o640, "chmod 600"),
        ("site/keys/log.key", 0o604, "chmod 600"),
        ("rehearsal/keys/witness.key", 0o660, "chmod 600"),
        ("site", 0o711, "chmod 700"),
    ],
)
def test_what_others_may_read_is_refused_with_what_to_type(
    hospital: Hospital, what: str, mode: int, says: str
) -> None:
    path = hospital.folder / what
    path.chmod(mode)
    with pytest.raises(BadInput) as caught:
        hospital.expect_private()
    assert f"{says} {path}" in str(caught.value)


def test_the_letterboxs_group_gets_the_way_to_it_and_nothing_more(hospital: Hospital) -> None:
    group = hospital.folder.stat().st_gid
    prepare_letterbox(hospital, Whose(None, group))
    hospital.expect_private(group)
    with pytest.raises(BadInput):
        hospital.expect_private(None)
    with pytest.raises(BadInput):
        hospital.expect_private(group + 1)
    for path in (hospital.keys, hospital.site, hospital.site_yaml, hospital.node_key):
        assert not path.exists() or not path.stat().st_mode & 0o077
    hospital.site_yaml.touch(0o644)
    with pytest.raises(BadInput, match=f"chmod 600 {hospital.site_yaml}"):
        hospital.expect_private(group)
    hospital.site_yaml.unlink()
    hospital.folder.chmod(0o730)
    with pytest.raises(BadInput):
        hospital.expect_private(group)


def test_the_letterbox_is_told_nothing_of_whoever_started_it(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "4711")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    told = letterbox_environment(hospital.letterbox)
    assert "4711" not in told.values()
    assert "HTTP_PROXY" not in told
    assert told["HTTPS_PROXY"] == "http://proxy:3128"
    assert "127.0.0.1" in told["NO_PROXY"]
    assert told["PATH"].split(":")[0] == str(hospital.letterbox / "shims")
    assert told["FLWR_TELEMETRY_ENABLED"] == "0"


def test_a_user_that_is_not_there_is_said_so() -> None:
    with pytest.raises(BadInput, match="useradd"):
        whose("nobody-of-this-name", None)


def test_flowers_305_is_explained_and_waited_for() -> None:
    said, seconds = explain_node("Exit Code: 305\nError in connection")
    assert "not admitted yet" in said
    assert seconds >= 15
    assert explain_node("what\nit said\n") == ("it said", 0.0)


def test_joining_again_gives_the_same_enrolment(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    _, paper = invite(server, "north")
    first, second = join(paper, tmp_path / "h"), join(paper, tmp_path / "h")
    assert first.enrolment == second.enrolment
    assert Enrolment.parse(first.path.read_bytes()) == first.enrolment


def test_another_federation_needs_another_folder(tmp_path: Path, hospital: Hospital) -> None:
    _, paper = invite(coordinator(tmp_path / "other", name="lung"), "north")
    with pytest.raises(BadInput, match="one hospital, one federation"):
        join(paper, hospital.folder)


def test_an_invitation_by_a_key_that_is_not_known_here_is_no_reason_for_another_folder(
    tmp_path: Path,
) -> None:
    server = coordinator(tmp_path)
    _, paper = invite(server, "north")
    join(paper, tmp_path / "h")
    before = (tmp_path / "h" / "federation.yaml").read_bytes()
    rotate_key(server)
    _, paper = invite(server, "north")
    with pytest.raises(BadInput, match=r"not known here.*fedkd site trust .*h SUCCESSION"):
        join(paper, tmp_path / "h")
    assert (tmp_path / "h" / "federation.yaml").read_bytes() == before


def test_an_invitation_that_somebody_changed_makes_no_folder(tmp_path: Path) -> None:
    _, paper = invite(coordinator(tmp_path), "north")
    paper.write_bytes(paper.read_bytes().replace(b"localhost", b"lcoalhost"))
    with pytest.raises(BadInput, match="forged"):
        join(paper, tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_no_private_key_is_in_what_goes_back(hospital: Hospital) -> None:
    said = (hospital.folder / "north.enrolment").read_text()
    assert "PRIVATE" not in said
    found = list(hospital.folder.rglob("*.key"))
    assert {"log.key", "witness.key", "node.key"} <= {key.name for key in found}
    for key in found:
        text = key.read_text().strip()
        # PRIVATE+KEY+name+id+secret, whose base64 may hold a "+"; or lines of base64 in a frame.
        parts = text.splitlines()[1:-1] if "BEGIN" in text else [text.split("+", 4)[-1]]
        for secret in parts:
            assert secret not in said


def test_pausing_lasts_until_resumed(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["site", "pause", str(hospital.folder)]) == 0
    assert hospital.is_paused
    assert run(["site", "status", str(hospital.folder), "--json"]) == 0
    said = capsys.readouterr().out
    told = json.loads(said[said.index("{") :])
    assert (told["paused"], told["running"], told["connected"]) == (True, False, None)
    assert run(["site", "resume", str(hospital.folder)]) == 0
    assert not hospital.is_paused
    assert run(["site", "resume", str(hospital.folder)]) == 0


def test_whoever_left_starts_no_more_and_keeps_the_log(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["site", "leave", str(hospital.folder), "--yes"]) == 0
    assert "fedkd server revoke north" in capsys.readouterr().out
    assert hospital.left.exists()
    assert (hospital.site / "keys" / "log.key").exists()
    assert run(["site", "start", str(hospital.folder)]) == 2
    assert "left the federation" in capsys.readouterr().err


def test_starting_needs_a_site_yaml_and_private_folders(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["site", "start", str(hospital.folder)]) == 2
    assert "fedkd site init" in capsys.readouterr().err
    hospital.site_yaml.touch(0o600)
    hospital.keys.chmod(0o755)
    assert run(["site", "start", str(hospital.folder)]) == 2
    assert "chmod 700" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["init", "start", "pause", "resume", "leave", "status"])
def test_a_folder_that_never_joined_is_said_so(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["site", command, str(tmp_path)]) == 2
    assert "fedkd site join" in capsys.readouterr().err
