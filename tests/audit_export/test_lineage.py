"""The walk back from a model: exactly the sources that were used, and no name without an entry."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fedkd.audit.verify import CannotTell, Refuted
from fedkd.audit.verify.lineage import NOT_STATED, Lineage, check_lineage, lineage
from tests.audit_export.federation import (
    CARD,
    GENERATOR,
    HEARD,
    PUBLIC,
    RUN,
    Body,
    checked,
    consensus,
    digest,
    federation,
    posed,
    student,
)


def sources(found: Lineage) -> dict[str, str]:
    return {source.name: str(source.place) for source in found.sources}


def walked(folder: Path, **options: object) -> Lineage:
    return lineage(checked(federation(folder / "run", **options)))  # type: ignore[arg-type]


def close(folder: Path, party: str, type: str) -> None:
    """Erases the bodies of one type, as retention may."""
    database = sqlite3.connect(folder / "audit" / f"{party}.sqlite")
    erased = database.execute(
        "UPDATE entries SET body = NULL, salt = NULL WHERE type = ?", (type,)
    ).rowcount
    database.commit()
    database.close()
    assert erased


def test_exactly_the_sources_that_were_used_are_found(tmp_path: Path) -> None:
    """site-03 was left out of every round; the test set and its own records made nothing."""
    found = walked(tmp_path)
    assert found.of[0].name == student(2)
    assert sources(found) == {
        "digits": "server#1",
        "digits, held out": "server#2",
        "site-01/records": "site-01#1",
        "site-02/records": "site-02#1",
    }
    assert found.agents == ("server", *HEARD)
    assert found.gaps == ()


def test_a_source_says_what_its_card_says_and_who_used_it(tmp_path: Path) -> None:
    found = {source.name: source for source in walked(tmp_path).sources}
    hospital, queries = found["site-01/records"], found["digits, held out"]
    assert hospital.card == {**CARD, "citation": NOT_STATED}
    assert (hospital.role, hospital.part_of) == ("training", None)
    assert [str(place) for place in hospital.used_by] == ["site-01#2", "site-01#4"]
    assert queries.card == PUBLIC
    assert queries.part_of is not None
    assert (queries.part_of.name, str(queries.part_of.place)) == ("digits", "server#1")


def test_every_step_knows_its_entry_and_what_it_used(tmp_path: Path) -> None:
    steps = {str(one.place): one for one in walked(tmp_path).activities}
    trained = steps["site-02#4"]
    assert (trained.type, trained.run, trained.round) == ("train.local", RUN, 2)
    assert trained.time == "2026-11-24T12:00:25Z"
    assert [(role, str(used.place)) for role, used in trained.uses] == [
        ("data set", "site-02#1"),
        ("lesson", "server#9"),
        ("parent", "site-02#2"),
    ]
    assert [(role, str(used.place)) for role, used in steps["server#10"].uses] == [
        ("consensus", "server#9"),
        ("query set", "server#7"),
        ("configuration", "server#4"),
    ]


def test_the_walk_begins_at_the_model_that_is_asked_for(tmp_path: Path) -> None:
    logs = checked(federation(tmp_path / "run"))
    first = lineage(logs, student(1))
    assert {one.round for one in first.activities} == {0, 1}
    own = lineage(logs, digest("site-01", "model", 1))
    assert sources(own) == {"site-01/records": "site-01#1"}
    with pytest.raises(Refuted, match="found no entry that made it"):
        lineage(logs, digest("another model"))


def test_synthetic_queries_go_back_to_their_generator_and_to_what_it_saw(tmp_path: Path) -> None:
    found = walked(tmp_path, query="synthetic")
    assert sources(found) == {
        "site-01/records": "site-01#1",
        "site-02/records": "site-02#1",
        "dictionary": "server#7",
    }
    drawn = next(source for source in found.sources if source.kind == "generator")
    assert {key: drawn.body[key] for key in GENERATOR} == GENERATOR
    assert [str(place) for place in drawn.used_by] == ["server#8", "server#13"]
    second = next(one for one in found.activities if str(one.place) == "server#12")
    assert [role for role, _ in second.uses] == ["consensus", "student"]


def test_every_name_from_every_student_is_followed(tmp_path: Path) -> None:
    logs = checked(federation(tmp_path / "run"))
    assert check_lineage(logs) == lineage(logs).followed == 30
    without_students = {party: log for party, log in logs.items() if party != "server"}
    assert check_lineage(without_students) == 0


def test_a_released_model_is_walked_back_from_as_well(tmp_path: Path) -> None:
    def released(party: str, key: str, body: Body) -> Body:
        return {"run": RUN, "model": student(9)} if key == "ended" else body

    folder = federation(tmp_path / "run", released)
    assert check_lineage(checked(folder)) == 30
    forged = federation(tmp_path / "forged", released, types={"ended": "model.released"})
    with pytest.raises(Refuted, match=rf"server#15, model.released: found model {student(9)}"):
        check_lineage(checked(forged))


DROPPED = {
    "a consensus": ("server", "2/combined", f"student.updated: found consensus {consensus(2)}"),
    "a query set": ("server", "1/posed", f"found query set {posed(1, 'public')}, which no"),
    "an answer": ("site-02", "1/release", "server#9, aggregate.computed: found answer"),
    "a model": ("site-01", "2/train", "site-01#4, release.outputs: found model"),
    "an earlier model": ("site-01", "1/train", "found parent|found model"),
    "a hospital's data set": ("site-01", "dataset", "found data set site-01/records, which no"),
    "a query data set": ("server", "dataset/digits, held out", "found data set digits, held out"),
    "the whole of a part": ("server", "dataset/digits", "data.partitioned: found whole digits"),
    "a student": ("server", "1/student", f"found parent {student(1)}, which no student.updated"),
    "the seed": ("server", "config", f"student.updated: found configuration {RUN}"),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_a_dangling_name_is_refuted_and_who_names_it_is_told(name: str, tmp_path: Path) -> None:
    where, key, told = DROPPED[name]

    def dropped(party: str, what: str, body: Body) -> Body | None:
        return None if (party, what) == (where, key) else body

    logs = checked(federation(tmp_path / "run", dropped))
    for walk in (lineage, check_lineage):
        with pytest.raises(Refuted, match=told):
            walk(logs)


def changed(where: str, key: str, **fields: object) -> Callable[[str, str, Body], Body]:
    def change(party: str, what: str, body: Body) -> Body:
        return body | fields if (party, what) == (where, key) else body

    return change


CHANGED = {
    "an answer that another round released": (
        changed("server", "2/combined", inputs={"site-01": digest("site-01", "answer", 1)}),
        "site-01#3, which did, cannot be meant",
    ),
    "a lesson of the same round": (
        changed("site-01", "2/train", lesson=digest("lesson", 2)),
        "site-01#4, train.local: found lesson .* server#13, which did, cannot be meant",
    ),
    "a data set of another site": (
        changed("site-01", "2/train", inputs=["site-02/records"]),
        "found data set site-02/records, which no dataset.registered in the log of site-01",
    ),
    "a student that comes later": (
        changed("server", "1/student", parent=student(2)),
        "server#10, student.updated: found parent .* server#14, which did, cannot be meant",
    ),
    "a synthetic parent that nobody combined": (
        changed("server", "1/posed", origin={
            "kind": "synthetic", **GENERATOR, "round": 1, "parents": [digest("x")], "student": None,
        }),
        "found synthetic set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_a_name_that_the_entry_cannot_mean_is_refuted(name: str, tmp_path: Path) -> None:
    change, told = CHANGED[name]
    with pytest.raises(Refuted, match=told):
        check_lineage(checked(federation(tmp_path / "run", change)))


def test_queries_that_claim_another_parent_than_anybody_combined_are_refuted(
    tmp_path: Path,
) -> None:
    origin = {"kind": "synthetic", **GENERATOR, "round": 2, "student": None}
    change = changed("server", "2/posed", origin={**origin, "parents": [digest("x")]})
    with pytest.raises(Refuted, match=r"server#13, queries.posed: found consensus"):
        check_lineage(checked(federation(tmp_path / "run", change, query="synthetic")))


def test_what_comes_from_itself_is_refuted(tmp_path: Path) -> None:
    """A site's first model that learnt the last lesson, and says that it did so afterwards."""

    def circle(party: str, key: str, body: Body) -> Body:
        if (party, key) == ("site-01", "1/train"):
            return body | {"round": 3, "lesson": digest("lesson", 2)}
        return body

    with pytest.raises(Refuted, match=r"found what comes from itself: .* from "):
        check_lineage(checked(federation(tmp_path / "run", circle)))


