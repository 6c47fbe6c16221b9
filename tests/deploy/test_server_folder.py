"""A coordinator's folder: made whole or not at all, read by its owner alone, signed."""

from pathlib import Path

import pytest

from fedkd.cli import main
from fedkd.deploy.federation_file import FederationFile, federation_yaml
from fedkd.deploy.server_folder import ServerFolder, Settings, make_server
from fedkd.knowledge import BadInput
from tests.deploy.federations import SCHEMA, coordinator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    return coordinator(tmp_path_factory.mktemp("coordinator"))


def test_nobody_else_reads_anything_in_the_folder(server: ServerFolder) -> None:
    for path in (server.folder, *server.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("name", [".", "keys", "keys/ca.key", "keys/federation.key"])
def test_a_folder_that_others_may_read_is_not_opened(tmp_path: Path, name: str) -> None:
    server = coordinator(tmp_path)
    (server.folder / name).chmod(0o755 if (server.folder / name).is_dir() else 0o640)
    with pytest.raises(BadInput, match="chmod"):
        ServerFolder.opened(server.folder)


def test_a_folder_is_never_written_over(server: ServerFolder, tmp_path: Path) -> None:
    before = (server.keys / "ca.key").read_bytes()
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA)
    with pytest.raises(BadInput, match="not empty"):
        make_server(server.folder, name="heart", reached_at="localhost:1", schema=path)
    assert (server.keys / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--name", "a/b"], "the federation's name"),
        (["--address", "localhost"], "HOST:PORT"),
        (["--schema", "absent.yaml"], "no schema in absent.yaml"),
        (["--listen", "here"], "HOST:PORT"),
        (["--superlink-port", "99999"], "superlink_port 99999"),
        (["--superlink-port", "18443"], "two ports"),
        (["--contact", "one\ntwo"], "one line"),
    ],
)
def test_a_wrong_word_makes_nothing(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    given = {"--name": "heart", "--address": "localhost:18443"}
    given |= {"--schema": str(tmp_path / "schema.yaml")} | dict([words])
    code = main(
        ["server", "init", str(tmp_path / "made"), *(w for kv in given.items() for w in kv)]
    )
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_what_a_person_typed_is_in_the_description_with_its_comments(server: ServerFolder) -> None:
    described, content, _ = server.federation()
    assert b"# at admission" in content
    assert described.schema is not None
    assert described.schema.column("age").to_json()["unit"] == "years"
    assert described.space.classes == ("well", "ill")


def test_our_own_schema_goes_in_without_its_card() -> None:
    path = ROOT / "fedkd" / "data" / "sources" / "heart_disease.yaml"
    written = federation_yaml("heart", path)
    read = FederationFile.read(written.encode())
    assert "# 0 is written for a pressure" in written
    assert "Janosi" not in written
    assert read.space.shape == (32,)


def test_pictures_are_described_by_a_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "space: {kind: image, shape: [28, 28], dtype: uint8, low: 0, high: 255,\n"
        "  classes: [well, ill]}\n"
    )
    read = FederationFile.read(federation_yaml("lungs", path).encode())
    assert read.schema is None
    assert read.space.shape == (28, 28)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"format: 1\nname: heart\n", "schema and space, or neither"),
        (b"format: 2\nname: heart\n", "format 2"),
        (b"format: 1\nname: heart\nschema: {columns: {}, label: {}}\n", "label"),
        (b"format: 1\nname: heart\nspace: {kind: image}\n", "a space"),
        (b"format: 1\nname: heart\nmore: 1\n", "the key 'more'"),
        (b"\xff\xfe", "not YAML"),
    ],
)
def test_a_description_of_another_form_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        FederationFile.read(content)


def test_a_description_that_was_changed_is_not_sent_to_anybody(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    path = server.folder / "federation.yaml"
    path.write_text(path.read_text().replace("high: 100", "high: 10"))
    with pytest.raises(BadInput, match="another text"):
        server.federation()


def test_settings_say_which_key_is_wrong() -> None:
    right = {"name": "heart", "address": "a.b:1", "listen": "0.0.0.0:1", "superlink_port": 2}
    assert Settings.from_json(right, "server.yaml").host == "a.b"
    for change, says in (
        ({"adress": "x"}, "did you mean 'address'"),
        ({"superlink_port": "2"}, "superlink_port '2'"),
        ({"superlink_port": True}, "superlink_port True"),
        ({"listen": ""}, "no listen"),
    ):
        with pytest.raises(BadInput, match=says):
            Settings.from_json({**right, **change}, "server.yaml")


def test_what_is_no_coordinators_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fedkd server init"):
        ServerFolder.opened(tmp_path)
