"""A finished run with its report, made once, and copies of it to be tampered with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify import canonical
from fedkd.cli import main
from fedkd.report.verify.judging import Judgement, judge

TINY = [
    "data=digits", "data.records=60", "data.test_size=20", "query.size=8", "rounds=2",
    "clients.count=3", "clients.models=[logistic]", "training.local_epochs=1",
    "training.lesson_epochs=1", "student.model=logistic", "student.epochs=1", "report=false",
]  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose report was built."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(["simulate", *TINY, f"out={run}"]) == 0
    assert main(["report", "build", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


Forge = Callable[[Callable[[dict[str, Any]], object]], Judgement]


@pytest.fixture
def forged_in() -> Callable[[Path], Forge]:
    """What becomes of a run's evidence once it was changed, and written again as it should be."""

    def forge_in(run: Path) -> Forge:
        def forge(change: Callable[[dict[str, Any]], object]) -> Judgement:
            path = run / "report" / "evidence.json"
            told = json.loads(path.read_bytes())
            change(told)
            path.write_bytes(canonical(told))
            return judge(path)

        return forge

    return forge_in


@pytest.fixture
def forged(run: Path, forged_in: Callable[[Path], Forge]) -> Forge:
    """The same, of a copy of the run."""
    return forged_in(run)


def refutations(found: Judgement) -> str:
    """What the refuted findings say."""
    return " | ".join(f"{it.name}: {it.why}" for it in found.findings if it.verdict == "REFUTED")
