"""Writes whole logs as folders of static files (C2SP tlog-tiles), every body closed.

An entry is its header alone, which is the leaf of the tree: any reader of that format can check
the signed root, and nobody learns a body or its salt.
"""

from collections.abc import Iterator, Mapping

from fedkd.audit.export.writing import names_of
from fedkd.audit.verify import Note
from fedkd.audit.verify import files as tiles_of
from fedkd.audit.verify.lineage import Logs
from fedkd.audit.verify.logs import CheckedLog


def files(logs: Logs, heads: Mapping[str, Note]) -> Iterator[tuple[str, bytes]]:
    """A folder for each log: its tiles, the newest checkpoint, the key, the policy if it has one.

    `heads` are checkpoints with cosignatures that were kept beside the logs. Where the newest
    checkpoint that anybody cosigned is not the newest of all, it lies beside as
    `checkpoint.cosigned`.
    """
    for party, name in names_of(logs).items():
        log, folder = logs[party], f"tiles/{name}"
        size = len(log.entries)
        cosigned = _cosigned(log, heads.get(party))
        yield f"{folder}/log.vkey", f"{log.key.text()}\n".encode()
        if log.policy_text is not None:
            yield f"{folder}/policy", log.policy_text
        if cosigned and size not in cosigned:
            yield f"{folder}/checkpoint.cosigned", cosigned[max(cosigned)].to_bytes()
        leaves = [leaf.header.to_bytes() for leaf in log.entries]
        for path, content in tiles_of(leaves, cosigned.get(size, log.head(size))):
            yield f"{folder}/{path}", content


def _cosigned(log: CheckedLog, kept: Note | None) -> dict[int, Note]:
    """The log's checkpoints that somebody cosigned, by size, with every cosignature at hand."""
    heads = {size: log.head(size) for size in log.cosignatures}
    size = 0 if kept is None else kept.checkpoint().size
    if kept is not None and 1 <= size <= len(log.entries):
        head = heads.get(size, log.head(size))
        if head.text == kept.text and len(kept.signatures) > 1:
            heads[size] = head.with_signatures(kept.signatures)
    return heads
