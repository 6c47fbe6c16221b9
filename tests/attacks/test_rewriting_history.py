"""Histories that somebody rolls back, rewrites or splits, in real federations: each is noticed."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context
from flwr.app import Message as Letter
from flwr.clientapp import ClientApp

from clients.app import app as client_app
from fedkd.audit import SERVER, Log, Roster, cosign, hear, stands
from fedkd.audit.keys import FOLDER, witness_keys
from fedkd.audit.verify import Note, Refuted, Signature, TrustPolicy
from fedkd.cli.conduct import conduct, server_log
from fedkd.cli.run import Run
from fedkd.federation import witnessing
from fedkd.federation.checkpoint import ServerFolder
from fedkd.federation.participant import Participant
from fedkd.federation.site import SiteFolder
from fedkd.federation.witnessing import roster_of
from fedkd.knowledge import BadInput
from fedkd.wire import Answer, Envelope, Message, Reason, Refusal, cover, decode, encode, opened
from tests.federation.small import Wiretap, conducted, finished, founded, question

FIRST_ROUND, THIRD_ROUND = 3, 5
"""Counted in sendings: two roll calls come before the first round."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return founded(tmp_path / "run", "audit.cosigners=5", "rounds=3")


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Wiretap]:
    """A run that is over, and what was said in it; copy a site before you ask it anything."""
    run = founded(tmp_path_factory.mktemp("over") / "run", "audit.cosigners=5")
    grid = Wiretap(run)
    finished(run, grid)
    return run, grid


class Interfering(Wiretap):
    """A grid on which something happens just before the n-th sending."""

    def __init__(self, run: Run, happens: dict[int, Callable[[], object]]) -> None:
        super().__init__(run)
        self._happens, self._sendings = happens, 0

    def push_messages(self, messages: Any) -> list[str]:
        self._sendings += 1
        self._happens.get(self._sendings, lambda: None)()
        return super().push_messages(messages)


def left_out(run: Run) -> dict[str, list[str]]:
    state = ServerFolder(run.folder / "server").load()
    return {site: [it["reason"] for it in told] for site, told in state.left_out.items()}


def events(log_of: Path, party: str, type: str) -> list[Any]:
    with Log(log_of / "log.sqlite", party) as log:
        return [entry.body for entry in log.entries(type)]


def length(folder: Path) -> int:
    with SiteFolder(folder).log(folder.name) as log:
        return len(log)


def rewrite(folder: Path, party: str, forged: int) -> None:
    """The holder of the key writes the whole log again, with another body in one entry."""
    with Log(folder / "log.sqlite", party) as log:
        entries = list(log.entries())
    for path in folder.glob("log.sqlite*"):
        path.unlink()
    with Log(folder / "log.sqlite", party) as log:
        for entry in entries:
            body = dict(entry.body)
            if entry.index == forged:
                body["run"] = "another"
            log.append(entry.key, entry.type, body)


def test_where_nobody_lies_nobody_is_left_out(run: Run) -> None:
    conducted(run)
    assert left_out(run) == {}


def test_an_old_backup_restored_at_a_site_does_nothing_more(run: Run, tmp_path: Path) -> None:
    site, backup = run.sites["site-02"], tmp_path / "backup"

    def restore() -> None:
        shutil.rmtree(site)
        shutil.copytree(backup, site)

    happens = {FIRST_ROUND + 1: lambda: shutil.copytree(site, backup), THIRD_ROUND: restore}
    conducted(run, Interfering(run, happens))
    assert left_out(run) == {"site-02": ["refused: rolled_back"] * 2}
    assert length(site) == length(backup), "something was written into an old copy"
    assert "do not hold them" in (site / "errors.txt").read_text()
    assert events(run.sites["site-01"], "site-01", "release.outputs")[-1]["round"] == 3


def test_an_old_backup_of_the_server_does_not_go_on(run: Run, tmp_path: Path) -> None:
    server, backup = run.folder / "server", tmp_path / "backup"
    happens = {THIRD_ROUND: lambda: shutil.copytree(server, backup)}
    conducted(run, Interfering(run, happens))
    shutil.rmtree(server)
    shutil.copytree(backup, server)
    with server_log(run) as log:
        before = len(log)
        with pytest.raises(BadInput, match="restored from an old copy"):
            conduct(run, Wiretap(run), log)
        assert len(log) == before


