"""A secret is planted in what can go wrong at a site, and looked for in every byte that left."""

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app as client_app
from fedkd.cli.run import Run
from fedkd.federation.durable import read_json, write_json
from fedkd.federation.flower.letterbox import RUN_VARIABLE, NoSite, reply_to, site_folder
from fedkd.federation.flower.letters import NoLetter, content_of, letter_of
from fedkd.wire import Present, Reason, Refusal, RollCall, decode, encode, opened
from tests.federation.small import Wiretap, files, finished, founded, question, unwatched

SECRET = "canary"  # noqa: S105
MODEL = """
import logging, sys, warnings

class CanaryInTheClass(Exception):
    pass

class Model:
    architecture = "canary in the architecture"
    def weights(self): return None
    def probs(self, inputs): raise CanaryInTheClass("canary in the answer", inputs)
    def fit(self, records, lesson, plan, rng):
        logging.getLogger("flwr").error("canary in Flower's log")
        print("canary printed")
        raise CanaryInTheClass(f"canary in the text of {records.inputs[0]}")

def model(space, rng):
    return Model()
"""


@pytest.fixture
def run_of_three(tmp_path: Path) -> Run:
    return founded(tmp_path / "canary-in-the-path" / "run")


def no_secret_left(grid: Wiretap, run: Run) -> None:
    for letter in grid.up:
        assert SECRET.encode() not in letter.wire.lower()
        assert b"raceback" not in letter.wire
        assert str(run.folder).encode() not in letter.wire
    for path in run.sites.values():
        for kept in (path / "outbox").iterdir():
            assert SECRET.encode() not in kept.read_bytes().lower()


