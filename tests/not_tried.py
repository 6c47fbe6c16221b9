"""Says last of all which tests of real processes were not tried, and for which reasons."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

SUITES = {"deploy", "long"}
"""Markers of tests that need nginx, root, a compiler, or data beside the checkout."""


def not_tried(skipped: Iterable[Any]) -> str:
    """One line for reports of skipped tests; "" where all was tried."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in skipped
        if SUITES & set(getattr(report, "keywords", ()))
    )
    if not reasons:
        return ""
    told = "; ".join(f"{count} ({reason})" for reason, count in reasons.most_common())
    return f"NOT TRIED: {reasons.total()} tests of make test-deploy and make test-long: {told}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """After pytest's own last line."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        line = not_tried(reporter.stats.get("skipped", []))
        if line:
            reporter.write_line(line)