def test_one_site_that_claims_to_have_seen_more_is_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claims(log: Log, roster: Roster) -> tuple[tuple[str, int], ...]:
        told = stands(log, roster)
        return tuple((o, n + 999) for o, n in told) if log.party == "site-02" else told

    monkeypatch.setattr(witnessing, "stands", claims)
    conducted(run)
    why = "it says that it cosigned more of the server's log than there is"
    assert left_out(run) == {"site-02": [why] * 4}


def test_a_site_that_rewrote_its_log_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder of the key changes an entry, and software that would notice at home."""

    def unheard(log: Log, roster: Roster, notes: Sequence[str], now: int) -> dict[str, int]:
        if log.party == "site-02":
            return dict.fromkeys(roster.cosigners, now)
        return hear(log, roster, notes, now)

    def forge() -> None:
        monkeypatch.setattr(witnessing, "hear", unheard)
        rewrite(run.sites["site-02"], "site-02", forged=4)

    conducted(run, Interfering(run, {THIRD_ROUND: forge}))
    assert left_out(run) == {"site-02": ["its log does not go on from what was cosigned"] * 2}
    said = events(run.folder / "server", SERVER, "error.raised")[0]
    assert (said["kind"], said["component"]) == ("another history", "site-02")


def test_a_site_that_finds_its_own_log_rewritten_does_nothing_more(run: Run) -> None:
    happens = {THIRD_ROUND: lambda: rewrite(run.sites["site-02"], "site-02", forged=4)}
    conducted(run, Interfering(run, happens))
    assert left_out(run) == {"site-02": ["refused: rolled_back"] * 2}


def test_a_server_that_rewrote_its_log_is_answered_by_nobody(run: Run) -> None:
    conducted(run)
    with server_log(run) as log:
        admitted = next(log.entries("answers.admitted"))
    rewrite(run.folder / "server", SERVER, forged=admitted.index)
    (run.folder / "server" / "checkpoint.json").unlink()
    with server_log(run) as log:
        conduct(run, Wiretap(run), log)
    assert left_out(run) == {site: ["refused: forked"] for site in run.sites}
    for site, folder in run.sites.items():
        (said,) = events(folder, site, "error.raised")
        assert (said["kind"], said["component"]) == ("another history", SERVER)


def test_two_heads_shown_to_different_parties_reach_no_two_quorums(
    over: tuple[Run, Wiretap], tmp_path: Path
) -> None:
    run, _ = over
    left, right = tmp_path / "left", tmp_path / "right"
    for folder, outcome in ((left, "one thing"), (right, "another thing")):
        shutil.copytree(run.folder / "server", folder)
        with Log(folder / "log.sqlite", SERVER) as log:
            log.append("shown", "run.ended", {"run": run.id, "outcome": outcome})
    notes: dict[Path, Note] = {}
    policy: TrustPolicy | None = None
    for shown, sites in ((left, ["site-01", "site-03"]), (right, ["site-02"])):
        with Log(shown / "log.sqlite", SERVER) as log:
            policy = run.federation().rosters()[SERVER].policy(log.verifier())
            notes[shown] = log.ask(0).note
            for site in sites:
                folder = Path(shutil.copytree(run.sites[site], tmp_path / shown.name / site))
                with SiteFolder(folder).log(site) as own:
                    roster = roster_of(own)
                    assert roster is not None
                    seen = own.seen()[log.origin].size
                    asks = [log.ask(seen).to_bytes().decode()]
                    cosigned = cosign(own, roster, asks, int(time.time()))
                    notes[shown] = notes[shown].with_signatures(cosigned.notes[0].signatures)
                    if site == "site-02":  # whoever saw one head never signs the other
                        with Log(left / "log.sqlite", SERVER) as other:
                            ask = other.ask(len(other)).to_bytes().decode()
                            assert cosign(own, roster, [ask], 2).problems.keys() == {log.origin}
    assert policy is not None
    assert len(policy.witnessed(notes[left]).cosigned) == 2
    with pytest.raises(Refuted, match="quorum"):
        policy.witnessed(notes[right])


# A site that is asked once more after a run, with envelopes that somebody touched.


@pytest.fixture
def site(over: tuple[Run, Wiretap], tmp_path: Path) -> Path:
    return Path(shutil.copytree(over[0].sites["site-01"], tmp_path / "site-01"))


def newest_cover(over: tuple[Run, Wiretap], folder: Path) -> Envelope:
    """What an honest server would bring site-01 now, from what everybody cosigned last."""
    run, _ = over
    note = Note.parse((run.folder / "server" / "site-01.checkpoint").read_bytes())
    return Envelope(notes=(note.to_bytes().decode(),))


def replied(
    over: tuple[Run, Wiretap], folder: Path, envelope: Envelope | None, later: float = 0
) -> Message:
    run, _ = over
    body = encode(question(run, round=4))
    letter = body if envelope is None else cover(envelope) + body
    site = Participant(SiteFolder(folder), run.build, clock=lambda: time.time() + later)
    return decode(opened(site.answer(letter))[1], 1 << 20)


def not_fresh(over: tuple[Run, Wiretap]) -> Refusal:
    return Refusal("site-01", over[0].id, 4, Reason.NOT_FRESH)


def test_a_site_acts_on_what_its_peers_said_lately(over: tuple[Run, Wiretap], site: Path) -> None:
    assert isinstance(replied(over, site, newest_cover(over, site)), Answer)


def test_a_site_that_hears_nothing_of_its_peers_does_not_act(
    over: tuple[Run, Wiretap], site: Path
) -> None:
    assert replied(over, site, None) == not_fresh(over)
    assert replied(over, site, Envelope()) == not_fresh(over)
    # it said so, and is back as soon as peers are
    assert events(site, "site-01", "release.refused")[-1]["rule"] == "not_fresh"
    assert isinstance(replied(over, site, newest_cover(over, site)), Answer)


def test_a_site_that_hears_old_words_of_its_peers_does_not_act(
    over: tuple[Run, Wiretap], site: Path
) -> None:
    day = over[0].config["audit"]["most_age"]
    assert replied(over, site, newest_cover(over, site), later=day + 60) == not_fresh(over)
    assert isinstance(replied(over, site, newest_cover(over, site), later=day - 60), Answer)


def test_words_from_the_future_do_not_count(over: tuple[Run, Wiretap], site: Path) -> None:
    assert replied(over, site, newest_cover(over, site), later=-3600) == not_fresh(over)


def test_too_few_peers_are_not_enough(over: tuple[Run, Wiretap], site: Path) -> None:
    (text,) = newest_cover(over, site).notes
    note = Note.parse(text.encode())
    assert len(note.signatures) == 1 + 3
    few = Note(note.text, note.signatures[:2]).to_bytes().decode()
    assert replied(over, site, Envelope(notes=(few,))) == not_fresh(over)
    enough = Note(note.text, note.signatures[:3]).to_bytes().decode()
    assert isinstance(replied(over, site, Envelope(notes=(enough,))), Answer)


@pytest.mark.parametrize("flipped", [0, 3, 8, 40, 71], ids=lambda at: f"byte {at}")
def test_a_forged_cosignature_does_not_count(
    flipped: int, over: tuple[Run, Wiretap], site: Path
) -> None:
    """Bytes of the time and of the signature: a replay is not made fresh by another time."""
    (text,) = newest_cover(over, site).notes
    note = Note.parse(text.encode())
    forged = []
    for line in note.signatures[1:]:
        content = bytearray(line.content)
        content[flipped] ^= 1
        forged.append(Signature(line.name, line.key_id, bytes(content)))
    text = Note(note.text, (note.signatures[0], *forged)).to_bytes().decode()
    assert replied(over, site, Envelope(notes=(text,))) == not_fresh(over)


def test_a_peer_cannot_stop_a_site_with_an_invention(
    over: tuple[Run, Wiretap], site: Path, tmp_path: Path
) -> None:
    """It signs a longer log than there ever was; the site's own key did not, so it is nothing."""
    run, _ = over
    invented = tmp_path / "invented"
    invented.mkdir()
    shutil.copytree(site / FOLDER, invented / FOLDER)
    (invented / FOLDER / "log.key").unlink()
    with Log(invented / "log.sqlite", "site-01") as log, SiteFolder(site).log("site-01") as own:
        for number in range(99):
            log.append(str(number), "run.started", {})
        (text,) = newest_cover(over, site).notes
        head = replace(log.ask(0).note.checkpoint(), origin=own.origin)
        key = witness_keys(run.sites["site-02"])[0]
        lines = (key.sign(head.text(), int(time.time())),)
        lie = Note(head.text(), (*log.ask(0).note.signatures, *lines)).to_bytes().decode()
    assert isinstance(replied(over, site, Envelope(notes=(lie, text))), Answer)


