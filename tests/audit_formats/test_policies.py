"""Policies: who must have signed, what must have been seen; empty is a failure."""

import math

import pytest

from fedkd.audit.verify import (
    AllOf,
    AnyOf,
    Checkpoint,
    Continues,
    Fresh,
    Malformed,
    Note,
    Policy,
    PolicyGroup,
    PolicyLog,
    PolicyWitness,
    Refuted,
    SigningKey,
    TrustPolicy,
    Whole,
    cosign,
    default_threshold,
    quorum_row,
    quorum_table,
)
from tests.audit_formats.parties import (
    LOG,
    LOG_TYPE,
    NOW,
    ORIGIN,
    WITNESS_TYPE,
    WITNESSES,
    head,
    key,
    note,
    seed,
    signed,
    tree,
)

NAMES = ("a", "b", "c")
COSIGNERS = {name: w.verifier() for name, w in zip(NAMES, WITNESSES, strict=True)}
TWO_OF_THREE = TrustPolicy.of([LOG.verifier()], COSIGNERS, 2)
LOG_LINE = f"log {LOG.verifier().text()}\n"
WITNESS_LINES = "".join(f"witness {name} {key.text()}\n" for name, key in COSIGNERS.items())
FILE = LOG_LINE + WITNESS_LINES + "group g 2 a b c\nquorum g\n"


def parsed(text: str) -> TrustPolicy:
    return TrustPolicy.parse(text.encode("utf-8", "surrogateescape"))


def cosigned_by(*names: str, size: int = 7) -> Note:
    checkpoint = head(size)
    by = dict(zip(NAMES, WITNESSES, strict=True))
    more = (cosign(by[name], checkpoint, NOW) for name in names)
    return signed(checkpoint).with_signatures(more)


@pytest.mark.parametrize("names", ["ab", "ac", "bc", "abc"])
def test_a_quorum_is_enough(names: str) -> None:
    found = TWO_OF_THREE.witnessed(cosigned_by(*names))
    assert found.checkpoint == head(7)
    assert found.logs == (LOG.verifier(),)
    assert found.cosigned == dict.fromkeys(names, NOW)


@pytest.mark.parametrize("names", ["", "a", "c"])
def test_less_than_a_quorum_is_refused_by_name(names: str) -> None:
    found = names or "nobody"
    with pytest.raises(Refuted, match=f"count by {found}, expected 2 of 3: a, b, c"):
        TWO_OF_THREE.verify(tree(7), cosigned_by(*names))


def test_one_cosigner_twice_is_one_cosigner() -> None:
    checkpoint = head(7)
    twice = (cosign(WITNESSES[0], checkpoint, NOW + late) for late in (0, 1))
    with pytest.raises(Refuted, match="count by a,"):
        TWO_OF_THREE.witnessed(signed(checkpoint).with_signatures(twice))


def test_cosigners_without_the_log_are_refused() -> None:
    checkpoint = head(7)
    lines = tuple(cosign(w, checkpoint, NOW) for w in WITNESSES)
    with pytest.raises(Refuted, match="no signature by its log"):
        TWO_OF_THREE.witnessed(Note(checkpoint.text(), lines))


def test_a_log_that_is_not_named_is_refused() -> None:
    other = key("fedkd.example/h2")
    foreign = signed(head(7, origin="fedkd.example/h2"), by=other, cosigners=3)
    with pytest.raises(Refuted, match=f"expected one of: {ORIGIN}"):
        TWO_OF_THREE.witnessed(foreign)
    # another accepted log's key does not sign for this one
    both = TrustPolicy.of([LOG.verifier(), other.verifier()], COSIGNERS, 2)
    with pytest.raises(Refuted, match="no signature by its log"):
        both.witnessed(signed(head(7), by=other, cosigners=3))


def test_a_policy_that_names_no_log_verifies_nothing() -> None:
    empty = parsed("quorum none\n")
    assert not empty.needs_cosigners
    with pytest.raises(Refuted, match="one of: none"):
        empty.verify(tree(7), note(7, cosigners=3))


