"""What is shipped: the wheel, the source archive and Flower's bundle hold what they should."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLLIDING = ("server", "clients", "conf", "tests", "docs")
"""Names that no wheel of ours may put into everybody's site-packages."""

pytestmark = pytest.mark.slow


def run(*command, cwd, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source archive, and the wheel that was built from it; no network used."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def the(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def in_the_checkout(*tops):
    """What a clone holds below some folders, caches left out."""
    files = (path for top in tops for path in (ROOT / top).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_carries_the_app_and_conf_inside(built):
    names = set(zipfile.ZipFile(the(built, "*.whl")).namelist())
    tops = {name.split("/")[0] for name in names}
    assert not tops & set(COLLIDING)
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fedkd"}
    carried = {f"fedkd/app/{name}" for name in in_the_checkout("server", "clients", "conf")}
    assert in_the_checkout("fedkd") | carried == {n for n in names if n.startswith("fedkd/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_archive_holds_what_builds_and_tests_it(built):
    with tarfile.open(the(built, "*.tar.gz")) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    tops = {name.split("/")[0] for name in names}
    wanted = {"fedkd", "server", "clients", "conf", "tests", "docs", "pyproject.toml", "Makefile"}
    assert wanted | {"constraints.txt", "README.md", "LICENSE", "CITATION.cff"} <= tops
    assert in_the_checkout("packaging") <= names
    assert not tops & {".venv", "runs", "dist", "build", ".git"}
    assert not [name for name in names if name.endswith((".pyc", ".npz", ".sqlite", ".csv"))]


def test_an_installed_wheel_runs_from_an_empty_folder(built, tmp_path):
    home = tmp_path / "environment"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", asked, cwd=tmp_path).strip())
    # Everything but fedkd comes from where these tests run: a path in a .pth is searched, but the
    # .pth files in there, the checkout's among them, are not read.
    borrowed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", the(built, "*.whl"), cwd=tmp_path)
    assert not [name for name in COLLIDING if (packages / name).exists()]

    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(python, "-c", "import fedkd; print(fedkd.__file__)", cwd=empty).strip()
    assert Path(where).is_relative_to(packages)
    quick = ["rounds=1", "clients.count=2", "clients.models=[mlp]", "query.size=20", "out=run"]
    quick += ["training.local_epochs=1", "training.lesson_epochs=1", "student.epochs=1"]
    said = run(home / "bin" / "fedkd", "simulate", *quick, cwd=empty)
    assert "NOT PRIVATE" in said
    assert (empty / "run" / "student.safetensors").exists()
    assert [path.name for path in empty.iterdir()] == ["run"]


def test_flowers_bundle_holds_the_two_apps_and_no_package_of_ours(tmp_path):
    """A bundle's `fedkd/` would go before the one that a hospital has installed."""
    app = tmp_path / "fedkd-app"
    app.mkdir()
    for name in ("server", "clients", "fedkd", "conf", "docs"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, app / name)
    flwr = Path(sys.executable).with_name("flwr")
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    run(flwr, "build", "--app", app, cwd=tmp_path, FLWR_HOME=str(tmp_path / "home"), **quiet)
    names = set(zipfile.ZipFile(the(tmp_path, "*.fab")).namelist())
    apps = {name for name in names if "/" in name and not name.startswith(".info/")}
    assert apps == {name for name in in_the_checkout("server", "clients") if name.endswith(".py")}
    beside = {name for name in names if "/" not in name}
    assert beside <= {"pyproject.toml", "README.md", "LICENSE"}
