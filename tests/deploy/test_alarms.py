"""docs/alarms.md: whoever looks up what the program said finds it, in its own words."""

import re
from pathlib import Path

import pytest

from fedkd.deploy.node_words import untrusted, without_tunnel
from fedkd.deploy.starting import explain_node
from fedkd.federation.asking import CRASHED, GONE, NOT_ADMITTED, SILENT
from fedkd.federation.flower.asking import UNREADABLE
from fedkd.federation.flower.node import ENDS, PROXY, REFUSED, refused
from fedkd.wire import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "alarms.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| .+ \| .+ \| .+ \|$", PAGE, re.MULTILINE)
PHRASES = [phrase for row in ROWS for phrase in re.findall(r"`([^`]+)`", row)]
CODES = ("certificate has expired", "certificate is not yet valid", "Hostname mismatch",
         "IP address mismatch", "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")  # fmt: skip


def stands_for(phrase: str, said: str) -> bool:
    """Whether what was said holds a phrase of the page, whose dots stand for anything."""
    return all(part.strip() in said for part in phrase.split("..."))


@pytest.mark.parametrize("reason", Reason)
def test_each_word_of_a_refusal_has_a_row(reason: Reason) -> None:
    assert str(reason) in PHRASES


@pytest.mark.parametrize(
    "said",
    [
        *(str(untrusted(code, "there:8443")) for code in CODES),
        *(explain_node(f"{ENDS}{why}\n")[0] for why in (
            "flower-superexec, which starts its tasks, ended",
            "a thread of Flower's ended by OSError", "it stopped asking", "Flower raised OSError",
        )),
        explain_node(f"{REFUSED}{refused('Mon, 30 Nov 2026 10:00:00 GMT', 0.0)}\n")[0],
        explain_node("Exit Code: 101")[0],
        GONE, CRASHED, NOT_ADMITTED, SILENT, UNREADABLE,
        *(without_tunnel(f"{PROXY}{status}", "there:8443") for status in (403, 407, 503, "none")),
    ],
)  # fmt: skip
def test_what_the_node_or_a_run_says_has_a_row(said: str) -> None:
    assert any(stands_for(phrase, said) for phrase in PHRASES), said
