"""The tree: incremental is batch is the RFC's recursion; every proof verifies, no other does."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.audit.verify import (
    EMPTY_ROOT,
    Malformed,
    Range,
    Refuted,
    Tree,
    consistency,
    inclusion,
    leaf_hash,
    node_hash,
    root,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tests.audit_formats.parties import flipped, leaves, tree

patient = settings(deadline=None, max_examples=40)
SIZES = st.integers(0, 300)


def by_definition(parts: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    if not parts:
        return hashlib.sha256(b"").digest()
    if len(parts) == 1:
        return hashlib.sha256(b"\x00" + parts[0]).digest()
    k = 1
    while 2 * k < len(parts):
        k *= 2
    left, right = by_definition(parts[:k]), by_definition(parts[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def ranges(count: int) -> list[Range]:
    found = [Range()]
    for leaf in leaves(count):
        found.append(found[-1].appended(leaf_hash(leaf))[0])
    return found


# Classic Certificate Transparency leaves and roots: RFC 6962's reference implementation, as in
# github.com/transparency-dev/merkle, testonly/constants.go (Apache-2.0).
CLASSIC = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
CLASSIC_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
}


@pytest.mark.parametrize("size", CLASSIC_ROOTS)
def test_classic_roots(size: int) -> None:
    digests = [leaf_hash(bytes.fromhex(leaf)) for leaf in CLASSIC[:size]]
    assert tree_root(digests).hex() == CLASSIC_ROOTS[size]
    assert Tree(digests).root().hex() == CLASSIC_ROOTS[size]


@given(st.lists(st.binary(max_size=4), max_size=70))
@patient
def test_incremental_is_batch_is_the_definition(parts: list[bytes]) -> None:
    digests = [leaf_hash(part) for part in parts]
    grown, nodes = Range(), {}
    for size, digest in enumerate(digests):
        grown, completed = grown.appended(digest)
        nodes.update({(node.level, node.index): node.digest for node in completed})
        assert grown.size == size + 1
    expected = by_definition(parts)
    assert grown.root() == tree_root(digests) == Tree(digests).root() == expected
    lookup = lambda level, index: nodes[level, index]  # noqa: E731
    assert root(len(parts), lookup) == expected
    for size in range(len(parts) + 1):  # every older root, from stored nodes alone
        assert root(size, lookup) == by_definition(parts[:size])


@given(SIZES.filter(bool), st.data())
@patient
def test_every_inclusion_proof_verifies_and_grows_with_log_n(
    size: int, data: st.DataObject
) -> None:
    whole, index = tree(size), data.draw(st.integers(0, size - 1))
    leaf = leaf_hash(leaves(size)[index])
    proof = inclusion(index, size, whole.node)
    verify_inclusion(index, size, leaf, proof, whole.root())
    assert len(proof) <= (size - 1).bit_length()


@given(st.integers(1, 80), st.data())
@patient
def test_nothing_else_passes_for_an_inclusion_proof(size: int, data: st.DataObject) -> None:
    whole, index = tree(size), data.draw(st.integers(0, size - 1))
    leaf, proof, top = leaf_hash(leaves(size)[index]), whole.inclusion(index), whole.root()
    for place, digest in enumerate(proof):
        changed = flipped(digest, data.draw(st.integers(0, 31)), data.draw(st.integers(0, 7)))
        wrong = (*proof[:place], changed, *proof[place + 1 :])
        with pytest.raises(Refuted, match="expected root"):
            verify_inclusion(index, size, leaf, wrong, top)
    for other in set(range(size + 2)) - {index}:
        with pytest.raises(Refuted):
            verify_inclusion(other, size, leaf, proof, top)
    for wrong in (proof[:-1] if proof else (top,), (*proof, top), (top, *proof)):
        with pytest.raises(Refuted, match=rf"a proof of {len(wrong)} digests, expected"):
            verify_inclusion(index, size, leaf, wrong, top)
    with pytest.raises(Refuted):
        verify_inclusion(index, size, flipped(leaf, 0), proof, top)
    with pytest.raises(Refuted):
        verify_inclusion(index, size, leaf, proof, flipped(top, 31))


@given(SIZES.filter(bool), st.data())
@patient
def test_every_consistency_proof_verifies(new: int, data: st.DataObject) -> None:
    whole, old = tree(new), data.draw(st.integers(1, new))
    proof = consistency(old, new, whole.node)
    verify_consistency(old, new, proof, whole.root(old), whole.root())
    assert len(proof) <= new.bit_length() + 1


@given(st.integers(2, 80), st.data())
@patient
def test_nothing_else_passes_for_a_consistency_proof(new: int, data: st.DataObject) -> None:
    whole, old = tree(new), data.draw(st.integers(1, new - 1))
    proof, first, last = whole.consistency(old), whole.root(old), whole.root()
    for place, digest in enumerate(proof):
        changed = flipped(digest, data.draw(st.integers(0, 31)), data.draw(st.integers(0, 7)))
        wrong = (*proof[:place], changed, *proof[place + 1 :])
        with pytest.raises(Refuted, match="expected root"):
            verify_consistency(old, new, wrong, first, last)
    for wrong in (proof[:-1], (*proof, last), (first, *proof)):
        with pytest.raises(Refuted, match=rf"a proof of {len(wrong)} digests, expected"):
            verify_consistency(old, new, wrong, first, last)
    for one, other in ((flipped(first, 0), last), (first, flipped(last, 0)), (last, first)):
        with pytest.raises(Refuted):
            verify_consistency(old, new, proof, one, other)
    rewritten = tree(new, of="another entry")
    with pytest.raises(Refuted, match=r"its (old|new) root"):
        verify_consistency(old, new, rewritten.consistency(old), first, rewritten.root())


def test_every_proof_of_every_small_tree() -> None:
    whole = tree(34)
    digests = [leaf_hash(leaf) for leaf in leaves(34)]
    for new in range(1, 35):
        for old in range(1, new + 1):
            verify_consistency(
                old, new, whole.consistency(old, new), whole.root(old), whole.root(new)
            )
        for index in range(new):
            proof = whole.inclusion(index, new)
            verify_inclusion(index, new, digests[index], proof, whole.root(new))


def test_that_every_tree_begins_with_the_empty_one_proves_nothing() -> None:
    whole = tree(5)
    assert whole.consistency(0) == ()
    with pytest.raises(Refuted, match="size 0 before size 5, expected 0 < old <= new"):
        verify_consistency(0, 5, (), EMPTY_ROOT, whole.root())
    with pytest.raises(Refuted):
        verify_consistency(0, 0, (), EMPTY_ROOT, EMPTY_ROOT)


def test_a_tree_is_consistent_with_itself_alone() -> None:
    whole, other = tree(5), tree(5, of="other")
    verify_consistency(5, 5, (), whole.root(), whole.root())
    with pytest.raises(Refuted, match="expected root"):
        verify_consistency(5, 5, (), whole.root(), other.root())
    with pytest.raises(Refuted, match="a proof of 1 digests, expected 0 digests"):
        verify_consistency(5, 5, (whole.root(),), whole.root(), whole.root())
    with pytest.raises(Refuted, match="size 6 before size 5"):
        verify_consistency(6, 5, (), whole.root(), whole.root())


def test_a_leaf_is_no_node() -> None:
    """A leaf that spells two digests cannot stand for the node over them (second preimage)."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    with pytest.raises(Refuted):
        verify_inclusion(0, 1, leaf_hash(left + right), (), tree_root([left, right]))