def test_without_cosigners_the_log_alone_suffices_and_the_policy_says_so() -> None:
    alone = parsed(LOG_LINE + "quorum none\n")
    alone.verify(tree(7), note(7))
    assert not alone.needs_cosigners
    assert TWO_OF_THREE.needs_cosigners


def test_groups_of_groups() -> None:
    nested = parsed(
        f"# a comment\n\n\t{LOG_LINE}{WITNESS_LINES}  group\tall-of all a b \n"
        "group any-of any all-of c\nquorum any-of\n"
    )
    for names in ("ab", "c", "ac"):
        nested.witnessed(cosigned_by(*names))
    for names in ("", "a", "b"):
        with pytest.raises(Refuted):
            nested.witnessed(cosigned_by(*names))
    single = parsed(LOG_LINE + WITNESS_LINES + "quorum b\n")
    single.witnessed(cosigned_by("b"))
    with pytest.raises(Refuted, match="expected one by b"):
        single.witnessed(cosigned_by("a", "c"))


def test_a_policy_is_written_and_read() -> None:
    assert TrustPolicy.parse(TWO_OF_THREE.text()) == TWO_OF_THREE
    full = TrustPolicy(
        (PolicyLog(LOG.verifier(), "https://h1.example/"),),
        (PolicyWitness("w\udcff", WITNESSES[0].verifier(), "https://w.example/"),),
        (PolicyGroup("caf\xe9", 1, ("w\udcff",)),),
        "caf\xe9",
    )
    assert TrustPolicy.parse(full.text()) == full  # octets that are no UTF-8 stay as they are


W = WITNESS_LINES.splitlines(keepends=True)
STRANGER = key("fedkd.example/stranger").verifier().text()
STRANGE_WITNESS = key("fedkd.example/stranger", WITNESS_TYPE).verifier().text()
RENAMED = SigningKey("fedkd.example/renamed", WITNESS_TYPE, WITNESSES[0].seed).verifier().text()
QUORUM = "quorum g\n"


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        ("empty", ""),
        ("no quorum", FILE.replace(QUORUM, "")),
        ("two quorums", FILE + QUORUM),
        ("cut in its last line", FILE[:-1]),
        ("carriage return", FILE.replace("\n", "\r\n", 1)),
        ("null", FILE.replace("g 2", "g\0 2")),
        ("delete", FILE.replace("g 2", "g\x7f 2")),
        ("a word that is no verb", FILE + "threshold 3\n"),
        ("a verb in capitals", FILE.replace("log ", "LOG ")),
        ("a log without key", FILE + "log\n"),
        ("a log of four words", LOG_LINE[:-1] + " url # comment\nquorum none\n"),
        ("a log with a witness's key", f"log {STRANGE_WITNESS}\n{FILE}"),
        ("a witness with a log's key", f"{FILE}witness d {STRANGER}\n"),
        ("cut behind its quorum", f"{FILE}log {STRANGER}"),
        ("one key under two key names", f"{FILE}witness d {RENAMED}\n"),
        ("a witness without key", FILE + "witness d\n"),
        ("a witness called none", FILE.replace("witness a", "witness none")),
        ("a broken key", FILE.replace("+A", "+B", 1)),
        ("a log twice", LOG_LINE + FILE),
        ("a witness twice", FILE.replace(W[0], W[0] + W[0])),
        ("one key under two names", FILE.replace(W[1], W[0].replace(" a ", " b "))),
        ("a group twice", FILE.replace(QUORUM, "group g 1 a\n" + QUORUM)),
        ("a group called as a witness", FILE.replace("group g", "group a")),
        ("a group without members", FILE.replace(" a b c", "")),
        ("a group of none", FILE.replace("a b c", "a none")),
        ("a group that asks for nothing", FILE.replace("g 2", "g 0")),
        ("a group that asks too much", FILE.replace("g 2", "g 4")),
        ("a threshold that is no number", FILE.replace("g 2", "g most")),
        ("a threshold with zeros", FILE.replace("g 2", "g 02")),
        ("a member that comes later", LOG_LINE + "group g 1 a\n" + WITNESS_LINES + QUORUM),
        ("a member of itself", FILE.replace("a b c", "a b g")),
        ("a member twice", FILE.replace("a b c", "a b b")),
        ("a member of two groups", FILE.replace(QUORUM, "group h 1 a\n" + QUORUM)),
        ("a quorum that comes first", LOG_LINE + QUORUM + FILE.replace(QUORUM, "")),
        ("a quorum of nobody", FILE.replace(QUORUM, "quorum x\n")),
        ("a quorum of two", FILE.replace(QUORUM, "quorum a b\n")),
        ("lines without end", FILE + "log x\n" * 1001),
        ("bytes without end", FILE + "#" * 1_000_000 + "\n"),
    ],
)
def test_a_file_that_is_no_policy(defect: str, text: str) -> None:
    assert text != FILE
    parsed(FILE)
    with pytest.raises(Malformed):
        parsed(text)


