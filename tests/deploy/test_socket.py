"""What the site service makes of whatever comes in at its socket."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedkd.deploy.service import MOST_CONNECTIONS, SMALL_BYTES, Service
from fedkd.deploy.socket import (
    HEAD_BYTES,
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
)

HIDDEN = "patient 4711 has syphilis"


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
        self.wait.wait(10)
        self.asked.append(letter)
        self.at_once -= 1
        if letter == b"fail":
            raise RuntimeError(HIDDEN)
        return b"answer to " + letter


class Running:
    def __init__(self, path: Path, desk: Desk, told: list[Told]) -> None:
        self.path, self.desk, self.told = path, desk, told

    def ask(self, letter: bytes) -> Frame:
        return request(self.path, Frame(Kind.ANSWER, letter), 10)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    desk, told = Desk(), list[Told]()
    running = Service(desk, told.append)
    worker = threading.Thread(target=running.work)
    with listening(tmp_path / "site.sock", 0o660) as listener:
        running.listen(listener)
        worker.start()
        yield Running(tmp_path / "site.sock", desk, told)
        desk.wait.set()
        running.stop()
        worker.join(10)


def _until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
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
        connection.settimeout(5)
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
    standing = json.loads(request(service.path, Frame(Kind.STATUS), 5).body)
    assert standing["busy_since"] is not None
    service.desk.wait.set()
    for thread in threads:
        thread.join(10)
    assert service.desk.most_at_once == 1
    assert json.loads(request(service.path, Frame(Kind.STATUS), 5).body)["turns"] == 4


def test_what_was_answered_is_taken_before_a_service_that_stops_has_ended(tmp_path: Path) -> None:
    desk, path, letter = Desk(), tmp_path / "site.sock", bytes(4 << 20)
    desk.wait.clear()
    running = Service(desk, lambda told: None)
    worker = threading.Thread(target=running.work)
    with listening(path, 0o660) as listener:
        running.listen(listener)
        worker.start()
        with connected(path) as connection:
            send(connection, Frame(Kind.ANSWER, letter))
            _until(lambda: desk.at_once == 1)
            running.stop()
            desk.wait.set()
            _until(lambda: desk.asked == [letter])
            worker.join(0.3)
            assert worker.is_alive()  # a socket holds less than this, and nobody took it yet
            assert receive(connection) == Frame(Kind.ANSWERED, b"answer to " + letter)
        worker.join(10)
        assert not worker.is_alive()


def test_a_line_that_cannot_be_made_of_a_letter_ends_nothing(tmp_path: Path) -> None:
    def failing(letter: bytes) -> str:
        raise RuntimeError(HIDDEN)

    running = Service(Desk(), lambda told: None, mark=failing)
    worker = threading.Thread(target=running.work)
    with listening(tmp_path / "site.sock", 0o660) as listener:
        running.listen(listener)
        worker.start()
        for letter in (b"one", b"two"):
            reply = request(tmp_path / "site.sock", Frame(Kind.ANSWER, letter), 10)
            assert reply == Frame(Kind.ANSWERED, b"answer to " + letter)
        running.stop()
        worker.join(10)
        assert not worker.is_alive()


def test_too_many_connections_are_told_so(service: Running) -> None:
    open_ones = []
    try:
        for _ in range(MOST_CONNECTIONS):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(service.path))
            open_ones.append(one)
        time.sleep(0.1)
        reply = request(service.path, Frame(Kind.STATUS), 5)
        assert reply == Frame(Kind.REFUSED, b"too_many")
    finally:
        for one in open_ones:
            one.close()
    _until(lambda: service.ask(b"x").kind is Kind.ANSWERED)


def test_what_a_letterbox_refused_is_remembered(service: Running) -> None:
    reply = request(service.path, Frame(Kind.TELL, Told.AGENTAPP.encode()), 5)
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
    asking.join(10)
    service.ask(b"after")
    assert service.told == [Told.BUNDLE]
    request(service.path, Frame(Kind.TELL, Told.BUNDLE.encode()), 5)
    _until(lambda: service.told == [Told.BUNDLE] * 2)  # told later, it is heard again


def test_one_large_letter_at_a_time_is_taken_into_memory(service: Running) -> None:
    large = MAGIC + bytes([Kind.ANSWER]) + (SMALL_BYTES + 1).to_bytes(8, "big")
    with connected(service.path) as first, connected(service.path) as second:
        second.settimeout(5)
        first.sendall(large + b"x")
        time.sleep(0.2)
        second.sendall(large + b"x")
        assert receive(second) == Frame(Kind.REFUSED, b"too_many")
        assert service.ask(b"small").kind is Kind.ANSWERED
        first.sendall(bytes(SMALL_BYTES))
        answer = receive(first)
        assert answer is not None
        assert answer.kind is Kind.ANSWERED
    assert service.ask(bytes(SMALL_BYTES + 1)).kind is Kind.ANSWERED


def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Away):
        request(tmp_path / "none.sock", Frame(Kind.STATUS), 1)


def test_a_socket_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with listening(deep / "site.sock", 0o600) as listener:
        listener.settimeout(5)
        with connected(deep / "site.sock") as connection:
            connection.sendall(b"x")
            served, _ = listener.accept()
            with served:
                assert served.recv(1) == b"x"
