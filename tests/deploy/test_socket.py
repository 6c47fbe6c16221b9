"""What the site service makes of whatever comes in at its socket."""

import gc
import json
import os
import resource
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from fedkd.deploy import turns
from fedkd.deploy.socket import (
    HEAD_BYTES,
    LEAST_PACE,
    MAGIC,
    MOST_LETTER_BYTES,
    MOST_OTHER_BYTES,
    Away,
    BadFrame,
    Frame,
    Kind,
    Told,
    Why,
    connected,
    listening,
    receive,
    request,
    send,
    time_left,
)
from fedkd.deploy.turns import MOST_CONNECTIONS, SMALL_BYTES, Service, _Turn
from tests.deploy.federations import PATIENT

HIDDEN = "patient 4711 has syphilis"
LARGE = MAGIC + bytes([Kind.ANSWER]) + (SMALL_BYTES + 1).to_bytes(8, "big")
"""The head of a letter of which one at a time is taken."""


class Desk:
    """Answers with what it was asked, after a wait; fails for one letter, with a secret."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.at_once = 0
        self.most_at_once = 0
        self.wait = threading.Event()
        self.wait.set()

    def handle(self, letter: bytes) -> bytes:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.wait.wait(PATIENT)
        self.asked.append(letter)
        self.at_once -= 1
        if letter == b"fail":
            raise RuntimeError(HIDDEN)
        return b"answer to " + letter


class Running:
    def __init__(self, path: Path, desk: Desk, told: list[Told], service: Service) -> None:
        self.path, self.desk, self.told, self.service = path, desk, told, service

    def ask(self, letter: bytes) -> Frame:
        return request(self.path, Frame(Kind.ANSWER, letter), PATIENT)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    desk, told = Desk(), list[Told]()
    service = Service(desk, told.append)
    with at_work(tmp_path / "site.sock", service):
        yield Running(tmp_path / "site.sock", desk, told, service)
        desk.wait.set()


@contextmanager
def at_work(path: Path, running: Service) -> Iterator[threading.Thread]:
    """The service at its socket, and the thread that takes its turns; afterwards it has ended."""
    worker = threading.Thread(target=running.work)
    with listening(path, 0o660) as listener:
        running.listen(listener)
        worker.start()
        try:
            yield worker
        finally:
            running.stop()
            worker.join(PATIENT)
        assert not worker.is_alive()


def _until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENT
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_letter_gets_its_answer(service: Running) -> None:
    assert service.ask(b"one") == Frame(Kind.ANSWERED, b"answer to one")
    assert service.ask(b"") == Frame(Kind.ANSWERED, b"answer to ")


def test_several_requests_come_over_one_connection(service: Running) -> None:
    with connected(service.path) as connection:
        for letter in (b"one", b"two"):
            send(connection, Frame(Kind.ANSWER, letter))
            assert receive(connection) == Frame(Kind.ANSWERED, b"answer to " + letter)


def test_only_owner_and_group_may_use_the_socket(service: Running) -> None:
    assert service.path.stat().st_mode & 0o777 == 0o660


def test_an_exception_says_nothing_to_whoever_asked(service: Running) -> None:
    assert service.ask(b"fail") == Frame(Kind.REFUSED, b"failed")
    assert service.ask(b"after").kind is Kind.ANSWERED


HOSTILE = {
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "another version": b"fks9" + bytes([Kind.ANSWER]) + bytes(8),
    "an unknown request": MAGIC + b"\x07" + bytes(8),
    "a reply as a request": Frame(Kind.ANSWERED, b"x").to_bytes(),
    "a letter of 2^63 bytes": MAGIC + bytes([Kind.ANSWER]) + b"\x80" + bytes(7),
    "a letter too large by one": MAGIC
    + bytes([Kind.ANSWER])
    + (MOST_LETTER_BYTES + 1).to_bytes(8, "big"),
    "a large status": MAGIC + bytes([Kind.STATUS]) + (MOST_OTHER_BYTES + 1).to_bytes(8, "big"),
    "told something of one's own": Frame(Kind.TELL, b"hello").to_bytes(),
    "told what is no text": Frame(Kind.TELL, b"\xff\xfe").to_bytes(),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_frame_gets_one_word_and_an_end(service: Running, hostile: bytes) -> None:
    with connected(service.path) as connection:
        connection.settimeout(PATIENT)
        connection.sendall(hostile)
        reply = receive(connection)
        assert reply is not None
        assert reply.kind is Kind.REFUSED
        assert reply.body.decode() in list(Why)
        assert connection.recv(1) == b""
    assert service.ask(b"after").kind is Kind.ANSWERED
    assert service.desk.asked == [b"after"]


def test_a_frame_cut_short_asks_nothing(service: Running) -> None:
    whole = Frame(Kind.ANSWER, b"a letter").to_bytes()
    for end in (1, HEAD_BYTES - 1, HEAD_BYTES, len(whole) - 1):
        with connected(service.path) as connection:
            connection.sendall(whole[:end])
            connection.shutdown(socket.SHUT_WR)
            with suppress(BadFrame):
                reply = receive(connection)
                assert reply is None or reply.kind is Kind.REFUSED
    service.ask(b"after")
    assert service.desk.asked == [b"after"]


def test_whoever_hangs_up_does_not_stop_the_turn(service: Running) -> None:
    service.desk.wait.clear()
    with connected(service.path) as connection:
        send(connection, Frame(Kind.ANSWER, b"the one"))
        _until(lambda: service.desk.at_once == 1)
    service.desk.wait.set()
    assert service.ask(b"the one") == Frame(Kind.ANSWERED, b"answer to the one")
    assert service.desk.asked == [b"the one", b"the one"]


def test_one_turn_at_a_time_and_the_status_in_between(service: Running) -> None:
    service.desk.wait.clear()
    threads = [threading.Thread(target=service.ask, args=(b"x",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    _until(lambda: service.desk.at_once == 1)
    standing = json.loads(request(service.path, Frame(Kind.STATUS), PATIENT).body)
    assert standing["busy_since"] is not None
    service.desk.wait.set()
    for thread in threads:
        thread.join(PATIENT)
    assert service.desk.most_at_once == 1
    assert json.loads(request(service.path, Frame(Kind.STATUS), PATIENT).body)["turns"] == 4


def test_what_was_answered_is_taken_before_a_service_that_stops_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SEND_SECONDS", PATIENT)
    desk, path, letter = Desk(), tmp_path / "site.sock", bytes(4 << 20)
    desk.wait.clear()
    running = Service(desk, lambda told: None)
    with at_work(path, running) as worker:
        with connected(path) as connection:
            send(connection, Frame(Kind.ANSWER, letter))
            _until(lambda: desk.at_once == 1)
            running.stop()
            desk.wait.set()
            _until(lambda: desk.asked == [letter])
            worker.join(0.3)
            assert worker.is_alive()  # a socket holds less than this, and nobody took it yet
            assert receive(connection) == Frame(Kind.ANSWERED, b"answer to " + letter)
        worker.join(PATIENT)


def test_a_line_that_cannot_be_made_of_a_letter_ends_nothing(tmp_path: Path) -> None:
    def failing(front: bytes) -> str:
        raise RuntimeError(HIDDEN)

    with at_work(tmp_path / "site.sock", Service(Desk(), lambda told: None, mark=failing)):
        for letter in (b"one", b"two"):
            reply = request(tmp_path / "site.sock", Frame(Kind.ANSWER, letter), PATIENT)
            assert reply == Frame(Kind.ANSWERED, b"answer to " + letter)


def test_too_many_connections_are_told_so(service: Running) -> None:
    open_ones = []
    try:
        for _ in range(MOST_CONNECTIONS):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(service.path))
            open_ones.append(one)
        reply = request(service.path, Frame(Kind.STATUS), PATIENT)
        assert reply == Frame(Kind.REFUSED, b"too_many")
    finally:
        for one in open_ones:
            one.close()
    _until(lambda: service.ask(b"x").kind is Kind.ANSWERED)


def test_what_a_letterbox_refused_is_remembered(service: Running) -> None:
    reply = request(service.path, Frame(Kind.TELL, Told.AGENTAPP.encode()), PATIENT)
    assert reply == Frame(Kind.HEARD)
    _until(lambda: service.told == [Told.AGENTAPP])


def test_what_is_told_a_thousand_times_during_a_turn_waits_once(service: Running) -> None:
    service.desk.wait.clear()
    asking = threading.Thread(target=service.ask, args=(b"x",))
    asking.start()
    _until(lambda: service.desk.at_once == 1)
    with connected(service.path) as connection:
        for _ in range(1000):
            send(connection, Frame(Kind.TELL, Told.BUNDLE.encode()))
            assert receive(connection) == Frame(Kind.HEARD)
    service.desk.wait.set()
    asking.join(PATIENT)
    service.ask(b"after")
    assert service.told == [Told.BUNDLE]
    request(service.path, Frame(Kind.TELL, Told.BUNDLE.encode()), PATIENT)
    _until(lambda: service.told == [Told.BUNDLE] * 2)  # told later, it is heard again


def test_one_large_letter_at_a_time_is_taken_into_memory(service: Running) -> None:
    with connected(service.path) as first, connected(service.path) as second:
        second.settimeout(PATIENT)
        first.sendall(LARGE + b"x")
        _until(lambda: is_large(service.service))
        second.sendall(LARGE + b"x")
        assert receive(second) == Frame(Kind.REFUSED, b"too_many")
        assert service.ask(b"small").kind is Kind.ANSWERED
        first.sendall(bytes(SMALL_BYTES))
        answer = receive(first)
        assert answer is not None
        assert answer.kind is Kind.ANSWERED
    assert service.ask(bytes(SMALL_BYTES + 1)).kind is Kind.ANSWERED


def is_large(service: Service) -> bool:
    """Whether a large letter is being taken."""
    return service._large._value == 0


def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Away):
        request(tmp_path / "none.sock", Frame(Kind.STATUS), 1)


def test_a_socket_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with listening(deep / "site.sock", 0o600) as listener:
        listener.settimeout(PATIENT)
        with connected(deep / "site.sock") as connection:
            connection.sendall(b"x")
            served, _ = listener.accept()
            with served:
                assert served.recv(1) == b"x"


def test_a_service_that_outlives_the_next_one_leaves_its_socket_alone(tmp_path: Path) -> None:
    """As one does whose supervisor was killed, and which ends its turn."""
    path = tmp_path / "site.sock"
    with ExitStack() as first:
        first.enter_context(listening(path, 0o660))
        with listening(path, 0o660):
            first.close()
            with connected(path):
                pass
        assert not path.exists()


@contextmanager
def trickling(connection: socket.socket) -> Iterator[None]:
    """Meanwhile a byte is sent now and then, for as long as the other side takes any."""
    ended = threading.Event()

    def trickle() -> None:
        with suppress(OSError):
            while not ended.wait(0.05):
                connection.send(b"\0")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def all_taken(path: Path) -> Iterator[None]:
    """All connections that a service takes at once, each of which has been answered."""
    with ExitStack() as held:
        for _ in range(MOST_CONNECTIONS):
            one = held.enter_context(connected(path, PATIENT))
            send(one, Frame(Kind.STATUS))
            reply = receive(one)
            assert reply is not None
            assert reply.kind is Kind.STANDING
        yield


def test_whoever_trickles_at_a_full_service_keeps_nobody_from_being_told(service: Running) -> None:
    with all_taken(service.path), connected(service.path) as ninth, trickling(ninth):
        for _ in range(2):
            reply = request(service.path, Frame(Kind.STATUS), PATIENT)
            assert reply == Frame(Kind.REFUSED, b"too_many")


def test_whoever_is_still_sending_to_a_full_service_is_told(service: Running) -> None:
    with all_taken(service.path):
        for _ in range(20):
            reply = request(service.path, Frame(Kind.ANSWER, bytes(4 << 20)), PATIENT)
            assert reply == Frame(Kind.REFUSED, b"too_many")


def test_a_large_letter_that_trickles_makes_room_for_another(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"

    def is_taken() -> bool:
        with suppress(Away):  # a machine under load: slower than what is asked for here
            return request(path, Frame(Kind.ANSWER, bytes(SMALL_BYTES + 1)), 5).kind is not refused
        return False

    refused = Kind.REFUSED
    running = Service(Desk(), lambda told: None, idle_seconds=0.5)
    with at_work(path, running), connected(path) as slow:
        send(slow, Frame(Kind.STATUS))
        receive(slow)
        slow.sendall(LARGE)
        _until(lambda: is_large(running) or select.select([slow], [], [], 0)[0])  # or it was
        with trickling(slow):
            _until(is_taken)


def test_whoever_keeps_up_the_pace_is_waited_for() -> None:
    gibibyte = MOST_LETTER_BYTES // LEAST_PACE
    assert [time_left(60, waited, 0) for waited in (0, 59, 60)] == [60, 1, 0]
    assert all(time_left(60, it, it * LEAST_PACE) == 60 for it in (1, 60, gibibyte))
    assert time_left(60, 100, 30 * LEAST_PACE) < 0
    assert time_left(60, 10, MOST_LETTER_BYTES) == 60


@contextmanager
def no_more_files() -> Iterator[None]:
    """Meanwhile this process can open nothing (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(it.name) for it in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in taken:
            os.close(file)


def test_a_service_that_had_no_file_left_for_a_connection_answers_the_next(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as waiting:
        with no_more_files():
            waiting.connect(str(service.path))  # by the call that waited with a file of its own
            _until(lambda: "no connection can be accepted" in caplog.text)
        assert service.ask(b"after").kind is Kind.ANSWERED


def test_a_service_that_had_no_thread_left_for_a_connection_answers_the_next(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    before = threading.stack_size(1 << 60)  # more than there are addresses
    try:
        reply = request(service.path, Frame(Kind.STATUS), PATIENT)
    finally:
        threading.stack_size(before)
    assert reply == Frame(Kind.REFUSED, b"too_many")
    _until(lambda: "a connection was turned away" in caplog.text)
    with all_taken(service.path):  # its place was given back
        pass


class Noticed(bytes):
    """A reply that says when nobody holds it any more."""

    gone: threading.Event

    def __del__(self) -> None:
        self.gone.set()


def test_a_service_that_waits_holds_neither_letter_nor_reply(tmp_path: Path) -> None:
    """Each may be of a gibibyte, and the next letter may come in a week."""
    turns, gone = weakref.WeakSet[_Turn](), threading.Event()

    class Watched(Desk):
        def handle(self, letter: bytes) -> bytes:
            turns.update(it for it in gc.get_objects() if type(it) is _Turn)
            reply = Noticed(super().handle(letter))
            reply.gone = gone
            return reply

    path = tmp_path / "site.sock"
    with (
        at_work(path, Service(Watched(), lambda told: None)),
        connected(path, PATIENT) as connection,
    ):
        send(connection, Frame(Kind.ANSWER, b"one"))
        assert receive(connection) == Frame(Kind.ANSWERED, b"answer to one")
        _until(lambda: not turns)
        assert gone.wait(PATIENT)


def test_what_was_heard_before_a_stop_is_remembered(tmp_path: Path) -> None:
    desk, path, told = Desk(), tmp_path / "site.sock", list[Told]()
    desk.wait.clear()
    running = Service(desk, told.append)
    with at_work(path, running) as worker:
        asking = [threading.Thread(target=_asked, args=(path,)) for _ in range(2)]
        for thread in asking:
            thread.start()
        _until(lambda: desk.at_once == 1 and running._turns.qsize() == 1)
        assert request(path, Frame(Kind.TELL, Told.BUNDLE.encode()), PATIENT) == Frame(Kind.HEARD)
        running.stop()  # behind a turn that is not taken any more
        desk.wait.set()
        worker.join(PATIENT)
    assert told == [Told.BUNDLE]
    for thread in asking:
        thread.join(PATIENT)


def _asked(path: Path) -> None:
    request(path, Frame(Kind.ANSWER, b"x"), PATIENT)


def test_what_comes_after_a_stop_is_remembered_or_refused(tmp_path: Path) -> None:
    desk, path, told = Desk(), tmp_path / "site.sock", list[Told]()
    desk.wait.clear()
    running = Service(desk, told.append)
    with at_work(path, running) as worker:
        asking = threading.Thread(target=_asked, args=(path,))
        with connected(path, PATIENT) as connection:
            send(connection, Frame(Kind.STATUS))
            receive(connection)  # it was accepted before
            asking.start()
            _until(lambda: desk.at_once == 1)
            running.stop()
            send(connection, Frame(Kind.TELL, Told.BUNDLE.encode()))
            reply = receive(connection)
            assert reply is not None
        desk.wait.set()
        worker.join(PATIENT)
    asking.join(PATIENT)
    assert (reply.kind is Kind.HEARD) == (told == [Told.BUNDLE])
