"""Finds the files of a source, or says which file is expected where."""

from collections.abc import Sequence
from pathlib import Path

from fedkd.knowledge import BadInput


def folder_of(path: str | None, expected: str) -> Path:
    """The folder at `path` (relative to the working directory); `BadInput` names what it holds."""
    place = _given(path, f"the folder that holds {expected}")
    if not place.is_dir():
        found = "a file" if place.exists() else "nothing"
        raise BadInput(
            f"{found} at data.path={path}", f"a folder that holds {expected}", _remedy(place)
        )
    return place


def file_of(path: str | None, file: str | None, expected: str) -> Path:
    """The file at `path`, or the one called `file` in the folder at `path`."""
    place = _given(path, expected)
    if place.is_dir():
        if file is None:
            raise BadInput(
                f"a folder at data.path={path}",
                expected,
                f"data.path={path}/NAME or data.file=NAME",
            )
        place = place / file
    if not place.is_file():
        raise BadInput(f"no file {place}", expected, _remedy(place))
    return place


def one_of(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in `folder`; None if there is none."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _given(path: str | None, expected: str) -> Path:
    if not path:
        raise BadInput(
            "no data.path",
            expected,
            "set data.path=PATH, absolute or relative to the working directory",
        )
    return Path(path).expanduser()


def _remedy(place: Path) -> str:
    if place.is_absolute():
        return "set data.path=PATH to where it lies"
    return f"set data.path=PATH; a relative path starts at the working directory {Path.cwd()}"