def test_a_log_of_which_peers_hold_more_does_nothing(
    over: tuple[Run, Wiretap], site: Path, tmp_path: Path
) -> None:
    ahead = Path(shutil.copytree(site, tmp_path / "ahead" / "site-01"))
    with SiteFolder(ahead).log("site-01") as log:
        log.append("more", "access.performed", {"who": "somebody"})
        bare = log.ask(0).note
    key = witness_keys(over[0].sites["site-02"])[0]
    note = bare.with_signatures([key.sign(bare.text, int(time.time()))])
    envelope = Envelope(notes=(note.to_bytes().decode(), *newest_cover(over, site).notes))
    before = length(site)
    assert replied(over, site, envelope) == Refusal("site-01", over[0].id, 4, Reason.ROLLED_BACK)
    assert length(site) == before


NONSENSE = ["x", "old 1\n\n", "old -1\n\nnothing", "\u2014 a b\n", "old 0\n\na\n1\n\u0000\n\n"]


@pytest.mark.parametrize("text", NONSENSE, ids=ascii)
def test_nonsense_in_an_envelope_stops_nobody(
    text: str, over: tuple[Run, Wiretap], site: Path
) -> None:
    notes = (text, *newest_cover(over, site).notes)
    assert isinstance(replied(over, site, Envelope(asks=(text,), notes=notes)), Answer)


