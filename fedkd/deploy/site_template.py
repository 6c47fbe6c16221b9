"""Writes a hospital's site.yaml, commented, as far as its file and the federation's schema tell."""

import gzip
import json
from pathlib import Path
from typing import Final

from fedkd.data import CategoricalColumn, TableSchema
from fedkd.data.columns import Column
from fedkd.deploy.federation_file import FederationFile
from fedkd.deploy.site_file import FORMAT, TO_FILL_IN
from fedkd.knowledge import BadInput

_MARKS: Final = (",", ";", "\t", "|")
_MOST_LINE: Final = 1 << 16

_HEAD: Final = """\
# What {site} brings to the federation {federation}, and what it accepts. This file stays here; no
# server can read it or override it. Write what stands at every {todo}, then try it, and start:
#   fedkd site check {folder}
#   fedkd site start {folder}
format: {format}

# Where the records are; nothing but these columns is read.
data:
  path: {path}
"""
_SPELLING: Final = """\
  # How the file is written, where it is not as the federation's schema says:
  # encoding: windows-1252      # of files that old spreadsheets saved
  # decimal: ","
  # thousands: "."
  # missing_values: ["", "-", "nicht gemessen"]
{known}  patient: null               # the column that says whose row it is; null: each is a patient
"""
_COLUMNS: Final = """
# Each column of the federation, and the column of your file. In another unit, say what a number is
# multiplied by (and, where it is needed, added): 5.2 mmol/l of cholesterol are 5.2 * 38.67 mg/dl:
#   chol: {column: cholesterin, unit: mmol/l, factor: 38.67}
# Other codes than the federation's are spelled out: sex: {column: Geschlecht, codes: {m: 1, w: 0}}
# What the hospital does not have is column: null.
columns:
"""
_LABEL: Final = """
# The column that says the class: {classes}.
# With other words in it: label: {{column: Diagnose, codes: {{KHK: {last}, unauffällig: {first}}}}}
label: {label}
"""
_PICTURES: Final = """\
  # A folder of CLASS/FILE.png with the classes {classes}.
  patient: null   # a regular expression whose first group, in a file's name, is the patient
"""
_REST: Final = """
# Where the records come from: typed by a person, never computed; it goes into the site's log.
card:
  name: {todo}          # such as heart disease register
  version: {todo}       # such as 2019 to 2024, as of 2026-11-01
  modality: {modality}
  licence: {todo}       # such as not licensed to others
  legal_basis: {todo}   # GDPR, Articles 6 and 9: to be stated by the hospital, not by this program
  origin: {todo}        # such as the hospital's own records

# The model of this hospital's own: a name of fedkd's conf/model. Nobody else ever sees it.
model: {model}
training: {{learning_rate: {rate}, weight_decay: {decay}, steps: records}}
validation: 0.1         # the share of the records by which the model is judged; they are not learnt
# seed: 11              # who is in that share, where mechanism is none: as in a simulation of this
#                         seed, whose student a run then repeats to the last bit; else it is chance

# How answers are protected. dp_training is the default: what leaves has a bound, epsilon, and the
# data protection officer's signed paper says how much may ever be spent; it starts at epsilon 1.
# `none` protects nothing, and needs a paper that says so in as many words.
mechanism: dp_training
# mechanism: {{name: dp_training, epsilon: 0.5}}   # what one run may spend, at most
# population: {site}    # what the officer's paper calls these patients

# The last word on what may leave, whatever a server asks. A refusal tells its reason, nothing more.
policy:
  rehearsals: true              # rows from declared ranges: no record is read, nothing is charged
  query_sets:                   # which questions may be answered
    digests: []                 # of these exact sets, sha256:...
    sources: []                 # public sets of these names: what is in one is the coordinator's
                                # word, unless fedkd carries it; a digest binds
    generators: [{generator}]   # sets that this site draws again by itself
  most_queries: {{run: 20000, day: 50000}}   # a day by this machine's clock, as hours are;
                                # null is no limit; left out, these are
  most_repeats: 10              # alike rows in one set
  most_rounds: 100
  most_epochs: 200
  smallest_training_set: 50     # patients to learn from, without validation and who was taken out
  fewest_cosigners: 1           # others who watch this site's log, where a budget
                                # bounds what leaves, and within how many hours they must have
  most_unwatched_hours: 168     # said so (168: a week); of runs and of evaluations
  hours: null                   # such as "08:00-18:00", this machine's local time;
                                # what is ready later stays
  figures: []                   # [counts]: noised counts of right and wrong answers, charged;
                                # [counts, exact_counts]: also unnoised, where no budget is bounded

# Questions about how good the common model is here, where the policy's figures allow them.
evaluations: {{models: [{model}], most_epsilon: 4.0, floor: 5, groups: []}}

rehearsal: {{records: 200}}

# For how many days the log keeps what its entries say, by type of event; a type that is not here
# is kept as long as the log, and by default nothing is erased. Nothing goes by itself, either:
#   fedkd site erase {folder}         # shows what is due
#   fedkd site erase {folder} --yes   # erases it, and the log says so
# Headers stay, and with them every proof; so does what budgets, answers and approvals need, and
# all of a run whose last entry is younger than the rule. It does NOT reach outbox/ and models,
# copies that were handed over, and backups. Without train.local, fedkd privacy exclude names no
# models of before.
# AI Act, Art. 19(1) and 26(6), ask for at least six months (183 days).
# retention: {{train.local: 365, release.refused: 200}}
# This line stays the last: a file without it was cut off, and then nothing is answered.
retention: {{}}
"""