@pytest.mark.parametrize("size", [0, 1, 5, 64, 65])
def test_a_range_is_kept_as_bytes(size: int) -> None:
    grown = ranges(size)[-1]
    assert Range.from_bytes(grown.to_bytes()) == grown
    assert len(grown.to_bytes()) == 8 + 32 * size.bit_count()


@pytest.mark.parametrize(
    ("defect", "content"),
    [
        ("too short", bytes(7)),
        ("half a digest", bytes(8) + bytes(16)),
        ("a digest too few", (3).to_bytes(8, "big") + bytes(32)),
        ("a digest too many", (4).to_bytes(8, "big") + bytes(64)),
        ("a size beyond every tree", b"\xff" * 8 + bytes(64 * 32)),
    ],
)
def test_bytes_that_are_no_range(defect: str, content: bytes) -> None:
    with pytest.raises(Malformed):
        Range.from_bytes(content)


def test_digests_of_another_length_are_refused() -> None:
    whole = tree(4)
    with pytest.raises(Malformed, match="found 31 bytes, expected a digest of 32 bytes"):
        verify_inclusion(0, 4, bytes(31), whole.inclusion(0), whole.root())
    with pytest.raises(Malformed):
        verify_inclusion(0, 4, bytes(32), (bytes(31), bytes(33)), whole.root())
    with pytest.raises(Malformed):
        verify_consistency(2, 4, whole.consistency(2), b"WrongRoot", whole.root())
    with pytest.raises(Malformed):
        Tree([b"short"])


@pytest.mark.parametrize("size", [0, 1, 4, 5])
def test_a_leaf_beyond_the_tree_is_refused_whatever_its_proof(size: int) -> None:
    for index in (-1, size, size + 1):
        for length in range(6):
            with pytest.raises(Refuted, match=f"expected a leaf from 0 to {size - 1}"):
                verify_inclusion(index, size, bytes(32), (bytes(32),) * length, bytes(32))


def test_no_proof_is_made_of_what_is_not_there() -> None:
    whole = tree(4)
    for call in (
        lambda: whole.inclusion(4),
        lambda: whole.inclusion(-1),
        lambda: whole.inclusion(4, 5),
        lambda: whole.root(5),
        lambda: whole.consistency(5),
        lambda: whole.consistency(3, 5),
        lambda: whole.node(3, 0),
        lambda: whole.node(0, -1),
    ):
        with pytest.raises(Refuted):
            call()
