"""Verifies a report from a terminal: prints what became of each check, and exits by the verdict."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fedkd.audit.verify import CannotTell, Refuted, TrustPolicy
from fedkd.audit.verify.auditor import (
    POLICY,
    Asked,
    UsedWrongly,
    kept_checkpoints,
    read_small,
)
from fedkd.audit.verify.bundle import CONSISTENT, VERIFIED
from fedkd.audit.verify.command import CODES, USED_WRONGLY, commands_of, plain, run
from fedkd.audit.verify.policies import MOST_POLICY_BYTES
from fedkd.report.verify.judging import Judgement, SamePaper, judge

FORMAT: Final = 1
_MEANS: Final[Mapping[str, str]] = {
    VERIFIED: "by your policy: every statement follows from entries that were signed, and cosigned "
    "as far as said above.",
    CONSISTENT: "every statement follows from its entries, and no quorum was checked: exit code 0 "
    "says here that the report fits itself. The keys came with it; whose they are, only a policy "
    "of your own can show (--policy).",
    "REFUTED": "something here does not follow from what was signed.",
    "CANNOT TELL": "nothing was refuted, and not everything could be checked here.",
}


EXITS: Final = (
    "Exit codes: 0 verified by your policy; without --policy 0 says that the report fits itself, "
    "and no quorum was checked. 1 refuted, 2 used wrongly, 3 cannot tell."
)


class OwnPolicies(Mapping[str, TrustPolicy]):
    """The auditor's policies by party: a file for all logs, or a folder with one for each."""

    def __init__(self, path: Path) -> None:
        self._path, self._one = path, None if path.is_dir() else _policy(path)

    def __getitem__(self, party: str) -> TrustPolicy:
        if self._one is not None:
            return self._one
        path = self._path / (party + POLICY)
        if "/" in party or not path.is_file():
            raise KeyError(party)
        return _policy(path)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 1


def _policy(path: Path) -> TrustPolicy:
    try:
        return TrustPolicy.parse(read_small(path, MOST_POLICY_BYTES))
    except (CannotTell, Refuted) as error:
        raise UsedWrongly(str(error), "a policy, or a folder of them") from None


def verify(
    path: Path,
    *,
    policy: Path | None,
    seen: Path | None,
    as_json: bool,
    others: Mapping[str, SamePaper] | None = None,
) -> int:
    """Prints what becomes of the report in `path`, a file or a folder; returns the exit code.

    `others` compare papers that are not drawn here, by the end of their name.
    """
    try:
        file = _file(path)
        for given, what in ((policy, "a policy"), (seen, "checkpoints")):
            if given is not None:
                _expect_own(given, file, what)
        kept = kept_checkpoints(Asked(file, None, seen), {})
        own = None if policy is None else OwnPolicies(policy)
        found = judge(file, own, kept, others=others, beside=path.is_dir())
    except UsedWrongly as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        return USED_WRONGLY
    except OSError as error:
        print(f"error: found {error.strerror} at {path}, expected a report", file=sys.stderr)
        return USED_WRONGLY
    except CannotTell as error:
        print(plain(f"CANNOT TELL: {error}"))
        return CODES["CANNOT TELL"]
    passed_over = sorted(it.name for it in file.parent.glob("*.pdf")) if path.is_dir() else []
    if as_json:
        print(json.dumps({**_told(found), "not_checked": passed_over}, indent=2))
    else:
        print("\n".join(map(plain, _lines(found, passed_over))))
    return CODES[found.verdict]


def _file(path: Path) -> Path:
    for inside in (path / "report" / "evidence.json", path / "evidence.json"):
        if path.is_dir() and inside.is_file():
            return inside
    if not path.is_file():
        raise UsedWrongly(f"no report at {path}", "index.html, evidence.json, or their folder")
    return path


def _expect_own(given: Path, file: Path, what: str) -> None:
    if not given.exists():
        raise UsedWrongly(f"nothing at {given}", f"{what}, or a folder of them")
    folder = Path(os.path.realpath(given if given.is_dir() else given.parent))
    near = Path(os.path.realpath(file.parent))
    if folder in (near, near.parent / "audit"):
        expected = "your own; once you trust it, copy it to a folder of yours and give that one"
        raise UsedWrongly(f"{what} that came with the report", expected)


def late_said(found: Judgement) -> list[str]:
    """Whose last entries lie beyond what your policy's cosigners signed, and who leans on them."""
    if found.derived is None or not found.own_policy:
        return []
    lines = []
    for party, book in sorted(found.derived.evidence.books.items()):
        first = book.cosigned
        if book.log is None or party in found.unwitnessed or first >= len(book.entries):
            continue
        leaning = [
            one.id
            for one in found.derived.statements
            if any(place.log == party and place.index >= first for place in one.evidence)
        ]
        such = f", such as {leaning[0]}" if leaning else ""
        lines.append(
            f"NOT COSIGNED: {party} from entry {first} on, of {len(book.entries)}; nobody but its "
            f"keeper vouches for that. Statements that lean on it: {len(leaning)}{such}."
        )
    return lines


def _lines(found: Judgement, passed_over: Sequence[str]) -> list[str]:
    first = [*quorum_said(found), *late_said(found)]
    if passed_over:
        first.append(f"NOT CHECKED: {', '.join(passed_over)} in this folder; name it, and it is.")
    lines = [*first, ""] if first else []
    lines += [f"{one.verdict:12} {one.name:14} {one.why}" for one in found.findings]
    if found.derived is not None and found.derived.simulation:
        lines += ["", "SIMULATION, ONE HOLDER: this proves the form, not the independence."]
    return [*lines, "", f"{found.verdict}: {_MEANS[found.verdict]}"]


def quorum_said(found: Judgement) -> list[str]:
    """That no quorum was checked, or of whom none; for the first line. Empty where it was."""
    if found.derived is None or not found.unwitnessed:
        return []
    if not found.own_policy:
        return [
            "NO QUORUM WAS CHECKED: give --policy. Keys and cosigners are those that came with the "
            "report, and whoever writes a report anew can leave them out or bring others."
        ]
    return [
        f"NO QUORUM WAS CHECKED of {', '.join(found.unwitnessed)}: your policy asks for no "
        "cosigner, so that whoever has its key can write it anew."
    ]


def _told(found: Judgement) -> dict[str, Any]:
    told: dict[str, Any] = {
        "v": FORMAT,
        "verdict": found.verdict,
        "quorum": "; ".join(quorum_said(found)) or "checked by your policy",
        "not_cosigned": late_said(found),
        "findings": [
            {"name": one.name, "verdict": one.verdict, "why": one.why} for one in found.findings
        ],
    }
    if found.derived is not None:
        told["simulation"] = found.derived.simulation
        told["coverage"] = found.derived.coverage()
        told["conditional"] = found.derived.apart()
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The verifier by itself: logs, proofs and reports."""
    parser, commands = commands_of("verify | proof | report")
    one = commands.add_parser(
        "report", help="every statement of a report", epilog=EXITS, allow_abbrev=False
    )
    one.add_argument(
        "path", type=Path, help="index.html, report.pdf, evidence.json, or their folder"
    )
    one.add_argument("--policy", type=Path, help="your own policy, or a folder of them")
    one.add_argument("--seen", type=Path, help="a folder with *.checkpoint files kept earlier")
    one.add_argument("--json", action="store_true", help="print JSON")

    def report(given: Any) -> int:
        return verify(given.path, policy=given.policy, seen=given.seen, as_json=given.json)

    return run(parser, arguments, {"report": report})
