"""Every line that a site service writes for machines is one JSON object, whatever happens to it."""

import json
from pathlib import Path

import pytest

from fedkd.deploy.socket import Frame, Kind, Told, request
from fedkd.wire import Present, RollCall, encode
from tests.deploy.federated import Federated
from tests.deploy.services import SECONDS, Service, until

pytestmark = pytest.mark.slow


class InJson(Service):
    """A service that is started with --log-format json."""

    def command(self) -> list[str]:
        return [*super().command(), "--log-format", "json"]


def test_every_line_parses_after_turns_and_after_what_went_wrong(
    federated: Federated, tmp_path: Path
) -> None:
    hospital = federated.hospitals["north"]
    service = InJson(hospital, tmp_path / "service.log")
    service.start()
    try:
        letters = (RollCall("run-1"), RollCall("run-2"), Present("north", "run-1", "fedkd"))
        for letter in (*map(encode, letters), b"no letter", b"\n{not json\n"):
            assert service.ask(letter).kind is Kind.ANSWERED
        tell(service, Told.BUNDLE)
        # One thread takes turns and remembers: when this is answered the first is remembered.
        assert service.ask(encode(RollCall("run-3"))).kind is Kind.ANSWERED
        assert service.entries("release.refused")
        # What cannot be kept is told with a traceback: lines of a text, in one line of the log.
        (hospital.site / "log.sqlite").rename(tmp_path / "away")
        (hospital.site / "log.sqlite").mkdir()
        tell(service, Told.MODEL)
        until(lambda: "Traceback" in service.log.read_text())
    finally:
        service.kill()
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert {line["from"] for line in lines} == {"service"}
    assert [line["turn"] for line in lines if "turn" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["refused"] for line in lines if "refused" in line] == ["bundle", "task flwr-model"]
    (failed,) = [line for line in lines if "Traceback" in line["said"]]
    assert failed["level"] == "error"
    assert failed["said"].count("\n") > 3


def tell(service: Service, told: Told) -> None:
    request(service.hospital.socket, Frame(Kind.TELL, told.encode()), SECONDS)
