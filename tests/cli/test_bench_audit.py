"""The comparison of the log runs, says what it measured, and counts no second twice."""

import json
import time
from pathlib import Path

import pytest

from fedkd.audit import Log
from fedkd.cli.bench import bench
from fedkd.cli.bench.inside import Inside
from fedkd.cli.bench.options import options_of
from fedkd.knowledge import BadInput


def test_it_reports_what_it_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["parts=append,verify", "appends=9", "block=3", "entries=130"]
    assert bench("audit", overrides) == 0
    kept = json.loads((tmp_path / "runs" / "bench" / "audit.json").read_text())
    results = kept["results"]
    assert sorted(results) == ["append", "proofs", "size", "verify"]
    append = results["append"]
    assert append["entries"] == 9
    for name in ("append", "insert", "default_insert"):
        assert append[f"{name}_us"] > 0
        assert append[f"{name}_cpu_us"] > 0
    assert append["append_over_insert"] > 0
    assert append["append_over_default_insert"] > 0
    verify = results["verify"]
    assert verify["entries"] == verify["signatures_verified"] == 130
    assert verify["check_over_one_pass"] == pytest.approx(
        verify["check_cpu_s"] / verify["one_pass_cpu_s"]
    )
    assert results["size"]["bytes_each"] > results["size"]["written_bytes_each"]
    sizes = {row["size"]: row["digests_most"] for row in results["proofs"]}
    assert sizes == {100: 7, 130: 8}  # the logarithm, rounded up
    # Where it ran is nobody's business but the machine's: nothing names its folders.
    assert str(tmp_path) not in json.dumps(kept)
    assert [path.name for path in (tmp_path / "runs" / "bench").iterdir()] == ["audit.json"]


@pytest.mark.slow
def test_a_run_tells_what_of_it_is_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("audit", ["parts=run", "seconds=0.1"]) == 0
    kept = json.loads((tmp_path / "runs" / "bench" / "audit.json").read_text())
    run = kept["results"]["run"]
    assert run["entries"] == run["calls_by_method"]["append"] > 0
    assert 0 < run["counted_share"] < 1
    assert 0 < run["measured_share"] < 1
    assert run["measured_s"] == pytest.approx(sum(run["measured_s_by_method"].values()))


def _fails_inside(log: Log) -> None:
    with log.writing():
        log.append("lost", "train.local", {})
        raise ZeroDivisionError


def test_what_is_nested_counts_once(tmp_path: Path) -> None:
    began = time.perf_counter()
    with Inside() as inside, Log(tmp_path / "log.sqlite", "h1") as log:
        with log.writing():
            for number in range(50):
                log.append(str(number), "train.local", {"n": number})
            time.sleep(0.2)  # not the log's time
        assert len(log) == 50
        with pytest.raises(ZeroDivisionError):
            _fails_inside(log)
        assert len(log) == 50  # watched or not, a transaction that fails leaves nothing
    lasted = time.perf_counter() - began
    assert inside.calls["append"] == 51
    assert inside.seconds["append"] > 0
    assert inside.seconds["writing"] > 0
    assert inside.total <= lasted - 0.2
    assert Log.append.__qualname__ == "Log.append"
    before = inside.calls["append"]
    with Log(tmp_path / "log.sqlite", "h1") as log:
        log.append("after", "train.local", {})
    assert inside.calls["append"] == before


@pytest.mark.parametrize(
    "typed", ["parts=append,append", "parts=", "entries=1", "appends=0", "block=0", "seconds=0"]
)
def test_a_wrong_option_is_named(typed: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        options_of("audit", [typed])
