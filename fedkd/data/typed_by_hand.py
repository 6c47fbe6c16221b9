"""Reads mappings that a person typed: a wrong key or kind is named with its nearest spelling."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedkd.knowledge import BadInput

SPELT = "in the schema, or at a hospital under data: in site.yaml"
"""Where it is said how a file is written: a federation's schema is signed, and no hospital's."""
NAMED = "in the schema, or at a hospital under columns: or label: in site.yaml"
"""Where it is said what a file calls its columns and values."""
_NOT_AS_IT_LOOKS = re.compile(r"[+-]?0\w|.*[:_]")
"""A number that YAML 1.1 reads as another: 050 as 40, 1:30 as 90, 0b1 as 1, 1_0 as 10."""


def nearest(word: str, options: Iterable[str]) -> str:
    """`did you mean ...?` with the option closest to `word`; empty where none is close."""
    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"did you mean {by_lower[close[0]]!r}?" if close else ""


def mapping_of(value: object, where: str, keys: Iterable[str]) -> dict[str, Any]:
    """`value` as a dict whose keys all are among `keys`; `BadInput` names the place otherwise."""
    known = tuple(keys)
    if not isinstance(value, Mapping):
        raise BadInput(f"{value!r} as {where}", f"a mapping with the keys {', '.join(known)}")
    for key in value:
        if key not in known:
            raise BadInput(
                f"the key {key!r} in {where}",
                f"one of {', '.join(known)}",
                nearest(str(key), known),
            )
    return dict(value)


def number(value: object, where: str) -> float:
    """`value` as a float; `BadInput` for a text, a truth value or what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(
            f"{value!r} as {where}", "a number", "a power of ten is written 1.0e+3 in YAML"
        )
    if not math.isfinite(value):
        raise BadInput(f"{value!r} as {where}", "a finite number")
    return float(value)


def truth(value: object, where: str) -> bool:
    """`value`, if it is true or false; `BadInput` otherwise."""
    if not isinstance(value, bool):
        raise BadInput(f"{value!r} as {where}", "true or false")
    return value


def text(value: object, where: str) -> str:
    """`value`, if it is a text; `BadInput` otherwise."""
    if not isinstance(value, str):
        raise BadInput(f"{value!r} as {where}", "a text", "put it in quotes")
    return value


def listed(value: object, where: str) -> list[Any]:
    """`value` as a list; `BadInput` for a single text or anything else."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise BadInput(f"{value!r} as {where}", "a list", "write it as [first, second]")
    return list(value)


def spelling(value: object, where: str) -> str:
    """The one spelling of a category or class that a person typed: 1, 1.0 and "1" are `1`.

    A truth value is refused: YAML reads an unquoted No or Yes as one, and the table says No.
    """
    if isinstance(value, bool):
        raise BadInput(
            f"the truth value {value} in {where}",
            "a text or a number",
            "put it in quotes: YAML reads an unquoted Yes, No, On or Off as true or false",
        )
    if not isinstance(value, str | int | float):
        raise BadInput(f"{value!r} in {where}", "a text or a number")
    return plain_text(value)


def plain_text(value: object) -> str:
    """`value` of a table's cell as text without spaces around it; a whole float loses its `.0`."""
    said = str(value).strip()
    whole, dot, rest = said.partition(".")
    if dot and rest and not rest.strip("0") and whole.lstrip("+-").isdigit():
        return whole
    return said


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`; `BadInput` where it is none or names a key twice."""
    return yaml_of(path.read_bytes(), path.name)


def yaml_of(content: bytes, name: str) -> dict[str, Any]:
    """The mapping that the YAML file `name` holds; `BadInput` as `read_yaml`."""
    import yaml

    class Strict(yaml.SafeLoader):
        """Refuses what YAML forbids and PyYAML lets pass, and numbers that are not as they look."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise BadInput(f"the key {key!r} twice in {name}", "each key once")
            return super().construct_mapping(node, deep)

        def plain_number(self, node: yaml.ScalarNode) -> int | float:
            if _NOT_AS_IT_LOOKS.match(said := str(node.value)):
                raise BadInput(
                    f"the number {said} in line {node.start_mark.line + 1} of {name}",
                    "digits without a zero before them, a colon or an underscore",
                    f'put it in quotes if it is a text: "{said}"',
                )
            whole = node.tag.endswith(":int")
            read: int | float = (
                self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
            )
            return read

    for kind in ("int", "float"):
        Strict.add_constructor(f"tag:yaml.org,2002:{kind}", Strict.plain_number)

    try:
        read = yaml.load(content.decode("utf-8"), Loader=Strict)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{name}, which is not YAML ({error})", "a YAML mapping") from error
    if not isinstance(read, dict):
        raise BadInput(f"{name} without any key", "a YAML mapping")
    return read
