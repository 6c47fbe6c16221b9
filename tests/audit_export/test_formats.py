"""What is handed over: each format by the library of its makers, and nothing that nobody said."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit.export import FORMATS, files
from fedkd.audit.verify import read_files
from fedkd.audit.verify.lineage import lineage
from fedkd.audit.verify.logs import CheckedLog
from tests.audit_export.federation import (
    CARD,
    GENERATOR,
    PUBLIC,
    Body,
    Change,
    checked,
    federation,
    student,
)
from tests.audit_export.test_lineage import changed, close

Json = dict[str, Any]
QUERIES = ("public", "synthetic")


@pytest.fixture(scope="module", params=QUERIES)
def logs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checked(federation(tmp_path_factory.mktemp("run") / "run", query=request.param))


def exported(logs: dict[str, CheckedLog], format: str) -> dict[str, bytes]:
    return dict(files(format, logs, lineage(logs)))


def documents(logs: dict[str, CheckedLog], format: str) -> dict[str, Json]:
    return {name: json.loads(content) for name, content in exported(logs, format).items()}


def only(logs: dict[str, CheckedLog], format: str) -> Json:
    (document,) = documents(logs, format).values()
    return document


def planted(document: Json, change: Callable[[Json], object]) -> Json:
    copied = copy.deepcopy(document)
    change(copied)
    return copied


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_logs_give_the_same_bytes(format: str, logs: dict[str, CheckedLog]) -> None:
    turned = dict(reversed(logs.items()))  # whoever finds the files in another order
    assert exported(logs, format) == exported(turned, format)


@pytest.mark.parametrize("format", FORMATS)
def test_no_count_of_a_hospitals_records_is_handed_over(format: str, tmp_path: Path) -> None:
    """Such a count is a release that no privacy budget covers."""
    records = {"train": 987_654_321, "validation": 123_456_789}
    folder = federation(tmp_path / "run", changed("site-01", "dataset", records=records))
    handed_over = b"".join(exported(checked(folder), format).values())
    assert b"987654321" not in handed_over
    assert b"123456789" not in handed_over


# ---------------------------------------------------------------- W3C PROV, read by `prov`


def read_prov(document: Json) -> Any:
    from prov.model import ProvDocument

    return ProvDocument.deserialize(content=json.dumps(document), format="json")


def test_prov_reads_our_lineage_and_writes_the_same(logs: dict[str, CheckedLog]) -> None:
    read = read_prov(only(logs, "prov"))
    assert read == read_prov(json.loads(read.serialize(format="json")))
    assert len(read.records) == sum(
        len(there) for kind, there in only(logs, "prov").items() if kind != "prefix"
    )


def test_a_walk_through_prov_ends_at_the_sources_and_in_no_circle(
    logs: dict[str, CheckedLog],
) -> None:
    import networkx
    from prov.model import ProvDerivation

    derived = networkx.DiGraph()
    for record in read_prov(only(logs, "prov")).get_records(ProvDerivation):
        derived.add_edge(*(str(value) for _, value in record.formal_attributes[:2]))
    found = lineage(logs)
    start = f"server:{found.of[0].place.index}.student"
    ends = {one for one in networkx.descendants(derived, start) if not derived.out_degree(one)}
    assert networkx.is_directed_acyclic_graph(derived)
    assert {f"site-0{n}:1.data-set" for n in (1, 2)} <= ends
    others = ends - {f"site-0{n}:1.data-set" for n in (1, 2)}
    public = {source.kind for source in found.sources} == {"data set"}
    assert others == ({"server:1.data-set"} if public else {"server:7.synthetic-set"})


PLANTED_IN_PROV: dict[str, Callable[[Json], object]] = {
    "a relation that is none": lambda it: it.update(wasMadeBy=it.pop("used")),
    "no namespace of a log": lambda it: it["prefix"].pop("server"),
    "a time that is none": lambda it: it["activity"]["server:9"].update({"prov:endTime": "noon"}),
    "an entity of no namespace": lambda it: it["used"]["_:used1"].update({"prov:entity": "x:1"}),
}


@pytest.mark.parametrize("name", PLANTED_IN_PROV)
def test_prov_refuses_a_wrong_field(name: str, logs: dict[str, CheckedLog]) -> None:
    document = only(logs, "prov")
    acts = document["activity"]
    acts.setdefault("server:9", next(iter(acts.values())))
    with pytest.raises(Exception, match=r"(?i)recognised|identifier|dateTime|prefix"):
        read_prov(planted(document, PLANTED_IN_PROV[name]))


def test_prov_tells_of_data_sets_and_of_who_keeps_which_log(logs: dict[str, CheckedLog]) -> None:
    document = only(logs, "prov")
    hospital = document["entity"]["site-01:1.data-set"]
    assert hospital["fedkd:legalBasis"] == CARD["legal_basis"]
    assert hospital["fedkd:licence"] == CARD["licence"]
    assert hospital["fedkd:entry"] == f"{logs['site-01'].origin}#1"
    assert document["agent"]["site-01:log"]["fedkd:root"] == logs["site-01"].root.hex()
    assert document["prefix"]["site-01"] == f"https://{logs['site-01'].origin}#"


def test_prov_says_what_is_not_shown(tmp_path: Path) -> None:
    folder = federation(tmp_path / "run")
    close(folder, "site-01", "train.local")
    document = only(checked(folder), "prov")
    hidden = [
        one for one in document["entity"].values() if one["prov:type"]["$"] == "fedkd:NotShown"
    ]
    assert len(hidden) == 2
    assert "closed or erased" in hidden[0]["prov:label"]
    read_prov(document)


# ---------------------------------------------------------------- Croissant, read by `mlcroissant`


def read_croissant(document: Json) -> Any:
    import mlcroissant

    with warnings.catch_warnings():  # rdflib's own, about its next version
        warnings.simplefilter("ignore", DeprecationWarning)
        return mlcroissant.Dataset(jsonld=copy.deepcopy(document)).metadata


def test_mlcroissant_reads_every_data_set(logs: dict[str, CheckedLog]) -> None:
    written = documents(logs, "croissant")
    assert len(written) == 6
    for document in written.values():
        read = read_croissant(document)
        assert read.ctx.is_v1_1()
        assert read.ctx.issues.errors == set()
        assert read.name == document["name"]
        assert read.license == [document["license"]]
        assert read.data_collection_raw_data == document["rai:dataCollectionRawData"]
        assert "http://mlcommons.org/croissant/RAI/1.0" in read.conforms_to


def test_a_data_set_says_what_its_card_says_and_names_what_it_does_not(
    logs: dict[str, CheckedLog],
) -> None:
    document = documents(logs, "croissant")["croissant/site-01-1-site-01-records.json"]
    assert document["license"] == CARD["licence"]
    assert document["usageInfo"]["text"] == CARD["legal_basis"]
    assert document["rai:dataCollectionRawData"] == CARD["origin"]
    assert document["fedkd:entry"] == f"{logs['site-01'].origin}#1"
    silent = document["fedkd:notStated"]
    assert silent == ["citation", "creator", "datePublished", "distribution", "url"]
    assert not {"creator", "datePublished", "distribution", "url", "citeAs"} & document.keys()
    assert "record counts" in document["fedkd:withheld"]
    part = documents(logs, "croissant")["croissant/server-2-digits-held-out.json"]
    assert part["prov:wasDerivedFrom"] == {"@id": f"https://{logs['server'].origin}#1"}
    assert part["citeAs"] == PUBLIC["citation"]
    assert part["fedkd:records"] == 300


def test_what_a_card_leaves_empty_is_said_to_be_not_stated(tmp_path: Path) -> None:
    folder = federation(tmp_path / "run", changed("site-01", "dataset", card={"name": "records"}))
    document = documents(checked(folder), "croissant")["croissant/site-01-1-site-01-records.json"]
    assert document["license"] == document["description"] == "not stated"
    assert document["usageInfo"]["text"] == "not stated"
    assert {"modality", "version", "citation"} <= set(document["fedkd:notStated"])
    assert "version" not in document
    read_croissant(document)


def test_a_rehearsals_counts_are_told(tmp_path: Path) -> None:
    folder = federation(tmp_path / "run", changed("site-01", "dataset", rehearsal=True))
    document = documents(checked(folder), "croissant")["croissant/site-01-1-site-01-records.json"]
    assert document["fedkd:records"] == {"train": 90, "validation": 10}
    assert "fedkd:withheld" not in document


PLANTED_IN_CROISSANT: dict[str, Callable[[Json], object]] = {
    "another version": lambda it: it.update(conformsTo="http://mlcommons.org/croissant/9.9"),
    "no data set": lambda it: it.update({"@type": "sc:Person"}),
    "a date that is none": lambda it: it.update(datePublished="noon"),
    "a licence that is a number": lambda it: it.update(license=5),
    "a RAI field that is a number": lambda it: it.update({"rai:dataCollectionRawData": 7}),
    "a file without a digest": lambda it: it.update(
        distribution=[{"@type": "cr:FileObject", "@id": "x", "name": "x"}]
    ),
}


@pytest.mark.parametrize("name", PLANTED_IN_CROISSANT)
def test_mlcroissant_refuses_a_wrong_field(name: str, logs: dict[str, CheckedLog]) -> None:
    import mlcroissant

    document = documents(logs, "croissant")["croissant/site-01-1-site-01-records.json"]
    with pytest.raises(mlcroissant.ValidationError):
        read_croissant(planted(document, PLANTED_IN_CROISSANT[name]))


# ---------------------------------------------------------------- CycloneDX, against its schema


def faults_of(bom: Json) -> list[str]:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom), all_errors=True)
    return [] if found is None else [str(one) for one in found]


def test_the_strict_schema_of_cyclonedx_takes_our_bill_of_materials(
    logs: dict[str, CheckedLog],
) -> None:
    assert faults_of(only(logs, "cyclonedx")) == []


PLANTED_IN_CYCLONEDX: dict[str, Callable[[Json], object]] = {
    "a field that is none": lambda it: it["metadata"]["component"].update(weights="x"),
    "another format": lambda it: it.update(bomFormat="SPDX"),
    "a kind that is none": lambda it: it["components"][0].update(type="hospital"),
    "a serial number that is none": lambda it: it.update(serialNumber="urn:uuid:1"),
    "a time that is none": lambda it: it["metadata"].update(timestamp="noon"),
    "a metric that is a number": lambda it: it["metadata"]["component"]["modelCard"][
        "quantitativeAnalysis"
    ]["performanceMetrics"][0].update(value=0.75),
}


@pytest.mark.parametrize("name", PLANTED_IN_CYCLONEDX)
def test_the_schema_refuses_a_wrong_field(name: str, logs: dict[str, CheckedLog]) -> None:
    assert faults_of(planted(only(logs, "cyclonedx"), PLANTED_IN_CYCLONEDX[name]))


def told(component: Json) -> dict[str, str]:
    return {one["name"]: one["value"] for one in component["properties"]}


def test_the_bill_names_the_model_its_data_and_its_figures(tmp_path: Path) -> None:
    bom = only(checked(federation(tmp_path / "run")), "cyclonedx")
    assert bom["specVersion"] == "1.6"
    model = bom["metadata"]["component"]
    card = model["modelCard"]
    data = {one["bom-ref"]: one["name"] for one in bom["components"]}
    assert told(model)["fedkd:digest"] == student(2)
    assert (model["type"], model["version"]) == ("machine-learning-model", "round 2")
    assert bom["metadata"]["timestamp"] == "2026-11-24T12:00:30Z"
    assert card["modelParameters"]["modelArchitecture"] == "cnn"
    assert card["modelParameters"]["inputs"] == [{"format": "array of shape [1, 8, 8]"}]
    named = {data[one["ref"]] for one in card["modelParameters"]["datasets"]}
    assert named == {
        "digits",
        "digits, held out",
        "digits, test",
        "site-01/records",
        "site-02/records",
    }
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.75", "slice": "digits, test"}
    ]
    (student_row, *_) = bom["dependencies"]
    assert {data[ref] for ref in student_row["dependsOn"]} == {
        "digits, held out",
        "site-01/records",
        "site-02/records",
    }
    software = {one["name"]: one["version"] for one in bom["formulation"][0]["components"]}
    assert software == {"fedkd": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}
    (workflow,) = bom["formulation"][0]["workflows"]
    assert [task["name"] for task in workflow["tasks"]] == ["round 1", "round 2"]


def test_every_reference_in_the_bill_leads_somewhere(logs: dict[str, CheckedLog]) -> None:
    bom = only(logs, "cyclonedx")
    refs: list[str] = []
    asked: set[str] = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            refs.extend([value["bom-ref"]] if "bom-ref" in value else [])
            asked.update([value["ref"]] if "ref" in value else [], value.get("dependsOn", []))
        for one in value.values() if isinstance(value, dict) else value:
            if isinstance(one, dict | list):
                look(one)

    look(bom)
    assert len(refs) == len(set(refs))
    assert asked <= set(refs)


def test_the_bill_of_a_student_on_synthetic_queries_names_the_generator(tmp_path: Path) -> None:
    bom = only(checked(federation(tmp_path / "run", query="synthetic")), "cyclonedx")
    (drawn,) = [one for one in bom["components"] if one["name"] == "queries drawn by dictionary"]
    assert told(drawn)["fedkd:code"] == GENERATOR["code"]
    assert told(drawn)["fedkd:seed"] == "7"


def test_another_log_gives_another_serial_number(tmp_path: Path) -> None:
    serials = {
        only(checked(federation(tmp_path / name)), "cyclonedx")["serialNumber"] for name in "ab"
    }
    assert len(serials) == 2


def unexamined(party: str, key: str, body: Body) -> Body | None:
    return None if key == "evaluation" else body


@pytest.mark.parametrize("change", [unexamined, changed("server", "evaluation", model=student(1))])
def test_a_student_that_nobody_evaluated_has_no_figures(change: Change, tmp_path: Path) -> None:
    bom = only(checked(federation(tmp_path / "run", change)), "cyclonedx")
    assert "quantitativeAnalysis" not in bom["metadata"]["component"]["modelCard"]
    assert "digits, test" not in [one["name"] for one in bom["components"]]
    assert faults_of(bom) == []


# ---------------------------------------------------------------- tiles, read by tlog-scales


def write(folder: Path, written: dict[str, bytes]) -> None:
    for name, content in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_tiles_hold_every_header_and_no_body(logs: dict[str, CheckedLog], tmp_path: Path) -> None:
    written = exported(logs, "tiles")
    write(tmp_path, written)
    for party, log in logs.items():
        folder = tmp_path / "tiles" / party
        leaves, note = read_files(lambda name, folder=folder: (folder / name).read_bytes())
        assert leaves == tuple(leaf.header.to_bytes() for leaf in log.entries)
        assert note.checkpoint().root == log.root
        note.verify([log.key])
        assert (folder / "log.vkey").read_text() == f"{log.key.text()}\n"
    handed_over = b"".join(written.values())
    for secret in (CARD["legal_basis"], CARD["origin"], "hmac-sha256:site-01", student(2)):
        assert secret.encode() not in handed_over


def test_tlog_scales_reads_our_tiles(logs: dict[str, CheckedLog], tmp_path: Path) -> None:
    from tlog_scales import backend, reader, signing

    write(tmp_path, exported(logs, "tiles"))
    for party, log in logs.items():
        folder = tmp_path / "tiles" / party
        theirs = reader.TilesReader(backend.LocalBackend(folder))
        checkpoint = theirs.get_checkpoint()
        assert theirs.calculate_root_hash() == checkpoint.root_hash == log.root
        key = signing.Vkey.from_string((folder / "log.vkey").read_text().strip())
        assert len(signing.VkeySet(key).verify(checkpoint.signatures, checkpoint)) == 1
        last = len(log.entries) - 1
        assert theirs.get_entry(last) == log.entries[last].header.to_bytes()
        proof = theirs.get_inclusion_proof(last, last + 1)
        assert tuple(proof.node_hashes) == log.tree.inclusion(last)
