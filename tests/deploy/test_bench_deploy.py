"""`fedkd bench deploy` measures a federation that runs, and says so where none does."""

import json
from pathlib import Path

import pytest

from fedkd.cli import main
from fedkd.cli.bench import deploy
from tests.deploy.federations import needs_nginx, needs_offline

pytestmark = [pytest.mark.long, needs_nginx, needs_offline]
TYPED = ["bench", "deploy", "parts=nodes", "nodes=2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is kept where one stands."""
    monkeypatch.chdir(tmp_path)


def test_two_sites_answer_every_round_and_what_it_took_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "MOST_SECONDS", 1800.0)  # how many there may be is not asked here
    monkeypatch.setattr(deploy, "LEAST_MIB", 0.0)
    assert main(TYPED) == 0, capsys.readouterr().err
    kept = json.loads(Path("runs", "bench", "deploy.json").read_text())["results"]["nodes"]
    assert kept["held"] == 2
    assert kept["ended"] == "2 sites were asked for"
    assert [len(step["seconds"]) for step in kept["steps"]] == [2]


def test_where_the_time_is_over_before_the_first_run_nothing_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline holds within a step, and no site at all is no figure."""
    monkeypatch.setattr(deploy, "MOST_SECONDS", 1.0)
    assert main(TYPED) == 2
    assert "no run of the first 2 sites" in capsys.readouterr().err
    assert not Path("runs", "bench", "deploy.json").exists()
