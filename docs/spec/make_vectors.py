"""Makes the vectors of docs/spec/log.md: the same bytes each time, from published constants alone.

`python docs/spec/make_vectors.py` writes docs/spec/vectors; `--out DIR` writes elsewhere. Keys are
no secret: each is the SHA-256 of a sentence that stands beside it. Nobody may use one for a log.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from making import books, cosigning, formats, handover, logs
from making.parties import Case

FORMAT = "fedkd-log-vectors/1"
FOLDER = Path(__file__).resolve().parent / "vectors"
KINDS: dict[str, Callable[[], Iterable[Case]]] = {
    "keys": formats.keys,
    "canonical": formats.canonical_json,
    "entries": formats.entries,
    "tree": formats.tree,
    "notes": formats.notes,
    "policies": handover.policies,
    "cosigning": cosigning.cosigning,
    "proofs": handover.proofs,
    "tiles": handover.tiles,
    "logs": logs.logs,
    "books": books.books,
    "ledger": books.ledger,
    "guard": cosigning.guard,
    "letters": cosigning.letters,
}


def written(kind: str) -> str:
    """One file of vectors."""
    make = KINDS[kind]
    cases = list(make())
    names = [case["id"] for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"{kind}: found a name twice, expected each case under its own")
    about = (make.__doc__ or "").strip()
    content: Case = {"format": FORMAT, "kind": kind, "about": about, "cases": list(_likened(cases))}
    if kind == "logs":
        content |= _pooled(logs.all_logs())  # for the cases of other files too
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def _pooled(named: dict[str, Case]) -> Case:
    """Logs with many entries in common: each entry and checkpoint once, and named by its place."""
    pools: dict[str, list[object]] = {"entries": [], "checkpoints": []}
    logs = {}
    for name, log in named.items():
        places: Case = {"vkey": log["vkey"]}
        for kind, pool in pools.items():
            pool += [one for one in log[kind] if one not in pool]
            places[kind] = [pool.index(one) for one in log[kind]]
        logs[name] = places
    return {"logs": logs, **pools}


def _likened(cases: list[Case]) -> Iterator[Case]:
    """Where a case is `like` an earlier one, only what differs is given: that is what it shows."""
    whole: list[Case] = []
    for case in cases:
        given = case["given"]
        first = next((one for one in whole if one["given"].keys() == given.keys()), None)
        if first is None or not any(first["given"][name] == given[name] for name in given):
            whole.append(case)
            yield case
            continue
        differs = {name: it for name, it in given.items() if first["given"][name] != it}
        yield {**case, "like": first["id"], "given": differs}


def main() -> None:
    """Writes every file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=FOLDER, help="where the files go")
    folder: Path = arguments.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(written(kind), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
