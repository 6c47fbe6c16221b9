"""What a hospital of a deployed federation says of itself, from its log alone."""

import json
from pathlib import Path
from typing import Any

from fedkd.audit import Log
from fedkd.cli import main
from tests.deploy.federated import Federated, approve, taken_in


def test_a_hospital_of_a_deployed_federation_says_who_approved_what_left_and_what_was_spent(
    private: Federated, tmp_path: Path, capsys: Any
) -> None:
    run = private.proposed("mechanism=dp_training", "mechanism.epsilon=0.3")
    taken_in(private, run)
    approve(private, run)
    private.conducted(run)
    hospital, paper = private.hospitals["east"], tmp_path / "paper"
    with Log(hospital.site / "log.sqlite", "east") as log:
        released = [entry.at for entry in log.entries("release.outputs")]
    capsys.readouterr()
    assert main(["site", "report", str(hospital.site), "--out", str(paper)]) == 0
    said = capsys.readouterr().out
    assert "SIMULATION" not in said
    assert said.startswith("MISSING   GDPR Art. 30(1)(a)")
    assert f"Ada Example answered the proposal of run {run.id} at " in said
    assert ": approved (proposal sha256:" in said
    assert len(released) == 2
    for at in released:
        assert f"at {at}: 30 distributions went to server, under mechanism dp_training." in said
    assert "east: epsilon spent 0.3 of 1 at delta 1e-05 for east; unit patient" in said
    assert "east sent its answers to server." in said
    told = json.loads((paper / "report.json").read_bytes())
    assert told["simulation"] is False
    status = {one["id"]: one["status"] for one in told["fields"]}
    assert status["g9.basis"] == "RECORDED"
    assert status["g30.b.purposes"] == "MISSING"
    assert "a4.1a.purpose" in told["elsewhere"]
    assert main(["report", "verify", str(paper)]) == 0
