"""What a first keystroke costs: help and import load nothing that trains, sends or composes."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "opacus", "flwr", "ray", "hydra", "omegaconf", "pandas", "sklearn", "scipy")
LIGHT_IMPORT = (*HEAVY, "numpy", "typer", "rich")

IN_A_NEW_PROCESS = """
import contextlib, io, json, sys
with contextlib.redirect_stdout(io.StringIO()) as printed:
    {what}
print(json.dumps({{"modules": sorted(sys.modules), "printed": printed.getvalue()}}))
"""


def after(what):
    """What is loaded, and was printed, when a new process has done `what`."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS.format(what=what)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["--version"], ["simulate", "--help"], ["compare", "--help"], ["laws", "-h"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments):
    found = after(f"from fedkd.cli import main; main({arguments!r})")
    assert not set(HEAVY) & set(found["modules"])


def test_help_names_every_command():
    printed = after("from fedkd.cli import main; main(['--help'])")["printed"]
    for command in ("simulate", "compare", "laws", "bench"):
        assert command in printed


def test_importing_the_package_loads_nothing_but_itself():
    found = after("import fedkd; assert fedkd.__version__")["modules"]
    assert not set(LIGHT_IMPORT) & set(found)
    assert not [name for name in found if name.startswith("fedkd.")]


def test_a_wrong_override_is_refused_before_torch_is_loaded():
    found = after("from fedkd.cli import main; assert main(['simulate', 'ronds=3']) == 2")
    assert "torch" not in found["modules"]
