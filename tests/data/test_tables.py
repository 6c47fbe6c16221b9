"""How a table is read: one ugly file read right, and a table of bad ones refused in words."""

import gzip

import numpy as np
import pandas as pd
import pytest

from fedkd.data.sources.table import table
from fedkd.knowledge import BadInput

SCHEMA = """
card: {name: ward, licence: none, legal_basis: test}
site: ward
patient: person
label: {column: ill, classes: {healthy: [0], ill: [1]}}
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years, mean: 50, sd: 10}
  dose: {kind: numeric, low: 0, high: 5000, unit: mg, missing: 0.1}
  smoker: {kind: categorical, categories: ["No", "Yes"]}
"""
HEADER = "person,ward,age,dose,smoker,ill"
PLAIN = [HEADER, "p1,A,50,10,No,0", "p1,A,51,20,Yes,1", "p2,B,60,30,No,1"]


def written(folder, lines, schema=SCHEMA, name="t.csv", encoding="utf-8"):
    place = folder / name
    place.write_bytes("\n".join([*lines, ""]).encode(encoding) if lines else b"")
    (folder / f"{name}.schema.yaml").write_text(schema, encoding="utf-8")
    return str(place)


def test_a_plain_table_gives_records_with_sites_and_patients(tmp_path):
    read = table(written(tmp_path, PLAIN))
    assert read.records.labels.tolist() == [0, 1, 1]
    assert read.records.sites.tolist() == ["A", "A", "B"]
    assert read.records.patients.tolist() == [0, 0, 1]
    assert read.records.inputs[:, 0].tolist() == [0.0, pytest.approx(0.1), 1.0]
    assert read.card.name == "ward"
    assert read.digest == table(written(tmp_path, PLAIN)).digest


