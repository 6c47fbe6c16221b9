"""What the house looks like: rooms with a door and a question, files that a person can read."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fedkd"
NOT_ROOMS = {"app", "__pycache__"}
ROOMS = sorted(
    path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in NOT_ROOMS
)
FILES = sorted(
    path for top in ("fedkd", "server", "clients", "tests") for path in (ROOT / top).rglob("*.py")
)
NAMES_THAT_ANSWER_NO_QUESTION = {"core", "common", "utils", "util", "helpers", "misc", "shared"}
MOST_LINES = 450
MOST_LINES_OF_TESTS = 550
FROM_THE_DOOR = {"__version__"}
"""What a room may take from the package itself, whose door is above every room."""


def contracts():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return declared["tool"]["importlinter"]["contracts"]


def imports(path):
    """The modules that a file imports anywhere, as (module, names, line)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, set(), node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), {alias.name for alias in node.names}, node.lineno


def outside(room):
    """The packages from outside that a room imports."""
    ours = {"fedkd", "server", "clients"}
    found = {
        module.split(".")[0]
        for path in (PACKAGE / room).rglob("*.py")
        for module, _, _ in imports(path)
    }
    return found - ours - set(sys.stdlib_module_names)


def test_the_rooms_are_those_of_the_contract():
    layers = next(contract for contract in contracts() if contract["type"] == "layers")
    named = {room.strip() for layer in layers["layers"] for room in layer.split("|")}
    assert set(ROOMS) == named
    assert layers["exhaustive"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_a_door_that_says_what_it_is_for(room):
    written = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert written, f"fedkd/{room}/__init__.py has no docstring"
    assert len(written.splitlines()[0].split()) >= 4, f"fedkd/{room} does not say what it is for"


@pytest.mark.parametrize("room", ROOMS)
def test_every_outside_package_is_let_into_a_room_on_purpose(room):
    """A package that some room uses is, in each other room, forbidden by name."""
    used_anywhere = set().union(*map(outside, ROOMS))
    forbidden = {
        module
        for contract in contracts()
        if contract["type"] == "forbidden" and f"fedkd.{room}" in contract["source_modules"]
        for module in contract["forbidden_modules"]
    }
    undecided = used_anywhere - forbidden - outside(room)
    assert not undecided, (
        f"nobody decided whether {room} may import {sorted(undecided)}: "
        "name them in its contract in pyproject.toml"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.is_relative_to(PACKAGE) and path.parent != PACKAGE],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_room_takes_nothing_from_the_packages_door_but_its_version(path):
    for module, names, line in imports(path):
        if module != "fedkd":
            continue
        where = f"{path.relative_to(ROOT)}:{line}"
        if names:
            rooms = names & set(ROOMS)
            assert names - rooms <= FROM_THE_DOOR, f"{where} takes {sorted(names)} from fedkd"
        else:
            assert path.is_relative_to(PACKAGE / "cli"), f"{where} imports fedkd itself"


def test_no_name_answers_no_question():
    for path in PACKAGE.rglob("*"):
        assert path.stem not in NAMES_THAT_ANSWER_NO_QUESTION, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_one_sentence_and_fits_a_reader(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py" and not text.strip():
        assert path.is_relative_to(ROOT / "tests"), f"{path.relative_to(ROOT)} is empty"
        return
    written = ast.get_docstring(ast.parse(text)) or ""
    first = written.split("\n\n")[0].strip()
    assert first, f"{path.relative_to(ROOT)} does not say what it is for"
    assert first[-1] in ".:!?", f"{path.relative_to(ROOT)} does not open with a sentence"
    most = MOST_LINES_OF_TESTS if path.is_relative_to(ROOT / "tests") else MOST_LINES
    lines = text.count("\n")
    assert lines <= most, f"{path.relative_to(ROOT)} has {lines} lines: two files?"


@pytest.mark.parametrize("app", ["server/app.py", "clients/app.py"])
def test_a_flower_app_fits_a_screen(app):
    assert len((ROOT / app).read_text(encoding="utf-8").splitlines()) <= 40


PRIVATE = re.compile(r"hydra\._|flwr\.(common|proto|server|simulation|supercore|superlink)\b")
"""What flwr and hydra rename without notice: `flwr.app`, `.clientapp` and `.serverapp` stay."""


def test_every_private_door_is_on_the_list():
    listed = (ROOT / "docs" / "adr" / "0008-private-doors.md").read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py"):
        used = {module for module, _, _ in imports(path) if PRIVATE.match(module)}
        where = path.relative_to(PACKAGE).as_posix()
        assert not used or f"`{where}`" in listed, f"{where} goes through {sorted(used)}"
