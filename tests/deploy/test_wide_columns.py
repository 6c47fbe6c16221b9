"""One column with a wide range makes no honest query set one that repeats a query."""

from pathlib import Path

from fedkd.wire import Answer
from tests.deploy.federated import SCHEMA, SITES, Federated, approve, table, taken_in
from tests.deploy.test_policy import posed, question, said, with_policy

WIDE = {"kind": "numeric", "low": 0, "high": 10_000_000, "unit": "1/min", "mean": 100, "sd": 40}
"""A pulse of 100 and one of 200 are 2.5 apart, and the range goes to 250,000."""


def test_queries_that_differ_in_their_own_columns_range_are_answered(tmp_path: Path) -> None:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    form = {**SCHEMA, "columns": {**SCHEMA["columns"], "pulse": WIDE}}
    federated = Federated.made(tmp_path / "all", rows, form=form)
    run = federated.proposed("audit.cosigners=0")
    taken_in(federated, run)
    approve(federated, run, "east")
    assert posed(run).inputs.std(axis=0).max() < 250_000 / 1000  # by one range all are one query
    with_policy(federated, most_repeats=1)
    assert isinstance(said(federated, question(run)), Answer)
