"""Units and container files, as far as they can be tried where no engine runs."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedkd.audit.passphrase import CREDENTIAL
from tests.command_line import parsed
from tests.deploy.federations import coordinator, enrolled

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))
CONTAINERS = sorted((PACKAGING / "containers").glob("Containerfile.*"))
EXPOSURE = {"fedkd-site": 1.0, "fedkd-letterbox": 2.0, "fedkd-server": 2.0}
"""At most, by systemd-analyze security: 0 is shut, 10 is open; `OK` ends at 5."""


GUIDE = (ROOT / "docs" / "deploy.md").read_text()
FEDKD = re.compile(
    r"(?:/opt/fedkd/bin/fedkd|--entrypoint fedkd \S+|exec (?:--\S+ )*\S+ fedkd) (.+)$"
)
"""What of a line of the guide is a command of ours: of the program, or inside of a container."""


def typed(heading):
    """The lines of the guide's blocks below a heading."""
    section = GUIDE[GUIDE.index(f"\n{heading}\n") + len(heading) :]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def settings(unit):
    """The last word on each key of a unit's service."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str
    read.read_string(unit.read_text())
    return dict(read["Service"])


def expect_parses(words):
    """A command of ours with its arguments and options, as the command line reads it."""
    program, *rest = words
    assert Path(program).name == "fedkd"
    parsed(rest)


def instructions(file):
    """(instruction, arguments) of a container file, lines joined and comments left out."""
    text = re.sub(r"\\\n", " ", file.read_text())
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists_and_is_hardened(unit):
    told = settings(unit)
    expect_parses(shlex.split(told["ExecStart"]))
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices",
                "ProtectKernelTunables", "RestrictSUIDSGID", "LockPersonality"):  # fmt: skip
        assert told[key] == "yes", key
    assert told["ProtectSystem"] == "strict"
    assert told["User"] != "root"
    assert told["Restart"] == "on-failure"


def test_what_holds_records_has_no_network_and_another_user_than_what_faces_it():
    site = settings(PACKAGING / "systemd/fedkd-site.service")
    letterbox = settings(PACKAGING / "systemd/fedkd-letterbox.service")
    assert site["PrivateNetwork"] == "yes"
    assert site["RestrictAddressFamilies"] == "AF_UNIX"
    assert site["User"] != letterbox["User"]
    assert site["Group"] == letterbox["Group"]
    assert letterbox["ReadWritePaths"].endswith("/letterbox")
    hidden = (PACKAGING / "systemd/fedkd-letterbox.service").read_text()
    for part in ("site", "rehearsal", "site.yaml", "proposals"):
        assert f"-/var/lib/fedkd/hospital/{part}" in hidden


def test_what_opens_the_keys_goes_to_the_half_that_has_no_network():
    site, server, letterbox = (
        settings(PACKAGING / f"systemd/fedkd-{name}.service")
        for name in ("site", "server", "letterbox")
    )
    for unit, folder, mode in ((site, "fedkd-site", "0750"), (server, "fedkd-server", "0700")):
        assert unit["LoadCredential"] == CREDENTIAL
        assert unit["RuntimeDirectory"] == folder
        assert unit["RuntimeDirectoryMode"] == mode
    assert "LoadCredential" not in letterbox


@pytest.mark.parametrize("heading", ["## As services", "### In containers"])
def test_what_the_guide_has_typed_there_are_commands_of_ours(heading):
    found = [match[1] for line in typed(heading) if (match := FEDKD.search(line))]
    assert {words.split()[1] for words in found} >= {"init", "join"}
    for words in found:
        expect_parses(["fedkd", *shlex.split(words)])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_guide_makes_all_that_a_unit_names_before_it_is_enabled(unit):
    told, lines = settings(unit), typed("## As services")

    def first(*words):
        return next(at for at, line in enumerate(lines) if all(word in line for word in words))

    enabled = first("systemctl enable", unit.stem)
    assert first("useradd", f"/usr/sbin/nologin {told['User']}") < enabled
    copied = first("cp ", f"packaging/systemd/{unit.name} ", "/etc/systemd/system/")
    assert copied < enabled
    written = told["ReadWritePaths"]
    makers = [at for at, line in enumerate(lines) if line.startswith(("install -d", "sudo -u"))]
    made = {at: word for at in makers for word in shlex.split(lines[at]) if word.startswith("/var")}
    assert any(Path(written).is_relative_to(word) and at < enabled for at, word in made.items())
    folder = shlex.split(told["ExecStart"])[3]
    (found,) = {at for at in makers if re.search(rf"(--dir|server init) {folder}( |$)", lines[at])}
    assert found < enabled
    assert f"sudo -u {settings(unit)['User'].removesuffix('-letterbox')} " in lines[found]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("useradd") is None, reason="needs root and shadow's tools"
)
def test_the_guides_users_can_be_made_and_are_the_units(tmp_path):
    lines = [it for it in typed("## As services") if it.startswith(("useradd", "groupadd"))]
    made = made_below(tmp_path, lines)
    groups = {
        line.split(":")[2]: line.split(":")[0]
        for line in (tmp_path / "etc/group").read_text().splitlines()
    }
    of = {name: groups[number] for name, _, _, number, *_ in (it.split(":") for it in made)}
    for unit in UNITS:
        assert of[settings(unit)["User"]] == settings(unit)["Group"]


def made_below(folder, lines):
    """The accounts that these lines make in an empty system below a folder, as /etc/passwd."""
    (folder / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (folder / "etc" / name).write_text("")
    for line in lines:
        program, *options = shlex.split(line)
        subprocess.run([program, "--prefix", str(folder), *options], check=True)
    return (folder / "etc/passwd").read_text().splitlines()


def test_what_the_containers_mount_is_there_once_a_hospital_has_joined(tmp_path):
    """Podman mounts no folder that is not there, and Docker makes root's of it."""
    enrolled(coordinator(tmp_path), "north", tmp_path / "hospital")
    whole = yaml.safe_load((PACKAGING / "containers/site.compose.yaml").read_text())
    mounted = [it for half in whole["services"].values() for it in half["volumes"]]
    inside = [it.split(":")[0].removeprefix("${HOSPITAL}/") for it in mounted]
    inside = [it for it in inside if not it.startswith(("${", "opened"))]
    assert inside == ["letterbox", "run"]
    assert all((tmp_path / "hospital" / it).is_dir() for it in inside)
    lines = typed("### In containers")
    joins, starts = (
        next(at for at, line in enumerate(lines) if words in line)
        for words in ("site join", "$COMPOSE up")
    )
    assert joins < starts


