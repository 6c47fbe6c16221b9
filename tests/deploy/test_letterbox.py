"""What a letterbox lets in and out, which programs Flower finds there, and what it never loads."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedkd.audit import Log
from fedkd.deploy.bundles import allow
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.knock import APPROVED, KNOCK, REFUSED, SETTINGS, TASK
from fedkd.deploy.letterbox import Letterbox
from fedkd.deploy.preparing import Whose, prepare_letterbox
from fedkd.deploy.service import remember
from fedkd.deploy.shims import SHIMS, write_shims
from fedkd.deploy.socket import (
    MOST_LETTER_BYTES,
    Frame,
    Kind,
    Told,
    connected,
    listening,
    receive,
    request,
)
from fedkd.deploy.turns import Service
from fedkd.federation.flower.letters import content_of, letter_of
from fedkd.federation.flower.pinned import _App
from fedkd.wire import (
    Envelope,
    Present,
    Proposal,
    Question,
    Reason,
    Refusal,
    RollCall,
    cover,
    decode,
    encode,
)
from tests.deploy.federated import Federated
from tests.deploy.federations import PATIENT
from tests.deploy.services import until

HIDDEN = "patient 4711 of /srv/records/aids.csv"
HEAVY = ("torch", "pandas", "sklearn", "scipy", "hydra", "fedkd.data", "fedkd.distill",
         "fedkd.federation.participant")  # fmt: skip
ASKED = encode(RollCall("run-1"))


class Site:
    """Answers with `reply`; raises it where it is an exception."""

    def __init__(self) -> None:
        self.reply: bytes | Exception = encode(Present("north", "run-1", "fedkd 0.1.0"))
        self.asked = 0
        self.last = b""

    def handle(self, letter: bytes) -> bytes:
        self.asked += 1
        self.last = letter
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class Box:
    def __init__(self, folder: Path, site: Site, told: list[Told]) -> None:
        self.box, self.site, self.told = Letterbox.at(folder), site, told

    def post(self, letter: bytes | None = ASKED, *, allowed: bool = True) -> Any:
        reply = self.box.post(letter, allowed)
        assert HIDDEN.encode() not in reply
        return decode(reply, 1 << 20)

    def kept(self) -> set[bytes]:
        return {path.read_bytes() for path in (self.box.folder / "outbox").iterdir()}


def letterbox_at(folder: Path, service: Path) -> Path:
    for name in ("outbox", "home", "logs"):
        (folder / name).mkdir(parents=True)
    (folder / SETTINGS).write_text(json.dumps({"site": "north", "service": str(service)}))
    return folder


@contextmanager
def serving(running: Service, path: Path) -> Iterator[None]:
    worker = threading.Thread(target=running.work)
    with listening(path, 0o600) as listener:
        running.listen(listener)
        worker.start()
        try:
            yield
        finally:
            running.stop()
            worker.join(PATIENT)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    site, told = Site(), list[Told]()
    folder = letterbox_at(tmp_path / "letterbox", tmp_path / "site.sock")
    with serving(Service(site, told.append), tmp_path / "site.sock"):
        yield Box(folder, site, told)


def test_an_answer_goes_out_as_it_is_and_is_kept(box: Box) -> None:
    assert box.post() == Present("north", "run-1", "fedkd 0.1.0")
    assert box.kept() == {box.site.reply}


@pytest.mark.parametrize(
    ("letter", "reason", "told"),
    [
        (None, Reason.MALFORMED, Told.MALFORMED),
        (b"", Reason.VERSION, Told.VERSION),
        (ASKED[:-3], Reason.MALFORMED, Told.MALFORMED),
        (b"\x80\x04\x95" + b"x" * 40, Reason.VERSION, Told.VERSION),
        (encode(Present("north", "run-1", "fedkd")), Reason.MALFORMED, Told.MALFORMED),
        (encode(Refusal("north", "run-1", 0, Reason.FAILED)), Reason.MALFORMED, Told.MALFORMED),
    ],
    ids=["no letter", "empty", "cut short", "a pickle", "a site's message", "a refusal"],
)
def test_what_no_server_sends_never_reaches_the_site(
    box: Box, letter: bytes | None, reason: Reason, told: Told
) -> None:
    refused = box.post(letter)
    assert isinstance(refused, Refusal)
    assert (refused.site, refused.reason) == ("north", reason)
    assert box.site.asked == 0
    until(lambda: box.told == [told])
    assert len(box.kept()) == 1


def test_a_bundle_that_nobody_allowed_is_refused_by_name_of_the_run(box: Box) -> None:
    assert box.post(allowed=False) == Refusal("north", "run-1", 0, Reason.NOT_APPROVED)
    assert box.site.asked == 0
    until(lambda: box.told == [Told.BUNDLE])
    assert "bundle" in (box.box.folder / "refusals.log").read_text()


def test_of_a_bundle_that_nobody_allowed_a_proposal_passes_and_nothing_that_rides_along(
    box: Box,
) -> None:
    proposal = encode(Proposal("run-1", np.arange(9, dtype=np.uint8), "signed"))
    letter = cover(Envelope(notes=("a note",))) + proposal
    box.post(letter, allowed=False)
    assert box.site.last == proposal
    box.post(letter)
    assert box.site.last == letter


@pytest.mark.parametrize(
    "reply",
    [RuntimeError(HIDDEN), HIDDEN.encode(), ASKED, b""],
    ids=["an exception", "a text", "a question", "nothing"],
)
def test_what_no_site_sends_never_leaves(box: Box, reply: bytes | Exception) -> None:
    box.site.reply = reply
    assert box.post() == Refusal("north", "run-1", 0, Reason.FAILED)
    assert all(HIDDEN.encode() not in body for body in box.kept())


def test_a_reply_of_a_byte_more_than_may_leave_is_never_read(tmp_path: Path) -> None:
    """The service's half may be in other hands, too: what it announces is not allocated."""
    heard: list[Frame | None] = []

    def say(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(receive(connection))
            head = Frame(Kind.ANSWERED).to_bytes()[:-8]
            connection.sendall(head + (MOST_LETTER_BYTES + 1).to_bytes(8, "big"))
            connection.recv(1)  # until the letterbox hangs up

    box = Letterbox.at(letterbox_at(tmp_path / "box", tmp_path / "site.sock"))
    with listening(tmp_path / "site.sock", 0o600) as listener:
        answering = threading.Thread(target=say, args=(listener,), daemon=True)
        answering.start()
        said = decode(box.post(ASKED, True), 1 << 20)
        answering.join(PATIENT)
    assert heard == [Frame(Kind.ANSWER, ASKED)]
    assert said == Refusal("north", "run-1", 0, Reason.FAILED)
    assert "the site service is away" in (box.folder / "refusals.log").read_text()


def test_a_full_outbox_lets_nothing_out(box: Box) -> None:
    outbox = box.box.folder / "outbox"
    outbox.rmdir()
    outbox.write_text("no folder")
    assert box.post() == Refusal("north", "unknown", 0, Reason.FAILED)


def test_without_a_service_the_run_is_told_so(tmp_path: Path) -> None:
    box = Letterbox.at(letterbox_at(tmp_path / "box", tmp_path / "none.sock"))
    assert decode(box.post(ASKED, True), 1 << 20) == Refusal("north", "run-1", 0, Reason.FAILED)


def test_bundles_are_allowed_by_their_digest_alone(tmp_path: Path) -> None:
    box = Letterbox.at(letterbox_at(tmp_path / "box", tmp_path / "none.sock"))
    assert not box.allows("ab" * 32)
    allow(box.folder, "ab" * 32)
    allow(box.folder, "ab" * 32)
    assert (box.folder / APPROVED).read_text() == "ab" * 32 + "\n"
    assert box.allows("ab" * 32)
    assert not box.allows("ab")


MOST = 100
PICKLE = ArrayRecord({"body": Array("float32", (1,), "pickle", b"")})
CONTEXT = Context(1, 7, {}, RecordDict(), {})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (content_of(b"x"), "train"),
        (RecordDict({"fedkd": ConfigRecord({"body": b"x"})}), "query.answer"),
        (RecordDict({"fedkd": PICKLE}), "query.answer"),
        (RecordDict({}), "query.answer"),
        (content_of(bytes(MOST + 1)), "query.answer"),
        (content_of(bytes(MOST), cover=b"x"), "query.answer"),
    ],
    ids=["another type", "no arrays", "a pickle", "nothing", "too large", "too large, covered"],
)
def test_another_kind_of_flower_message_is_answered_as_no_letter(
    content: RecordDict, kind: str
) -> None:
    seen, reply = taken(content, kind)
    assert seen == [(None, False)]
    assert letter_of(reply, MOST) == b"refused"


