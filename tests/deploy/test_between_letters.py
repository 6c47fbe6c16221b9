"""What a hospital keeps in memory from one letter to the next, and what it makes lines of."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fedkd.deploy.consent import Desk
from fedkd.deploy.rehearsed import MARK, mark_of
from fedkd.wire import Answer, decode, encode, header_of
from tests.deploy.federated import Federated, approve, taken_in
from tests.deploy.test_policy import posed, question


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths of all that this process opens meanwhile (PEP 578: a hook itself stays)."""
    seen: list[str] = []
    listens = True

    def hook(event: str, told: tuple[object, ...]) -> None:
        if listens and event == "open":
            seen.append(str(told[0]))

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        listens = False


def test_records_are_read_once_however_many_letters_come(federated: Federated) -> None:
    east = federated.hospitals["east"]
    runs = [federated.proposed("audit.cosigners=0") for _ in range(2)]
    for run in runs:
        taken_in(federated, run)
        approve(federated, run)
    desk, records = Desk(east.folder, federated.build), east.site / "train.npz"
    shutil.copyfile(records, east.site / "anew")
    (east.site / "anew").replace(records)  # another file: whatever was kept is not of this one
    with opened_files() as seen:
        for run in runs:
            reply = desk.handle(encode(question(run)))
            assert isinstance(decode(reply, 1 << 20), Answer)
    assert seen.count(str(records)) == 1


def test_lines_about_a_letter_are_made_of_its_beginning(federated: Federated) -> None:
    """The rest may be of a gibibyte, and is not kept for them."""
    east, marks = federated.hospitals["east"], {}
    for rehearsal in (True, False):
        run = federated.proposed(rehearsal=rehearsal)
        taken_in(federated, run)
        letter = encode(question(run, posed(run)))
        _, place = header_of(letter)
        assert place < len(letter)
        marks[rehearsal] = {mark_of(east, it) for it in (letter, letter[:place])}
    assert marks == {True: {MARK}, False: {""}}
    assert mark_of(east, b"no letter") == ""