def test_the_guides_folders_belong_to_the_containers_users():
    (site,) = {it for it in CONTAINERS if it.name.endswith("site")}
    (server,) = {it for it in CONTAINERS if it.name.endswith("server")}
    users = {
        file: re.findall(r"useradd --uid (\d+)", file.read_text())[0] for file in (site, server)
    }
    owners = {
        re.search(r"-o (\d+)", line)[1]  # type: ignore[index]  # every such line names its owner
        for line in typed("### In containers")
        if line.startswith("install")
    }
    assert owners == set(users.values())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong_and_little_exposed(unit, tmp_path):
    program = Path(sys.executable).with_name("fedkd")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/fedkd/bin/fedkd", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert complaints == []
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert overall is not None, shown.stdout + shown.stderr
    assert float(overall[1]) <= EXPOSURE[unit.stem], json.loads(rated.stdout)


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_a_container_file_runs_our_command_as_nobody_in_particular(file):
    told = list(instructions(file))
    users = {rest for word, rest in told if word == "USER"}
    made = set(re.findall(r"useradd --uid (\d+)", file.read_text()))
    assert users
    assert {user.split(":")[0] for user in users} <= made
    entries = [json.loads(rest) for word, rest in told if word == "ENTRYPOINT"]
    for words in entries:
        expect_parses(words)
    last = [word for word, _ in told if word in ("USER", "RUN", "ENTRYPOINT")][-2:]
    assert last == ["USER", "ENTRYPOINT"]
    assert not any(word in ("ADD", "COPY") for word, _ in told)


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_its_shell_lines_parse_and_install_by_hashes_without_an_index(file):
    lines = [rest for word, rest in instructions(file) if word == "RUN"]
    for line in lines:
        mounts = re.findall(r"--mount=(\S+)", line)
        command = re.sub(r"--mount=\S+ ", "", line)
        subprocess.run(["bash", "-n", "-c", command], check=True)
        if "pip" in command:
            assert "--no-index" in command
            assert "--require-hashes" in command
            assert mounts == ["type=bind,source=wheelhouse,target=/wheelhouse"]
    makefile = (ROOT / "Makefile").read_text()
    assert "make dist/wheelhouse" in makefile  # what is mounted, with `dist` as the context


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("useradd") is None, reason="needs root and shadow's tools"
)
@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_its_users_can_be_made(file, tmp_path):
    told = [
        rest
        for word, rest in instructions(file)
        if word == "RUN" and rest.startswith(("useradd", "groupadd"))
    ]
    made = made_below(tmp_path, told)
    for word, rest in instructions(file):
        if word == "USER":
            assert any(f":{rest}:" in line for line in made)


def test_the_halves_of_a_hospital_share_a_socket_and_nothing_else():
    whole = yaml.safe_load((PACKAGING / "containers/site.compose.yaml").read_text())
    assert whole["volumes"]["opened"]["driver_opts"]["type"] == "tmpfs"
    told = whole["services"]
    service, letterbox = told["service"], told["letterbox"]
    assert service["network_mode"] == "none"
    # Hours and days are local time, which in a container is UTC unless somebody says it.
    assert service["environment"]["TZ"].startswith("${TZ:?")
    assert any(line.startswith("export ") and " TZ=" in line for line in typed("### In containers"))
    assert service["user"] != letterbox["user"]
    mounted = [volume.split(":")[1] for volume in letterbox["volumes"]]
    assert mounted == ["/hospital/letterbox", "/hospital/run", "/run/fedkd"]
    assert letterbox["volumes"][-1] == "opened:/run/fedkd:ro"
    assert "environment" not in letterbox or "FEDKD_PASSPHRASE_FILE" not in letterbox["environment"]
    for half in (service, letterbox):
        assert half["read_only"] is True
        assert half["cap_drop"] == ["ALL"]
        assert "no-new-privileges" in half["security_opt"]


def test_the_letterbox_container_installs_its_own_short_list():
    text = (PACKAGING / "containers/Containerfile.site").read_text()
    stage = text[text.index("AS letterbox") :]
    assert "/wheelhouse/letterbox.txt" in stage
    assert "/wheelhouse/requirements.txt" not in stage
    checked = "sed -n 's/^#: //p' requirements.txt | sha256sum --check --quiet && "
    assert stage.index(checked) < stage.index("pip install")
