"""Packs the verifying rooms into one zipapp that a person can read, the same bytes every time.

It needs nothing but Python: `python fedkd/cli/verifier.py OUT`, from a bare checkout.
"""

import sys
import zipfile
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[1]
ROOMS: Final = ("audit/verify", "report/verify")
KINDS: Final = ("*.py", "*.json", "*.css", "*.js")
STUB: Final = '"""Only what verifies: the rest of fedkd is not in this file."""\n'
MAIN: Final = '''"""Checks fedkd's logs and reports; needs Python 3.11, cryptography and rfc8785.

A zip archive of plain Python, the same as in fedkd's repository: unpack and read it.
SPDX-License-Identifier: Apache-2.0
"""

import sys

sys.dont_write_bytecode = True

from fedkd.report.verify.command import main

sys.exit(main())
'''
SHEBANG: Final = b"#!/usr/bin/env python3\n"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_READABLE: Final = 0o100644
_RUNNABLE: Final = 0o755


def contents() -> dict[str, bytes]:
    """Every file of the archive by its name: the rooms' own, and what holds them together."""
    found = {"__main__.py": MAIN.encode()}
    for room in ROOMS:
        for path in (path for kind in KINDS for path in (PACKAGE / room).glob(kind)):
            found[f"fedkd/{room}/{path.name}"] = path.read_bytes()
        for above in Path("fedkd", room).parents[:-1]:
            found.setdefault(f"{above.as_posix()}/__init__.py", STUB.encode())
    return found


def pack(out: Path) -> None:
    """Writes the archive; neither clock, nor umask, nor order of files, nor zlib shows in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in sorted(contents().items()):
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.create_system, entry.external_attr = _UNIX, _READABLE << 16
                archive.writestr(entry, content)
    out.chmod(_RUNNABLE)


def main(arguments: list[str]) -> int:
    """Packs into the file that is named."""
    if len(arguments) != 1:
        print("error: found no one file, expected: verifier.py OUT", file=sys.stderr)
        return 2
    pack(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