def test_attack_one_key_used_for_log_and_witness() -> None:
    secret = seed("both")
    log, witness = (SigningKey("both", type_, secret) for type_ in (LOG_TYPE, WITNESS_TYPE))
    with pytest.raises(Malformed, match="one key as log and witness w, expected two keys"):
        TrustPolicy.of([log.verifier()], {"w": witness.verifier()}, 1)
    with pytest.raises(Malformed, match="one key as log and witness"):
        parsed(f"log {log.verifier().text()}\nwitness w {witness.verifier().text()}\nquorum w\n")


def test_only_cosignatures_of_their_time_count() -> None:
    checkpoint = head(7)
    lines = (
        cosign(w, checkpoint, NOW + late) for late, w in zip((0, 10, 20), WITNESSES, strict=True)
    )
    newest = signed(checkpoint).with_signatures(lines)
    Fresh(TWO_OF_THREE, NOW, NOW + 10).verify(tree(7), newest)
    Fresh(TWO_OF_THREE, NOW + 10, NOW + 20).verify(tree(7), newest)
    for first, last in ((NOW + 11, NOW + 99), (NOW - 99, NOW + 9), (NOW + 1, NOW + 19)):
        with pytest.raises(Refuted, match="2 of 3"):
            Fresh(TWO_OF_THREE, first, last).verify(tree(7), newest)
    with pytest.raises(Refuted, match="without cosigners"):
        Fresh(parsed(LOG_LINE + "quorum none\n"), 0, NOW).verify(tree(7), note(7))


def test_entries_must_be_all_that_the_checkpoint_speaks_of() -> None:
    Whole().verify(tree(7), note(7))
    Whole().verify(tree(0), note(0))
    for entries, found in ((6, "found 6 entries, expected 7"), (8, "found 8 entries, expected 7")):
        with pytest.raises(Refuted, match=found):
            Whole().verify(tree(entries), note(7))
    with pytest.raises(Refuted, match=f"expected root {head(7).root.hex()}"):
        Whole().verify(tree(7, of="another entry"), note(7))


def test_what_was_seen_before_must_still_be_there() -> None:
    kept = Continues((head(3), head(5), head(9, origin="fedkd.example/h2")))
    kept.verify(tree(7), note(7))
    kept.verify(tree(5), note(5))
    with pytest.raises(Refuted, match="size 4, a roll-back, expected at least 5"):
        kept.verify(tree(4), note(4))
    with pytest.raises(Refuted, match=r"first 3 entries .* another history"):
        kept.verify(tree(7, of="another entry"), note(7, of="another entry"))
    with pytest.raises(Refuted, match="no earlier checkpoint of this log"):
        Continues((head(9, origin="fedkd.example/h2"),)).verify(tree(7), note(7))
    with pytest.raises(Refuted, match="no earlier checkpoint"):
        Continues(()).verify(tree(7), note(7))


