"""Collects what a site without internet needs, with a signed list of hashes over all of it.

`python -m fedkd.cli.wheelhouse make DIR [--key KEY]` where there is internet (`make wheelhouse`);
the folder is then brought by hand. `... check DIR --key VKEY` before an update, with the version
that is installed. What pip installs is held to the list by its own --require-hashes (pip's
documentation, Secure installs); every other file stands in it as a comment, which sha256sum reads
where no fedkd is installed yet.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fedkd import __version__
from fedkd.audit.officer import expect_signed, person_of, read_key, sign_paper, verifier_of
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput, digest_of_bytes

KIND: Final = "wheelhouse"
"""The kind of paper that a list of wheels is."""
LIST: Final = "requirements.txt"
LETTERBOX: Final = "letterbox.txt"
FACES_THE_NETWORK: Final = ("flwr", "cryptography", "numpy", "rfc8785", "typer", "pyyaml", "rich")
"""What a letterbox needs, with all that these need in turn: no torch, nothing that reads data."""
WHEELS: Final = "wheels"
SHIPPED: Final = ("packaging/**/*", "docs/**/*.md", "CHANGELOG.md")
"""What is brought beside the wheels: units, container files, the guide, and what changed."""
BESIDE: Final = "#: "
"""Begins a line of the list that sha256sum reads: `sed -n 's/^#: //p' ... | sha256sum --check`."""
_ROOT: Final = Path(__file__).resolve().parents[2]
_WHEEL: Final = re.compile(r"([A-Za-z0-9_.]+)-([^-]+)(-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl")
DONE, REFUTED = 0, 1


def make(folder: Path, key: Path | None, pip: Sequence[str], source: Path = _ROOT) -> int:
    """Builds or fetches every wheel of fedkd for a machine like this one, and writes the list."""
    signer = None if key is None else read_key(key)
    wheels = folder / WHEELS
    if any(wheels.glob("*")):
        raise BadInput(f"{wheels}, which is not empty", "a new folder: old wheels stay in no list")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels)]
    pinned = source / "constraints.txt"
    if pinned.exists():
        command += ["--constraint", str(pinned)]
    done = subprocess.run([*command, *pip, str(source)], check=False)  # noqa: S603
    if done.returncode:
        raise BadInput(
            f"pip wheel, which ended with {done.returncode}",
            "an index that it reaches",
            "name one: make wheelhouse PIP_FLAGS='--index-url ...'",
        )
    _ship(source, folder)
    write_bytes(folder / LETTERBOX, _letterbox(wheels, listed(folder)))
    paper = listed(folder)
    write_bytes(folder / LIST, paper)
    count, size = _counted(wheels)
    print(f"{count} wheels, {size / 2**20:,.0f} MiB, in {wheels}; their hashes in {folder / LIST}")
    if signer is not None:
        write_bytes(folder / f"{LIST}.sig", sign_paper(signer, KIND, paper))
        print(f"signed by {person_of(signer.verifier())}: {folder / LIST}.sig")
    print(f"to be read aloud before a first installation: {digest_of_bytes(paper)}")
    print(f"there, first: sed -n 's/^{BESIDE}//p' {LIST} | sha256sum --check --quiet")
    print(f"then: pip install --no-index --find-links {WHEELS} --require-hashes -r {LIST}")
    return DONE


def check(folder: Path, key: str) -> int:
    """Holds the list against its signature, and every file against the list."""
    paper = _read(folder / LIST)
    expect_signed(verifier_of(key), KIND, paper, _read(folder / f"{LIST}.sig"), LIST)
    few, whole = set(_read(folder / LETTERBOX).splitlines()), paper.splitlines()
    # Its first line names the version that made it, which is newer than the one that reads it.
    if listed(folder).splitlines()[1:] != whole[1:] or not few <= set(whole):
        print(f"what lies in {folder} is not what was signed: do not install it")
        return REFUTED
    count, _ = _counted(folder / WHEELS)
    print(f"{count} wheels as {person_of(verifier_of(key))} signed them")
    return DONE


def listed(folder: Path) -> bytes:
    """Pip's requirements of every wheel, each with its SHA-256, below those of all other files.

    The list itself and its signature are not in it.
    """
    wheels, rows = folder / WHEELS, []
    own = {folder / LIST, folder / f"{LIST}.sig"}
    for path in sorted(wheels.glob("*")):
        named = _WHEEL.fullmatch(path.name)
        if named is None:
            raise BadInput(f"{path.name} in {wheels}", "wheels alone")
        rows.append(f"{_canonical(named[1])}=={named[2]} --hash=sha256:{_sha256(path)}")
    if not rows:
        raise BadInput(f"no wheels in {wheels}", "a folder that make wheelhouse made")
    head = (
        f"# fedkd {__version__} and all that it needs, for Python {_python()} on {sys.platform}\n"
    )
    beside = sorted(set(_files(folder)) - own - set(wheels.glob("*")))
    told = [f"{BESIDE}{_sha256(path)}  {path.relative_to(folder).as_posix()}" for path in beside]
    return (head + "\n".join([*told, *rows]) + "\n").encode()


def _ship(source: Path, folder: Path) -> None:
    """Copies what goes beside the wheels."""
    for pattern in SHIPPED:
        for path in source.glob(pattern):
            if path.is_file():
                copy = folder / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise BadInput(f"{path}, a link", "plain files alone")
        if not path.is_dir():
            yield path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _letterbox(wheels: Path, paper: bytes) -> bytes:
    """The lines of the list that a machine needs which only faces the network; pip resolves."""
    with tempfile.TemporaryDirectory() as there:
        report = Path(there) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-index"]
        command += ["--ignore-installed", "--find-links", str(wheels), "--report", str(report)]
        subprocess.run([*command, *FACES_THE_NETWORK], check=True)  # noqa: S603
        told = json.loads(report.read_text())["install"]
    names = {_canonical(one["metadata"]["name"]) for one in told} | {"fedkd"}
    head, *lines = paper.decode().splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith(BESIDE)]
    return "".join([head, *(line for line in lines if line.split("==")[0] in names)]).encode()


def _canonical(name: str) -> str:
    """One spelling of a project's name (PyPA, Names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _counted(wheels: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in wheels.glob("*.whl")]
    return len(sizes), sum(sizes)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{path}, which cannot be read ({error.strerror})", "a signed list of wheels"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the two commands."""
    parser = argparse.ArgumentParser(prog="python -m fedkd.cli.wheelhouse", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="collect the wheels and write the list")
    making.add_argument("folder", type=Path, metavar="DIR")
    making.add_argument("--key", type=Path, help="the private key that signs the list")
    making.add_argument("pip", nargs="*", metavar="-- PIP", help="goes to pip wheel, after --")
    checking = commands.add_parser("check", help="hold a wheelhouse against its signature")
    checking.add_argument("folder", type=Path, metavar="DIR")
    checking.add_argument("--key", required=True, metavar="VKEY", help="verifier key, or its file")
    given = parser.parse_args(arguments)
    try:
        if given.command == "make":
            return make(given.folder, given.key, given.pip)
        return check(given.folder, given.key)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
