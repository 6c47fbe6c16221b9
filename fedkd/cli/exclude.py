"""Takes patients out of a site's future training, and says what cannot be taken back."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fedkd.federation.excluding import Excluded, exclude
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput

DONE = 0
MOST_SHOWN = 12
CANNOT_FORGET = (
    "A student cannot forget: what was trained before keeps what it learnt. If it must not, it has "
    "to be withdrawn, and a new one trained."
)


def exclude_patients(
    folder: Path,
    ids: Sequence[str],
    *,
    file: Path | None,
    reason: str,
    may_be_absent: bool,
    as_json: bool,
) -> int:
    """Takes the patients `ids`, and those of `file` (an id a line), out at the site in `folder`."""
    listed = [*ids, *_of_file(file)]
    done = exclude(SiteFolder(folder), listed, reason, may_be_absent=may_be_absent)
    if as_json:
        print(json.dumps({"site": folder.name, **asdict(done), "note": CANNOT_FORGET}, indent=2))
        return DONE
    _tell(done)
    return DONE


def _of_file(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise BadInput(
            f"{file}, which cannot be read as text", "a file with an id a line"
        ) from None


def _tell(done: Excluded) -> None:
    print(
        f"taken out: {len(done.new)} patients with {done.rows} records; from now on nothing is "
        "trained or counted with them"
    )
    if done.before:
        print(f"{len(done.before)} were out before")
    if done.absent:
        print(
            f"{len(done.absent)} have no record here, and nothing was noted about them: give the "
            "same list again once their records are here"
        )
    print(
        "the public number of patients stays as it was, and with it every price; a hospital trains"
    )
    print("no more once fewer are left than smallest_training_set in its policy")
    if done.entry is not None:
        print(f"entry {done.entry}, dataset.withdrawn, says so, without an id")
    if not done.models:
        print("the log knows no model that was trained on these records before")
        return
    print(f"{len(done.models)} models of this site came before:")
    for model in done.models[:MOST_SHOWN]:
        print(f"  {model}")
    if len(done.models) > MOST_SHOWN:
        print(f"  and {len(done.models) - MOST_SHOWN} more (fedkd audit show --type train.local)")
    for run in done.runs:
        print(f"run {run}: its student learnt from this site's answers")
    print(CANNOT_FORGET)