def test_a_letter_as_large_as_may_be_is_one() -> None:
    assert taken(content_of(bytes(MOST)), "query.answer")[0] == [(bytes(MOST), False)]


def taken(content: RecordDict, kind: str) -> tuple[list[tuple[bytes | None, bool]], Message]:
    """What of a Flower message comes to be posted, and the Flower message that goes back."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 7
    message = Message(content, 7, kind)
    message.metadata.__dict__["_message_id"] = "1"
    seen: list[tuple[bytes | None, bool]] = []

    def post(letter: bytes | None, allowed: bool) -> bytes:
        seen.append((letter, allowed))
        return b"refused"

    return seen, _App(post, MOST)(message, CONTEXT)


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    return write_shims(letterbox_at(tmp_path / "box", tmp_path / "none.sock"))


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_task_of_flowers_is_refused_and_noted(shims: Path, name: str) -> None:
    done = subprocess.run(
        [name, "--token", HIDDEN], env={"PATH": f"{shims}:/bin"}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert (shims.parent / "refusals.log").read_text().endswith(f" task {name}\n")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_task_becomes_an_entry_in_the_sites_log(federated: Federated, name: str) -> None:
    hospital = federated.hospitals["north"]
    prepare_letterbox(hospital, Whose())
    with serving(Service(Site(), lambda told: remember(hospital, told)), hospital.socket):
        for _ in range(2):  # one entry a day says it
            words = [hospital.letterbox / SHIMS / name, "--token", HIDDEN]
            done = subprocess.run(words, capture_output=True, check=False)
            assert done.returncode == 1
            until(lambda: refused_at(hospital) == [f"letterbox: task {name}"])
    assert refused_at(hospital) == [f"letterbox: task {name}"]
    assert HIDDEN.encode() not in (hospital.site / "log.sqlite").read_bytes()


@pytest.mark.parametrize("told", Told)
def test_whatever_a_letterbox_refuses_by_itself_becomes_an_entry(
    federated: Federated, told: Told
) -> None:
    hospital = federated.hospitals["north"]
    with serving(Service(Site(), lambda told: remember(hospital, told)), hospital.socket):
        reply = request(hospital.socket, Frame(Kind.TELL, told.encode()), PATIENT)
        assert reply.kind is Kind.HEARD
        until(lambda: refused_at(hospital) == [f"letterbox: {told}"])


def refused_at(hospital: Hospital) -> list[str]:
    """The rules by which the site's log says that something was refused, oldest first."""
    with Log(hospital.site / "log.sqlite", hospital.name) as log:
        return [entry.body["rule"] for entry in log.entries("release.refused")]


