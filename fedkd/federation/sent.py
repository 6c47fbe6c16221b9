"""Reads what ever left a site, from its own outbox and log: each body, and what is in it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from fedkd.audit import Log
from fedkd.federation.site import Build, SiteFolder
from fedkd.knowledge import BadInput, digest_of_bytes
from fedkd.wire import (
    Answer,
    Closed,
    Codec,
    Considered,
    Counts,
    Malformed,
    Message,
    OtherVersion,
    Present,
    Refusal,
    decode,
)

MOST_BYTES = 1 << 30
RELEASED = "release.outputs"


@dataclass(frozen=True, slots=True)
class Sent:
    """A body that left: when the log says so, what it is, and what it holds in words.

    `entry` is the index of the log's entry that names it, None for one that says no more than that
    the site is there. `envelopes` counts the covers that it left in: heads of logs, signatures.
    """

    digest: str
    kind: str
    run: str
    round: int
    at: str | None
    entry: int | None
    bytes: int
    envelopes: int
    holds: str


def everything_sent(folder: Path) -> tuple[list[Sent], list[tuple[int, str]]]:
    """All that is in the outbox of the site in `folder`, by run and round; and what is not.

    The second are releases that the log names, by entry and digest, whose body was taken away.
    Raises `BadInput` where a body is not what its name says: the outbox was changed.
    """
    site = SiteFolder(folder)
    settings = site.settings()
    with Log(folder / "log.sqlite", settings.name) as log:
        said = {
            str(entry.body["payload"]): entry
            for entry in log.entries(RELEASED)
            if entry.said is not None
        }
    classes = len(settings.space.classes)
    found = []
    for path in site.outbox.glob("*.bin"):
        body = path.read_bytes()
        digest = digest_of_bytes(body)
        if digest != f"sha256:{path.stem}":
            raise BadInput(f"{path.name} with other bytes than it names", "what left, as it left")
        entry = said.pop(digest, None)
        when = (None, None) if entry is None else (entry.at, entry.index)
        covers = len(list(site.outbox.glob(f"{path.stem}.*.envelope")))
        found.append(listed(body, classes, *when, envelopes=covers, name=path.name))
    missing = [(entry.index, digest) for digest, entry in said.items()]
    return sorted(found, key=lambda one: (one.run, one.round, one.kind, one.digest)), missing


def listed(
    body: bytes,
    classes: int,
    at: str | None = None,
    entry: int | None = None,
    *,
    envelopes: int = 0,
    name: str = "a body",
) -> Sent:
    """What is to be said of a body that left a site with so many classes; `BadInput` for none."""
    message = _message(name, body)
    return Sent(
        digest_of_bytes(body),
        type(message).__name__,
        message.run,
        getattr(message, "round", 0),
        at,
        entry,
        len(body),
        envelopes,
        _holds(message, classes),
    )


def values_sent(folder: Path, digest: str, build: Build) -> list[list[float]]:
    """The probabilities [Q][C] of one answer that left; `BadInput` where there is none of these."""
    site = SiteFolder(folder)
    path = site.outgoing_path(digest)
    if not path.is_file():
        raise BadInput(f"no {digest} in {site.outbox}", "a body that fedkd site sent lists")
    message = _message(path.name, path.read_bytes())
    if not isinstance(message, Answer):
        raise BadInput(f"a {type(message).__name__}, which holds no numbers", "an answer")
    settings = site.settings()
    codec: Codec = build(settings.accepts.codecs[message.codec])
    classes = len(settings.space.classes)
    rows: list[list[float]] = codec.decode(
        message.coded, _items(message, classes), classes
    ).tolist()
    return rows


def _message(name: str, body: bytes) -> Message:
    try:
        return decode(body, MOST_BYTES)
    except (Malformed, OtherVersion) as error:
        raise BadInput(f"{name}, which cannot be read ({error})", "a message") from None


def _items(message: Answer, classes: int) -> int:
    arrays = list(message.coded.values())
    return int(arrays[0].size // classes) if arrays else 0


def _holds(message: Message, classes: int) -> str:
    if isinstance(message, Answer):
        return f"{_items(message, classes)} distributions over {classes} classes"
    said = {
        Counts: "{0.counts.size} counts of patients, by answer and true class",
        Refusal: "no answer: {0.reason}",
        Closed: "that the last lesson was taken",
        Considered: "that the proposal is {0.ruling}",
        Present: "that the site is there, with {0.software}",
    }
    if type(message) in said:
        return said[type(message)].format(message)
    return "; ".join(sorted(key for key in asdict(message) if key not in ("site", "run", "round")))