def test_policies_compose_and_an_empty_one_is_a_failure() -> None:
    good, bad = Whole(), Continues((head(7, of="another entry"),))
    every: list[Policy] = [
        AllOf((good, TWO_OF_THREE)),
        AnyOf((bad, good)),
        AllOf((AnyOf((good,)),)),
    ]
    for policy in every:
        policy.verify(tree(7), cosigned_by("a", "b"))
    for policy in (AllOf((good, bad)), AllOf((bad, good)), AnyOf((bad, bad))):
        with pytest.raises(Refuted, match="another history"):
            policy.verify(tree(7), note(7))
    for empty in (AllOf(()), AnyOf(()), AllOf((good, AllOf(()))), AnyOf((AllOf(()),))):
        with pytest.raises(Refuted, match="empty"):
            empty.verify(tree(7), note(7))


def test_the_table_of_quorums() -> None:
    """AUDIT A2: two heads need 2k - n cosigners that sign both; n - k may be absent."""
    table = quorum_table()
    assert [row.cosigners for row in table] == [*range(2, 11)]
    for n, k, liars, absent in table:
        assert k == max(1, min(n - 1, math.ceil(3 * n / 4)))
        assert (liars, absent) == (2 * k - n - 1, n - k)
        assert absent >= 1  # one that is absent never stops the others
        assert liars >= 0 or n == 2
    assert quorum_row(3, 2)[2:] == (0, 1)  # a single lying cosigner splits the view
    assert quorum_row(5)[1:] == (4, 2, 1)
    assert quorum_row(2)[1:] == (1, -1, 1)  # of two, one may be absent: then one can split
    assert quorum_row(2, 2)[1:] == (2, 1, 0)
    assert quorum_row(4, 2).liars == -1  # two disjoint quorums: no liar is needed
    assert default_threshold(1) == 1
    for wrong in ((3, 0), (3, 4)):
        with pytest.raises(ValueError, match="expected 1 to 3"):
            quorum_row(*wrong)
    with pytest.raises(ValueError, match="at least one"):
        default_threshold(0)


@pytest.mark.parametrize("n", range(2, 7))
def test_the_number_of_liars_is_what_counting_finds(n: int) -> None:
    """Cosigners sign the left head, the right one, or, lying, both: the least liars for a split."""
    for k in range(1, n + 1):
        least = min(
            (
                both
                for both in range(n + 1)
                for left in range(n - both + 1)
                if left + both >= k and n - left >= k
            ),
        )
        assert quorum_row(n, k).liars == least - 1


def test_attack_split_view_cannot_reach_two_quorums() -> None:
    """With n = 5 and k = 4, two lying cosigners give the second head no quorum."""
    keys = [key(f"w{n}", WITNESS_TYPE) for n in range(5)]
    row = quorum_row(5)
    policy = TrustPolicy.of([LOG.verifier()], {k.name: k.verifier() for k in keys}, row.threshold)

    def offered(of: str, by: list[SigningKey]) -> Note:
        checkpoint: Checkpoint = head(9, of)
        return signed(checkpoint).with_signatures(cosign(k, checkpoint, NOW) for k in by)

    policy.witnessed(offered("entry", keys[: row.threshold]))
    liars = keys[: row.liars]
    with pytest.raises(Refuted, match="quorum"):
        policy.witnessed(offered("another entry", [*liars, *keys[row.threshold :]]))


def test_a_policy_that_is_not_read_from_a_file_is_checked_as_well() -> None:
    logs = (PolicyLog(LOG.verifier()),)
    a, b = (PolicyWitness(name, COSIGNERS[name]) for name in "ab")
    both = PolicyGroup("g", 1, ("a", "b"))
    TrustPolicy(logs, (a, b), (both,), "g")
    for witnesses, groups, quorum in (
        ((a,), (both,), "g"),
        ((a, b), (both, PolicyGroup("h", 1, ("a",))), "g"),
        ((a, b), (both, PolicyGroup("g", 1, ("g",))), "g"),
        ((a, b), (PolicyGroup("none", 1, ("a",)),), "none"),
        ((a, b), (both,), "h"),
        ((PolicyWitness("two words", COSIGNERS["a"]),), (), "none"),
        ((PolicyWitness("a", COSIGNERS["a"], "two words"),), (), "a"),
        ((PolicyWitness("a", LOG.verifier()),), (), "a"),
    ):
        with pytest.raises(Malformed):
            TrustPolicy(logs, witnesses, groups, quorum)