def test_the_stubs_cover_every_task_that_flower_knows() -> None:
    from flwr.supercore.constant import TaskType

    assert {TASK, *REFUSED} == {str(each) for each in TaskType}


def test_nothing_of_flower_lies_in_the_shims_but_what_hands_tasks_out(shims: Path) -> None:
    assert {path.name for path in shims.iterdir()} == {TASK, *REFUSED, "flower-superexec"}
    assert shims.name == SHIMS


def test_a_task_without_a_letterbox_ends(shims: Path) -> None:
    done = subprocess.run([shims / TASK], capture_output=True, check=False)
    assert done.returncode == 1


def test_whoever_knocks_and_goes_ends_no_letterbox(tmp_path: Path) -> None:
    """As Flower's executor does that was ended, or waited for too long."""
    knock = letterbox_at(tmp_path / "box", tmp_path / "none.sock") / KNOCK
    words = [sys.executable, "-I", "-m", "fedkd.deploy.letterbox", str(tmp_path / "box")]
    letterbox = subprocess.Popen(words, stderr=subprocess.DEVNULL)

    def said(reads: bool) -> bytes:
        with suppress(FileNotFoundError, ConnectionRefusedError), connected(knock) as connection:
            connection.sendall(b'["--no-such-word"]\n')
            return connection.recv(2) if reads else b"gone"
        return b""

    try:
        until(lambda: letterbox.poll() is not None or said(reads=True) == b"ok")
        assert [said(reads=False) for _ in range(3)] == [b"gone"] * 3
        assert said(reads=True) == b"ok"
    finally:
        letterbox.kill()
        letterbox.wait()


def test_the_letterboxs_process_loads_neither_torch_nor_anything_that_reads_records() -> None:
    code = (
        "import sys, fedkd.deploy.letterbox, fedkd.federation.flower.pinned; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_message_of_the_wrong_kind_is_nothing_that_may_come_in() -> None:
    from fedkd.deploy.letterbox import COMES_IN, GOES_OUT

    assert COMES_IN.isdisjoint(GOES_OUT)
    assert {RollCall, Question} <= COMES_IN
