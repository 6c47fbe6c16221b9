"""Whoever reads the end of a suite's output sees what was not tried."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import pytest

@pytest.mark.deploy
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.skipif(True, reason="needs nginx")
def test_a_proxy(at):
    pass

@pytest.mark.long
def test_two_users():
    {second}

@pytest.mark.skipif(True, reason="no browser")
def test_of_another_suite():
    pass
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_last_line_counts_what_was_not_tried_by_its_reason(tmp_path, workers):
    said = ran(tmp_path, SUITE.format(second="pytest.skip('needs root')"), "-n", workers)
    assert said[-1] == (
        "NOT TRIED: 3 tests of make test-deploy and make test-long: 2 (needs nginx); 1 (needs root)"
    )


def test_nothing_is_said_where_all_was_tried(tmp_path):
    tried = SUITE.format(second="pass").replace('True, reason="needs', 'False, reason="needs')
    said = ran(tmp_path, tried)
    assert "NOT TRIED" not in " ".join(said)
    assert "3 passed, 1 skipped" in said[-1]


def ran(folder, suite, *words):
    """The lines that a suite with the plugin prints."""
    (folder / "test_suite.py").write_text(suite)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder,
         "-p", "tests.not_tried", "-p", "no:cacheprovider", *words, folder / "test_suite.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()
