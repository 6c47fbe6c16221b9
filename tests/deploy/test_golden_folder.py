"""A hospital's folder as 0.1.0 left it: it is opened, holds, and answers what it answered.

`tests/vectors/0.1.0/hospital.zip` was made once, of 40 made-up patients under `mechanism=none`,
after a run of one round. The keys in it are that folder's alone: nobody takes a word of theirs.
"""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.app import run as fedkd
from fedkd.deploy.consent import Desk
from fedkd.deploy.hospital import Hospital
from fedkd.federation.building import Workshop
from fedkd.knowledge import Distributions
from fedkd.wire import Question, Reason, Refusal, decode, encode, opened

KEPT = Path(__file__).parents[1] / "vectors" / "0.1.0" / "hospital.zip"


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    folder = tmp_path / "hospital"
    with zipfile.ZipFile(KEPT) as packed:
        packed.extractall(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return Hospital(folder)


def test_a_question_that_was_answered_gets_the_same_bytes_again(hospital: Hospital) -> None:
    question = (hospital.folder / "question.bin").read_bytes()
    answer = (hospital.folder / "answer.bin").read_bytes()
    with Log(hospital.site / "log.sqlite", hospital.name) as log:
        released = list(log.entries("release.outputs"))
    said = opened(Desk(hospital.folder, Workshop()).handle(question))[1]
    found = decode(said, 1 << 20)
    assert not isinstance(found, Refusal), found
    assert said == answer
    with Log(hospital.site / "log.sqlite", hospital.name) as log:
        assert list(log.entries("release.outputs")) == released  # nothing is released anew


def test_a_new_question_about_queries_that_only_0_1_0_draws_is_told_the_version(
    hospital: Hospital,
) -> None:
    """With a lesson it is another question: its set would be drawn again, by other code."""
    asked = decode(opened((hospital.folder / "question.bin").read_bytes())[1], 1 << 20)
    assert isinstance(asked, Question)
    assert asked.about is not None
    probs = np.full((asked.size, 2), 0.5, np.float32)
    other = replace(asked, lesson=Distributions(probs, asked.about))
    said = decode(Desk(hospital.folder, Workshop()).handle(encode(other)), 1 << 20)
    assert isinstance(said, Refusal)
    assert said.reason is Reason.VERSION


@pytest.mark.parametrize(
    "words",
    [["audit", "verify", "site/log.sqlite"], ["audit", "show", "site/log.sqlite"],
     ["site", "sent", "site"], ["site", "status", "."], ["privacy", "status", "site"]],
    ids=" ".join,
)  # fmt: skip
def test_what_reads_it_does(
    hospital: Hospital, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words[:2], str(hospital.folder / words[2])]
    assert fedkd(words) == 0, capsys.readouterr()
