"""A summary has every key that was promised, and nothing that was not."""

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fedkd.knowledge import BadInput
from fedkd.privacy.claim import Claim, Evidence, Preparation, Use
from fedkd.report import check_summary, read_summary, summary_schema, write_summary
from fedkd.report.claims import BEFORE_CLAIMS

# HOUSE.md, "What a run leaves behind": the contract, typed again on purpose.
TOP = (
    "method data seed rounds mechanism private student clients bytes_up bytes_down fedavg_bytes "
    "pooled_accuracy fedavg_accuracy fedavg_best query_set wall_s train_s engine versions audit"
)
STUDENT = "accuracy balanced_accuracy macro_f1 auroc ece parameters bytes"
CLIENT = (
    "site records model local_accuracy local_balanced_accuracy local_auroc local_own_mix "
    "local_own_auroc accuracy balanced_accuracy auroc own_mix own_auroc epsilon delta messages "
    "bytes_up bytes_down left_out"
)

Make = Callable[..., dict[str, Any]]


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of nested dicts, as a path."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*before, key))
        if isinstance(item, dict | list):
            found += places(item, (*before, key))
    return found


def changed(summary: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    other = copy.deepcopy(summary)
    holder: Any = other
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return other


def test_the_schema_asks_for_the_promised_keys_and_no_others() -> None:
    schema = summary_schema()
    for part, keys in (
        (schema, TOP),
        (schema["properties"]["student"], STUDENT),
        (schema["properties"]["clients"]["items"], CLIENT),
        (schema["properties"]["audit"], "entries root verified"),
        (schema["properties"]["query_set"], "kind size digest"),
        (schema["properties"]["fedavg_best"]["oneOf"][1], "accuracy round bytes"),
    ):
        later = {"privacy"} & set(part["properties"])  # runs of earlier versions lack it
        assert sorted(part["required"]) == sorted(set(part["properties"]) - later)
        assert sorted(part["required"]) == sorted(keys.split())
        assert part["additionalProperties"] is False


def test_the_schema_asks_for_every_field_of_a_claim() -> None:
    schema = summary_schema()["$defs"]["claim"]
    parts = (
        (Claim, schema),
        (Use, schema["properties"]["uses"]["items"]),
        (Evidence, schema["properties"]["evidence"]),
        (Preparation, summary_schema()["$defs"]["preparations"]["items"]),
    )
    for kind, part in parts:
        names = sorted(one.name for one in fields(kind))
        assert sorted(part["required"]) == sorted(part["properties"]) == names
        assert part["additionalProperties"] is False


def test_an_epsilon_is_written_beside_its_claim_or_not_at_all(
    tmp_path: Path, private: Make
) -> None:
    path = tmp_path / "summary.json"
    write_summary(path, private())
    assert read_summary(path) == private()
    kept = private()
    site = kept["clients"][1]["site"]
    claim = kept["privacy"]["claims"].pop(site)
    with pytest.raises(BadInput, match=f"of {site} without a claim"):
        write_summary(path, kept)
    path.write_text(json.dumps(kept))
    with pytest.raises(BadInput, match=f"of {site} without a claim"):
        read_summary(path)
    for name in claim:
        kept["privacy"]["claims"][site] = {key: claim[key] for key in claim if key != name}
        with pytest.raises(BadInput, match=name):
            write_summary(path, kept)
    kept["privacy"]["claims"][site] = {**claim, "spent": claim["spent"] / 2}
    with pytest.raises(BadInput, match="expected the same"):
        write_summary(path, kept)


def test_an_epsilon_of_a_version_without_claims_is_not_read(
    tmp_path: Path, summary: Make, client: Make
) -> None:
    """Such a run can be read; what it says of privacy lacks too much to be said again."""
    old = summary(clients=[client(0, epsilon=2.5, delta=1e-5)], mechanism="x", private=True)
    (tmp_path / "summary.json").write_text(json.dumps(old))
    read = read_summary(tmp_path / "summary.json")
    assert read["clients"][0]["epsilon"] is None
    assert read["privacy"]["without"] == {"hospital-01": BEFORE_CLAIMS}


def test_what_was_written_is_read_back(tmp_path: Path, summary: Make) -> None:
    write_summary(tmp_path / "summary.json", summary())
    assert read_summary(tmp_path / "summary.json") == summary()


def test_the_same_summary_has_the_same_bytes(tmp_path: Path, summary: Make) -> None:
    turned = dict(reversed(list(summary().items())))
    write_summary(tmp_path / "a.json", summary())
    write_summary(tmp_path / "b.json", turned)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_no_key_may_be_missing(summary: Make) -> None:
    whole = summary(1, fedavg_best={"accuracy": 0.8, "round": 3, "bytes": 10})
    check_summary(whole)
    for path in places(whole):
        if path[0] == "versions" or isinstance(path[-1], int):
            continue
        short = copy.deepcopy(whole)
        holder: Any = short
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        with pytest.raises(BadInput):
            check_summary(short)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra",), 1),
        (("student", "extra"), 1),
        (("clients", 0, "patient"), "a name"),
        (("audit", "extra"), 1),
        (("seed",), -1),
        (("seed",), "0"),
        (("rounds",), 2.5),
        (("private",), "no"),
        (("student", "accuracy"), 77.6),
        (("student", "accuracy"), float("nan")),
        (("student", "ece"), -0.1),
        (("clients", 0, "accuracy"), "0.7"),
        (("clients", 0, "bytes_up"), -1),
        (("clients", 0, "bytes_up"), None),
        (("clients", 0, "left_out"), None),
        (("clients", 0, "left_out"), [{"round": 1}]),
        (("wall_s",), float("inf")),
        (("clients", 0, "epsilon"), float("inf")),
        (("query_set", "digest"), "sha256:abc"),
        (("query_set", "kind"), "private"),
        (("versions", "torch"), None),
    ],
)
def test_a_figure_that_does_not_fit_is_not_written(
    tmp_path: Path, summary: Make, path: tuple[Any, ...], value: Any
) -> None:
    with pytest.raises(BadInput, match=r"summary\.json"):
        write_summary(tmp_path / "summary.json", changed(summary(), path, value))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_summary_survives_one_that_does_not_fit(tmp_path: Path, summary: Make) -> None:
    write_summary(tmp_path / "summary.json", summary())
    with pytest.raises(BadInput):
        write_summary(tmp_path / "summary.json", {})
    assert read_summary(tmp_path / "summary.json") == summary()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00", json.dumps({"method": 1})])
def test_what_is_no_summary_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(BadInput):
        read_summary(tmp_path / "summary.json")


def test_a_folder_without_a_summary_is_told_about_resume(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--resume"):
        read_summary(tmp_path / "summary.json")