def template(
    site: str, folder: Path, federation: FederationFile, data: Path | None, patient: str | None
) -> str:
    """The text of a site.yaml; of `data`, the hospital's file, the first line alone is read."""
    path = TO_FILL_IN if data is None else json.dumps(str(data), ensure_ascii=False)
    head = _HEAD.format(
        site=site, federation=federation.name, todo=TO_FILL_IN, folder=folder,
        format=FORMAT, path=path,
    )  # fmt: skip
    kind = federation.space.kind
    table = federation.schema is not None
    rest = _REST.format(
        todo=TO_FILL_IN, site=site, modality=kind if kind != "table" else "table",
        model="mlp" if table else "cnn",
        generator="procedural" if kind == "image" else "dictionary", folder=folder,
        rate=0.003 if table else 0.001, decay=0.01 if table else 0.0,
    )  # fmt: skip
    if federation.schema is None:
        return head + _PICTURES.format(classes=", ".join(federation.space.classes)) + rest
    found = _First.of(data, federation.schema) if data is not None else _First((), "")
    spelling = _SPELLING.format(known=found.known)
    if patient is not None:
        spelling = spelling.replace("patient: null  ", f"patient: {_plain(patient)}")
    return head + spelling + _table(federation.schema, found.names) + rest


class _First:
    """The names in a file's first line, and what that line tells of how the file is written."""

    def __init__(self, names: tuple[str, ...], known: str) -> None:
        self.names, self.known = names, known

    @classmethod
    def of(cls, path: Path, schema: TableSchema) -> "_First":
        try:
            opened = gzip.open if path.suffix == ".gz" else Path.open
            with opened(path, "rb") as file:
                line = file.readline(_MOST_LINE).decode("utf-8-sig", errors="replace").strip()
        except OSError as error:
            raise BadInput(
                f"{path}, which cannot be read ({error.strerror})", "the file of records"
            ) from None
        if path.suffix.lower() in (".parquet", ".pq"):
            return cls((), "")
        mark = max(_MARKS, key=line.count)
        names = tuple(part.strip().strip('"') for part in line.split(mark))
        known = "" if mark == schema.separator else f"  separator: {json.dumps(mark)}\n"
        if all(_is_value(name, schema) for name in names):
            wanted = [column.name for column in schema.columns] + [schema.label.column]
            declared = list(schema.header or wanted)
            if len(declared) != len(names):
                declared = [f"column {number}" for number in range(1, len(names) + 1)]
            listed = json.dumps(declared, ensure_ascii=False)
            known += "  # The file has no line of names. Is this their order?\n"
            known += f"  header: {listed}\n"
            names = tuple(declared)
        return cls(names, known)


def _is_value(name: str, schema: TableSchema) -> bool:
    spelt = schema.number_format
    return spelt.is_missing(name) or spelt.parse(name) is not None


def _table(schema: TableSchema, names: tuple[str, ...]) -> str:
    lines = [_COLUMNS]
    for column in schema.columns:
        lines.append(f"  {_plain(column.name)}: {_line(column, names)}\n")
    label = f"{{column: {_guess(schema.label.column, names)}}}"
    classes = schema.classes
    lines.append(
        _LABEL.format(
            classes=", ".join(classes), first=_plain(classes[0]), last=_plain(classes[-1]),
            label=label,
        )
    )  # fmt: skip
    return "".join(lines)


def _line(column: Column, names: tuple[str, ...]) -> str:
    guess = _guess(column.name, names)
    if isinstance(column, CategoricalColumn):
        return f"{{column: {guess}}}   # one of {', '.join(column.categories[:12])}"
    unit = f", unit: {_plain(column.unit)}" if column.unit else ""
    return f"{{column: {guess}{unit}}}   # {column.low:g} to {column.high:g} {column.unit}".rstrip()


def _guess(name: str, names: tuple[str, ...]) -> str:
    for found in names:
        if found.strip().lower() == name.lower():
            return _plain(found)
    return TO_FILL_IN


def _plain(name: str) -> str:
    """`name` as YAML reads it back: in quotes wherever that could be anything else than a text."""
    safe = name.replace(" ", "").replace("_", "").isalpha() and name.lower() not in {
        "yes", "no", "on", "off", "true", "false", "null", "y", "n",
    }  # fmt: skip
    return name if safe else json.dumps(name, ensure_ascii=False)