def test_an_ugly_table_is_read_right(tmp_path):
    schema = SCHEMA.replace("site:", "encoding: windows-1252\nseparator: ';'\ndecimal: ','\n"
                            "thousands: '.'\nmissing_values: ['', '-99', k.A.]\nsite:")  # fmt: skip
    lines = [
        " person ;Größe; ward;dose;age ;smoker;ill",
        '1;"180;5";Köln/Süd;"1.234,5"; 50,5 ; Yes ;1.0',
        " 1;x; Köln/Süd ;k.A.;60;No;0",
        "k.A.;;;-99;-99;k.A.;0",
        "",
        ";;B;0;999;vielleicht;0",
        "3;;B;0;9;Yes;k.A.",
    ]
    read = table(written(tmp_path, lines, schema, encoding="windows-1252"))
    assert read.records.labels.tolist() == [1, 0, 0, 0]
    assert read.records.sites.tolist() == ["Koln-Sud", "Koln-Sud", "unknown", "B"]
    assert len(set(read.records.patients[1:].tolist())) == 3
    assert read.records.patients[0] == read.records.patients[1]
    scale = read.schema.column("dose")
    expected = [
        [0.05, scale.scaled(np.array([1234.5]))[0], 0, 0, 1],
        [1.0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [7.0, -2.5, 0, 0, 0],
    ]
    assert read.records.inputs == pytest.approx(np.array(expected), abs=1e-6)
    said = " ".join(read.notes)
    for word in ("'age': 1 of 3 values out of range", "no declared category", "without a label",
                 "without a patient", "without a site", "without a flag"):  # fmt: skip
        assert word in said


def test_gzip_and_parquet_are_read_as_the_plain_table_is(tmp_path):
    plain = table(written(tmp_path, PLAIN)).digest
    with gzip.open(tmp_path / "t.csv.gz", "wb") as out:
        out.write("\n".join(PLAIN).encode())
    (tmp_path / "t.csv.gz.schema.yaml").write_text(SCHEMA)
    assert table(str(tmp_path / "t.csv.gz")).digest == plain
    pytest.importorskip("pyarrow", reason="Parquet is read through pyarrow")
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.parquet.schema.yaml").write_text(SCHEMA)
    assert table(str(tmp_path / "t.parquet")).digest == plain


def test_a_mark_before_the_first_name_is_no_part_of_it(tmp_path):
    assert len(table(written(tmp_path, PLAIN, encoding="utf-8-sig")).records) == 3


def test_some_rows_are_the_same_ones_in_every_run(tmp_path):
    lines = [HEADER, *(f"p{n},A,{20 + n},10,No,{n % 2}" for n in range(50))]
    path = written(tmp_path, lines)
    assert len(table(path, rows=20).records) == 20
    assert table(path, rows=20).digest == table(path, rows=20).digest


def replaced(old, new):
    return [line.replace(old, new) for line in PLAIN]


BAD_TABLES = [
    ("an empty file", [], SCHEMA, "an empty file"),
    ("a header alone", [HEADER], SCHEMA, "without rows"),
    ("no label column", replaced("ill", "sick"), SCHEMA, "no label column 'ill'"),
    ("a label misspelt", replaced("ill", "il"), SCHEMA, "did you mean 'il'"),
    ("no patient column", replaced("person", "wrong"), SCHEMA, "no patient column 'person'"),
    ("no site column", replaced("ward", "wrong"), SCHEMA, "no site column 'ward'"),
    ("a column name twice", replaced("dose", "age"), SCHEMA, "'age' twice"),
    ("another separator", replaced(",", ";"), SCHEMA, "separator: ';'"),
    ("thousands separators", replaced("50,10,", '50,"1,000",'), SCHEMA, "thousands: ','"),
    ("a decimal comma", replaced("50,10,", '50,"1,5",'), SCHEMA, "decimal: ','"),
    ("mixed types", replaced(",60,", ",sixty,"), SCHEMA, "1 values of column 'age'.*'sixty'"),
    ("an infinite number", replaced(",60,", ",inf,"), SCHEMA, "'inf'"),
    ("a longer row", [*PLAIN, "p3,B,60,30,No,1,9,9"], SCHEMA, "8 fields in line 5"),
    ("a shorter row", [*PLAIN, "p3,B"], SCHEMA, "2 fields in line 5"),
    ("an unknown label", replaced("No,1", "No,2"), SCHEMA, "'2' in the label column"),
    ("no label at all", [HEADER, "p,A,50,10,No,"], SCHEMA, "none with a label"),
    (
        "two sites of one folder",
        [*PLAIN, "p4,A!,5,1,No,0", "p5,!A,5,1,No,0"],
        SCHEMA,
        "as a folder",
    ),
    ("a wrong card key", PLAIN, SCHEMA.replace("licence", "license"), "did you mean 'licence'"),
    ("a schema that is no YAML", PLAIN, "columns: [", "not YAML"),
]


@pytest.mark.parametrize(
    ("lines", "schema", "says"), [bad[1:] for bad in BAD_TABLES], ids=[bad[0] for bad in BAD_TABLES]
)
def test_a_bad_table_is_refused_in_words(tmp_path, lines, schema, says):
    with pytest.raises(BadInput, match=says):
        table(written(tmp_path, lines, schema))


def test_another_encoding_than_the_schemas_is_named_with_its_remedy(tmp_path):
    path = written(tmp_path, replaced("A,50", "Köln,50"), encoding="latin-1")
    with pytest.raises(BadInput, match=r"not utf-8.*encoding: latin-1"):
        table(path)
    schema = SCHEMA + "encoding: latin-1\n"
    read = table(written(tmp_path, replaced("A,50", "Köln,50"), schema, encoding="latin-1"))
    assert len(read.records) == 3


def test_a_damaged_gzip_is_refused(tmp_path):
    place = tmp_path / "t.csv.gz"
    place.write_bytes(gzip.compress("\n".join(PLAIN * 50).encode())[:-20])
    (tmp_path / "t.csv.gz.schema.yaml").write_text(SCHEMA)
    with pytest.raises(BadInput, match="damaged gzip"):
        table(str(place))


def test_a_label_that_occurs_once_is_read(tmp_path):
    assert (
        table(written(tmp_path, [HEADER, "a,A,1,1,No,0", "b,A,2,1,No,1"])).records.labels.sum() == 1
    )


def test_what_is_not_there_is_said_with_the_name_expected(tmp_path):
    with pytest.raises(BadInput, match=r"no data\.path.*set data\.path=PATH"):
        table()
    with pytest.raises(BadInput, match=r"no file .*gone\.csv.*set data\.path=PATH"):
        table(str(tmp_path / "gone.csv"))
    (tmp_path / "t.csv").write_text(HEADER)
    with pytest.raises(BadInput, match=r"no schema .*t\.csv\.schema\.yaml"):
        table(str(tmp_path / "t.csv"))
    with pytest.raises(BadInput, match=r"did you mean 'diabetes_130'"):
        table(str(tmp_path / "t.csv"), schema="diabetes130")