def test_a_model_that_raises_a_secret_is_refused_without_a_word_of_it(
    run_of_three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of_three
    (tmp_path / "canary_in_the_file.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = run.sites["site-02"] / "site.json"
    model = {"_target_": "canary_in_the_file.model"}
    write_json(settings, {**read_json(settings), "model": model})
    grid = Wiretap(run)
    finished(run, grid)
    assert "canary in the text" in (run.sites["site-02"] / "errors.txt").read_text()
    no_secret_left(grid, run)
    rows = {row["site"]: row for row in read_json(run.folder / "summary.json")["clients"]}
    refused = [{"round": round, "reason": "refused: failed"} for round in (1, 2, 3)]
    assert rows["site-02"]["left_out"] == refused
    assert rows["site-01"]["left_out"] == rows["site-03"]["left_out"] == []


def break_records(folder: Path) -> None:
    (folder / "train.npz").write_text("canary in the records")


def break_log(folder: Path) -> None:
    (folder / "log.sqlite").unlink()
    (folder / "log.sqlite").write_text("canary in the log, which is no database " * 200)


def break_settings(folder: Path) -> None:
    (folder / "site.json").write_text('{"canary in the settings": ')


def take_away(folder: Path) -> None:
    shutil.rmtree(folder)


def foreign_part(folder: Path) -> None:
    settings = read_json(folder / "site.json")
    write_json(folder / "site.json", {**settings, "gate": {"_target_": "canary.in.the.gate"}})


BREAKS: list[Callable[[Path], None]] = [
    break_records, break_log, break_settings, take_away, foreign_part,
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKS, ids=lambda it: it.__name__)
def test_a_site_that_breaks_in_mid_run_is_left_out_and_says_nothing(
    damage: Callable[[Path], None], run_of_three: Run
) -> None:
    broken = run_of_three.sites["site-03"]
    app = ClientApp()

    @app.query("answer")
    def answer(message: Message, context: Context) -> Message:
        asks_who = isinstance(decode(opened(letter_of(message, 1 << 20))[1], 1 << 20), RollCall)
        reply = client_app(message, context)
        if asks_who and context.node_config["site"] == str(broken):
            damage(broken)
        return reply

    grid = Wiretap(run_of_three, app)
    unwatched(run_of_three, grid)
    reasons = {note["reason"] for note in left_out(run_of_three)["site-03"]}
    assert reasons == {"refused: failed"}
    assert set(left_out(run_of_three)) == {"site-03"}
    for letter in grid.up:
        assert SECRET.encode() not in letter.wire.lower()
        assert not letter.wire.count(str(broken).encode())


def left_out(run: Run) -> dict[str, list[dict[str, object]]]:
    kept: dict[str, list[dict[str, object]]] = read_json(run.folder / "server/checkpoint.json")[
        "left_out"
    ]
    return kept


def test_what_a_client_raises_by_itself_is_not_repeated_by_the_server(run_of_three: Run) -> None:
    app = ClientApp()

    @app.query("answer")
    def answer(message: Message, context: Context) -> Message:
        asks_who = isinstance(decode(opened(letter_of(message, 1 << 20))[1], 1 << 20), RollCall)
        if not asks_who and "site-01" in str(context.node_config["site"]):
            raise ValueError("canary that Flower repeats")
        return client_app(message, context)

    grid = Wiretap(run_of_three, app)
    finished(run_of_three, grid)
    crossed = [letter for letter in grid.up if b"canary that Flower repeats" in letter.wire]
    assert len(crossed) == 3  # the attack is real: without the letterbox Flower says it all
    written = files(run_of_three.folder)
    assert not [name for name, body in written.items() if b"canary that" in body]
    notes = left_out(run_of_three)["site-01"]
    assert {note["reason"] for note in notes} == {"the client failed"}


# The letterbox by itself.


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no Ray worker, whatever ran in it before."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv(RUN_VARIABLE, raising=False)


def context(node: dict[str, object], **run_config: object) -> Context:
    return Context(1, 2, dict(node), RecordDict(), dict(run_config))


def message(content: RecordDict) -> Message:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1
    made = Message(content, dst_node_id=2, message_type="query.answer")
    made.metadata.__dict__["_message_id"] = "a" * 32
    return made


def told(node: dict[str, object], content: RecordDict | None = None, **run_config: object) -> bytes:
    asked = message(content_of(encode(RollCall("r"))) if content is None else content)
    return letter_of(reply_to(asked, context(node, **run_config)), 1 << 20)


@pytest.mark.usefixtures("deployed")
def test_a_node_that_was_told_no_site_says_so_and_nothing_else() -> None:
    said = decode(told({"partition-id": 0}), 1 << 20)
    assert isinstance(said, Refusal)
    assert (said.reason, said.site) == (Reason.NOT_CONFIGURED, "unknown")


def newer_format(folder: Path) -> None:
    write_json(folder / "site.json", {**read_json(folder / "site.json"), "format": "canary 9"})


def newer_log(folder: Path) -> None:
    database = sqlite3.connect(folder / "log.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()


def no_settings(folder: Path) -> None:
    (folder / "site.json").unlink()


@pytest.mark.parametrize(
    "damage", [newer_format, newer_log, no_settings, *BREAKS[1:4]], ids=lambda it: it.__name__
)
def test_a_folder_that_cannot_be_opened_is_a_refusal_without_its_name(
    damage: Callable[[Path], None], site: Path, tmp_path: Path
) -> None:
    named = site.rename(tmp_path / "canary")
    damage(named)
    body = told({"site": str(named)})
    assert decode(body, 1 << 20) == Refusal("unknown", "unknown", 0, Reason.FAILED)
    assert SECRET.encode() not in body


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("node", [{}, {"partition-id": 0}, {"partition-id": 0, "site": ""}])
def test_a_run_configuration_points_no_deployed_node_at_a_folder(
    node: dict[str, object], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(run.folder))
    with pytest.raises(NoSite):
        site_folder(context(node, out=str(run.folder), site=str(run.sites["site-02"])))


def test_a_ray_worker_is_told_by_the_simulation_and_a_hospitals_node_by_its_own_configuration(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = types.ModuleType("ray")
    working.is_initialized = lambda: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", working)
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    assert site_folder(context({"partition-id": 1}, out=str(run.folder))) == run.sites["site-02"]
    monkeypatch.setenv(RUN_VARIABLE, str(run.folder))
    assert site_folder(context({"partition-id": 2})) == run.sites["site-03"]
    own = context({"partition-id": 2, "site": "/own"}, out=str(run.folder))
    assert site_folder(own) == Path("/own")


def test_a_hospital_whose_model_imports_ray_is_steered_by_nobody(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = types.ModuleType("ray")
    imported.is_initialized = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", imported)
    with pytest.raises(NoSite):
        site_folder(context({"partition-id": 1}, out=str(run.folder)))


def test_the_client_app_brings_no_ray_along() -> None:
    code = "import clients.app, sys; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, body=np.zeros(3, dtype=np.uint8))
    return buffer.getvalue()


def claimed(data: bytes, shape: tuple[int, ...] = (3,), dtype: str = "uint8") -> RecordDict:
    array = Array(dtype, shape, "numpy.ndarray", data)
    return RecordDict({"fedkd": ArrayRecord({"body": array})})


def plain(array: np.ndarray) -> bytes:
    return Array(array).data


THREE = np.arange(3, dtype=np.uint8)
TERABYTES = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,), }\n"
NO_LETTERS = {
    "nothing": RecordDict({}),
    "another record": RecordDict({"other": ArrayRecord({"body": Array(THREE)})}),
    "a record more": RecordDict(
        {"fedkd": ArrayRecord({"body": Array(THREE)}), "note": ConfigRecord({"canary": 1})}
    ),
    "a record of settings": RecordDict({"fedkd": ConfigRecord({"body": 3})}),
    "an array more": RecordDict(
        {"fedkd": ArrayRecord({"body": Array(THREE), "more": Array(THREE)})}
    ),
    "another array": RecordDict({"fedkd": ArrayRecord({"weights": Array(THREE)})}),
    "floats": RecordDict({"fedkd": ArrayRecord({"body": Array(THREE.astype(np.float32))})}),
    "a matrix": RecordDict({"fedkd": ArrayRecord({"body": Array(THREE[None])})}),
    "too many bytes": RecordDict({"fedkd": ArrayRecord({"body": Array(np.zeros(1001, np.uint8))})}),
    "more bytes than it says": claimed(plain(np.zeros(5000, np.uint8))),
    "floats that say bytes": claimed(plain(THREE.astype(np.float32))),
    "another shape than it says": claimed(plain(THREE), (4,)),
    "a negative shape": claimed(plain(THREE), (-1,)),
    "a pickle": claimed(b"\x80\x04K\x01."),
    "no bytes at all": claimed(b""),
    "an archive": claimed(zipped()),
    "a header that never ends": claimed(npy(b"(" * 100)),
    "a header of terabytes": claimed(npy(TERABYTES)),
    "half an array": claimed(plain(THREE)[:-2]),
}


@pytest.mark.parametrize("content", NO_LETTERS.values(), ids=NO_LETTERS)
def test_what_is_no_letter_is_not_opened(content: RecordDict, site: Path) -> None:
    with pytest.raises(NoLetter):
        letter_of(message(content), 1000)


@pytest.mark.parametrize(
    "content",
    [
        content
        for name, content in NO_LETTERS.items()
        if "many" not in name and "more b" not in name
    ],
    ids=[name for name in NO_LETTERS if "many" not in name and "more b" not in name],
)
def test_a_site_refuses_what_is_no_letter(content: RecordDict, site: Path) -> None:
    assert decode(told({"site": str(site)}, content), 1 << 20) == Refusal(
        "unknown", "unknown", 0, Reason.FAILED
    )


def test_a_letter_is_opened_to_what_was_put_in() -> None:
    for body in (b"", b"x", bytes(range(256)) * 3):
        assert letter_of(message(content_of(body)), 1000) == body


def test_a_node_with_a_site_says_its_name(site: Path) -> None:
    said = decode(told({"site": str(site)}), 1 << 20)
    assert isinstance(said, Present)
    assert said.site == "site-01"


def test_a_refusal_is_the_same_whatever_went_wrong(run: Run, site: Path) -> None:
    """Two causes of one reason cannot be told apart: not by a byte, not by the length."""
    bodies = []
    for damage in (break_records, foreign_part):
        damage(site)
        bodies.append(told({"site": str(site)}, content_of(encode(question(run)))))
    assert bodies[0] == bodies[1]
    assert json.loads((site / "site.json").read_text())["name"] == "site-01"
