"""What a hospital is shown of all that left it: by its sites, its rehearsal, its letterbox."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fedkd.cli.app import run as fedkd
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.letterbox import Letterbox
from fedkd.deploy.preparing import OUTBOX, Whose, prepare_letterbox
from fedkd.knowledge import digest_of_bytes
from tests.deploy.federated import Federated

SECRET = "records of patient 4711"  # noqa: S105


@pytest.fixture
def hospital(federated: Federated) -> Hospital:
    """After a rehearsal, its letterbox ready."""
    federated.conducted(federated.proposed("rounds=1", rehearsal=True))
    prepare_letterbox(federated.hospitals["north"], Whose())
    return federated.hospitals["north"]


def sent(hospital: Hospital, capsys: pytest.CaptureFixture[str], expected: int = 0) -> Any:
    capsys.readouterr()
    assert fedkd(["site", "sent", str(hospital.folder), "--json"]) == expected
    return json.loads(capsys.readouterr().out)


def outbox(hospital: Hospital) -> Path:
    return hospital.letterbox / OUTBOX


def test_a_hospital_sees_what_its_rehearsal_and_its_letterbox_alone_sent(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sent(hospital, capsys)["letterbox"] == {"sent": [], "odd": []}
    (answer,) = [
        row for row in sent(hospital, capsys)["rehearsal"]["sent"] if row["kind"] == "Answer"
    ]
    body = hospital.rehearsal / OUTBOX / f"{answer['digest'].removeprefix('sha256:')}.bin"
    (outbox(hospital) / "as-it-left.bin").write_bytes(body.read_bytes())
    (outbox(hospital) / ".half-written").write_bytes(body.read_bytes()[:9])
    refusal = Letterbox.at(hospital.letterbox).post(None, True)

    told = sent(hospital, capsys)
    assert told["site"] == {"sent": [], "missing": {}}
    (row,) = told["letterbox"]["sent"]
    assert (row["kind"], row["holds"]) == ("Refusal", "no answer: malformed")
    assert row["digest"] == digest_of_bytes(refusal)
    assert told["letterbox"]["odd"] == []

    assert fedkd(["site", "sent", str(hospital.folder)]) == 0
    shown = capsys.readouterr().out
    assert f"rehearsal: {hospital.rehearsal}\n" in shown
    assert f"refusals above all: {outbox(hospital)}\n" in shown
    assert "no answer: malformed" in shown
    words = ["site", "sent", str(hospital.folder), "--values", answer["digest"]]
    assert fedkd(words) == 0
    assert len(capsys.readouterr().out.split()) == 30


def test_what_is_no_letter_is_named_and_never_followed(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "train.npz"
    secret.write_text(SECRET)
    (outbox(hospital) / "link.bin").symlink_to(secret)
    os.mkfifo(outbox(hospital) / "pipe.bin")
    (outbox(hospital) / "text.bin").write_text("no letter")
    told = sent(hospital, capsys, expected=1)
    assert told["letterbox"] == {"sent": [], "odd": ["link.bin", "pipe.bin", "text.bin"]}
    assert fedkd(["site", "sent", str(hospital.folder)]) == 1
    shown = capsys.readouterr().out
    assert "ODD: link.bin is no letter that leaves" in shown
    assert SECRET not in shown


def test_before_it_is_founded_a_hospital_sees_what_its_letterbox_said(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (hospital.site, hospital.rehearsal):
        (folder / "site.json").unlink()
    Letterbox.at(hospital.letterbox).post(b"", True)
    told = sent(hospital, capsys)
    assert set(told) == {"letterbox"}
    assert [row["holds"] for row in told["letterbox"]["sent"]] == ["no answer: version"]
