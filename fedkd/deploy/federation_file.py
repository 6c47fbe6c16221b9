"""Reads and writes federation.yaml: what a federation's records look like, signed by its key."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from fedkd.data.schema import TableSchema
from fedkd.data.typed_by_hand import mapping_of, read_yaml, text, yaml_of
from fedkd.deploy.invitations import federation_name
from fedkd.knowledge import BadInput, Digest, OtherFormat, Space, digest_of_bytes

FORMAT: Final = 1
MOST_BYTES: Final = 1 << 18
_SPACE_KEYS: Final = ("kind", "shape", "dtype", "low", "high", "classes", "offset", "divisor")
_CARD: Final = re.compile(r"^card:.*?(?=^[^\s#]|\Z)", re.MULTILINE | re.DOTALL)
_HEAD: Final = """\
# What a record looks like in the federation {name}: everything here is publicly known, typed by a
# person, and computed from no record. It is signed (federation.yaml.sig): whoever changes a byte
# of it makes another file, which no hospital takes.
format: {format}
name: "{name}"
"""
_TABLE: Final = """\
# Columns in the order in which a model sees them, with units, codes and the ranges that are
# clinically possible, and the classes of the label. A hospital maps its own columns to these in
# its site.yaml.
schema:
"""
_SPACE: Final = """\
# The shape of one input, its type and range, and the classes.
space:
"""


@dataclass(frozen=True, slots=True)
class FederationFile:
    """A federation's name and the form of its records; `schema` None where they are no table.

    `digest` is of the file's exact bytes, which the signature is over.
    """

    name: str
    schema: TableSchema | None
    space: Space
    digest: Digest

    @classmethod
    def read(cls, content: bytes, where: str = "federation.yaml") -> "FederationFile":
        """What the file says; `BadInput` with the wrong key. The signature is the caller's."""
        if len(content) > MOST_BYTES:
            raise BadInput(f"{where} of {len(content)} bytes", f"at most {MOST_BYTES}")
        given = mapping_of(yaml_of(content, where), where, ("format", "name", "schema", "space"))
        if given.get("format") != FORMAT:
            raise OtherFormat(where, given.get("format"), FORMAT)
        name = federation_name(text(given.get("name"), "name"))
        schema, space = form_of(given, where)
        return cls(name, schema, space, digest_of_bytes(content))


def form_of(given: Mapping[str, Any], where: str) -> tuple[TableSchema | None, Space]:
    """The form of records under `schema` (a table) or `space` (anything else) in a mapping."""
    if ("schema" in given) == ("space" in given):
        raise BadInput(f"{where} with schema and space, or neither", "one of the two")
    if "schema" in given:
        schema = TableSchema.from_json(given["schema"])
        return schema, schema.space()
    declared = mapping_of(given["space"], f"space in {where}", _SPACE_KEYS)
    try:
        return None, Space.from_json({"offset": 0.0, "divisor": 1.0, **declared})
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(
            f"a space in {where} that is none ({error})",
            f"the keys {', '.join(_SPACE_KEYS[:6])}",
        ) from None


def federation_yaml(name: str, schema: Path) -> str:
    """The text of federation.yaml with what a person typed in `schema`, comments kept.

    `schema` is a table's schema (docs/own-data.md), or a YAML file with the one key `space`.
    `BadInput` where it is neither. A card in it describes one hospital's records: it stays out.
    """
    try:
        typed = read_yaml(schema)
        written = schema.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"no schema in {schema} ({error.strerror})",
            "a file with columns and label as in docs/own-data.md, or with space",
        ) from None
    head = _HEAD.format(name=federation_name(name), format=FORMAT)
    if set(typed) == {"space"}:
        form_of(typed, schema.name)
        return head + _SPACE + _indented(typed["space"], None)
    declared = {key: value for key, value in typed.items() if key != "card"}
    TableSchema.from_json(declared).space()
    return head + _TABLE + _indented(declared, _CARD.sub("", written))


def _indented(value: Any, written: str | None) -> str:
    """`value` one level in; as it was `written`, where that says the same."""
    if written is not None:
        body = textwrap.indent(written.strip("\n") + "\n", "  ")
        try:
            if yaml.safe_load("under:\n" + body) == {"under": value}:
                return body
        except yaml.YAMLError:
            pass
    return textwrap.indent(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), "  ")
