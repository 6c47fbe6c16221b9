"""Asks the verifier, and compares what it says with what was to be said."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.verify.auditor import Asked
from fedkd.audit.verify.bundle import Report, judge
from fedkd.audit.verify.command import main

REFUTED, CANNOT_TELL, VERIFIED, CONSISTENT = "REFUTED", "CANNOT TELL", "VERIFIED", "CONSISTENT"


def judged(path: Path, **more: Any) -> Report:
    return judge(Asked(path, **more))


def log_of(report: Report, name: str) -> Any:
    return next(one for one in report.logs if one.name == name)


def check_of(report: Report, name: str) -> Any:
    return next(one for one in report.checks if one.name == name)


def verdicts(report: Report) -> dict[str, str]:
    return {one.name: one.verdict for one in (*report.logs, *report.checks)}


def refuted(report: Report, name: str, *words: str) -> None:
    """That this log or check is refuted, with these words in the reason."""
    found = {one.name: one for one in (*report.logs, *report.checks)}[name]
    assert found.verdict == REFUTED, found
    for word in words:
        assert word in str(found.error), (word, str(found.error))
    assert report.verdict == REFUTED


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the verifier."""
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code, out, _ = said(capsys, *arguments, "--json")
    return code, json.loads(out)