def test_a_malformed_envelope_is_refused(over: tuple[Run, Wiretap], site: Path) -> None:
    run, _ = over
    letter = b"fedkd-envelope/1\n\xff\xff\xff\xff" + encode(question(run, round=4))
    said = decode(Participant(SiteFolder(site), run.build).answer(letter), 1 << 20)
    assert said == Refusal("site-01", "unknown", 0, Reason.MALFORMED)


def test_one_absent_site_stops_nobody(run: Run) -> None:
    app = ClientApp()

    @app.query("answer")
    def answer(message: Letter, context: Context) -> Letter:
        if Path(context.node_config["site"]).name == "site-03":
            raise ConnectionError
        return client_app(message, context)

    state = conducted(run, Wiretap(run, app))
    assert state.round == 3
    assert set(left_out(run)) == {"site-03"}
    for name in ("site-01", "site-02"):
        rounds = [body["round"] for body in events(run.sites[name], name, "release.outputs")]
        assert rounds == [1, 2, 3]


def test_a_whole_log_and_its_quorum_are_what_an_auditor_needs(over: tuple[Run, Wiretap]) -> None:
    """Every party's last head is cosigned by everybody else, over every entry that it has."""
    run, _ = over
    rosters = run.federation().rosters()
    folders = {SERVER: run.folder / "server", **run.sites}
    for party, folder in folders.items():
        note = Note.parse((run.folder / "audit" / f"{party}.checkpoint").read_bytes())
        policy = TrustPolicy.parse((run.folder / "audit" / f"{party}.policy").read_bytes())
        with Log(folder / "log.sqlite", party) as log:
            assert policy == rosters[party].policy(log.verifier())
            assert len(policy.witnessed(note).cosigned) == 3
            assert note.checkpoint().size == len(log)
            assert log.root(len(log)) == note.checkpoint().root