HOSTILE = {
    "no list": changed("server", "2/student", inputs="sha256:one"),
    "no name": changed("server", "2/student", queries=7),
    "an empty name": changed("site-01", "2/release", model=""),
    "no answers by site": changed("server", "2/combined", inputs=["sha256:one"]),
    "a list of numbers": changed("site-01", "2/train", inputs=[1]),
    "an unknown origin": changed("server", "2/posed", origin={"kind": "oracle"}),
    "an origin that is no object": changed("server", "2/posed", origin="public"),
    "a name in control characters": changed("site-01", "2/train", inputs=["\x1b[2Jdigits" * 40]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_body_of_another_shape_is_refuted_and_not_a_crash(name: str, tmp_path: Path) -> None:
    logs = checked(federation(tmp_path / "run", HOSTILE[name]))
    with pytest.raises(Refuted) as caught:
        check_lineage(logs)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


CLOSED = {
    "answers": (
        "site-01",
        "release.outputs",
        "site-01#3 or 1 more, closed or erased, may have made it",
    ),
    "models": ("site-01", "train.local", "site-01#2, closed or erased, may have made it"),
    "a data set": ("site-02", "dataset.registered", "data set site-02/records: site-02#1, closed"),
    "queries": ("server", "queries.posed", "query set .*: server#7, closed or erased"),
    "consensuses": ("server", "aggregate.computed", "consensus .*: server#9, closed or erased"),
    "the cut": ("server", "data.partitioned", "server#6, closed or erased, may say what"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_a_closed_body_hides_cannot_be_told(name: str, tmp_path: Path) -> None:
    party, type, told = CLOSED[name]
    folder = federation(tmp_path / "run")
    close(folder, party, type)
    logs = checked(folder)
    with pytest.raises(CannotTell, match=told):
        check_lineage(logs)
    found = lineage(logs)
    assert found.gaps
    assert sources(found).items() < sources(walked(tmp_path / "open")).items() or name == "the cut"


def test_a_dangling_name_is_found_beside_a_closed_body(tmp_path: Path) -> None:
    def dropped(party: str, key: str, body: Body) -> Body | None:
        return None if (party, key) == ("site-02", "dataset") else body

    folder = federation(tmp_path / "run", dropped)
    close(folder, "site-01", "dataset.registered")
    with pytest.raises(Refuted, match="site-02/records"):
        check_lineage(checked(folder))


def test_a_student_whose_entry_is_closed_cannot_be_traced(tmp_path: Path) -> None:
    folder = federation(tmp_path / "run")
    close(folder, "server", "student.updated")
    with pytest.raises(CannotTell, match=r"server#14: the newest student.updated is closed"):
        lineage(checked(folder))
    with pytest.raises(CannotTell, match=r"server#10 is closed"):
        lineage(checked(folder), student(2))


def test_a_log_that_is_not_here_leaves_a_gap(tmp_path: Path) -> None:
    logs = checked(federation(tmp_path / "run"))
    fewer = {party: log for party, log in logs.items() if party != "site-02"}
    found = lineage(fewer)
    assert [gap.why for gap in found.gaps] == [
        f"answer {digest('site-02', 'answer', round)}: the log of site-02 is not here"
        for round in (1, 2)
    ]
    with pytest.raises(CannotTell, match=r"the log of site-02 is not here \(2 such gaps\)"):
        check_lineage(fewer)
    with pytest.raises(CannotTell, match="no log of the server"):
        lineage({"site-01": logs["site-01"]})


def test_an_entry_that_an_earlier_version_wrote_leaves_a_gap(tmp_path: Path) -> None:
    def earlier(party: str, key: str, body: Body) -> Body:
        return {name: body[name] for name in body if name != "parent"}

    with pytest.raises(CannotTell, match=r"server#10: this student.updated says no parent"):
        check_lineage(checked(federation(tmp_path / "run", earlier)))


def test_a_lesson_of_a_run_whose_server_is_not_here_leaves_a_gap(tmp_path: Path) -> None:
    """A hospital's folder lasts longer than a run, and tells of runs that this server knew not."""
    folder = federation(tmp_path / "run", changed("site-01", "2/train", run="r-00"))
    found = lineage(checked(folder), digest("site-01", "model", 2))
    assert [str(gap) for gap in found.gaps] == [
        f"site-01#4: lesson {digest('lesson', 1)}: the server's log of run r-00 is not here"
    ]
    assert sources(found) == {"site-01/records": "site-01#1"}
