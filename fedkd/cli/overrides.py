"""Reads overrides by Hydra's grammar, refuses what may not be typed, and writes texts in it."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

NAMED_GROUPS = ("model",)
"""Groups that are not chosen by `group=name`: their names stand inside other keys."""

NAMING_CODE = ("generator",)
"""Groups whose keys may name functions (generator.priors): only a yaml may."""


def quoted(text: str) -> str:
    """`text` as a value that Hydra's grammar reads as this text, whatever is in it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    mark = Quote.double if "'" in text and '"' not in text else Quote.single
    return QuotedString(text, mark).with_quotes()


def typed(key: str, text: str) -> str:
    """The override that sets `key` to a text, ready for a shell."""
    if re.fullmatch(r"[A-Za-z/_.][\w/.+-]*", text, re.ASCII) and not _is_reserved(text):
        return f"{key}={text}"
    override = f"{key}={quoted(text)}"
    return shlex.quote(override) if re.search(r'["$`\\!]', override) else f'"{override}"'


def parsed(overrides: Sequence[str], loader: "ConfigLoader") -> list["Override"]:
    """The overrides by Hydra's grammar, each of a kind that may be typed here."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create(config_loader=loader)
    found = []
    for text in overrides:
        written = _enabled(text)
        if written[:1] in ("+", "~"):
            raise BadInput(
                text, "key=value: keys are neither added nor taken away", "leave the sign out"
            )
        if "=" not in written.lstrip("="):
            raise BadInput(repr(text), "key=value", f"write {text.strip('=') or 'key'}=<value>")
        try:
            found += parser.parse_overrides([written])
        except HydraException as error:
            raise _unreadable(text) from error
        _refuse_strange(found[-1], text)
    return found


def _unreadable(text: str) -> BadInput:
    """The refusal of what is not Hydra's grammar; a text with a special sign is shown quoted."""
    key, _, value = text.partition("=")
    special = re.search(r"[^\w/\\+.$%*@?|:=,(){} \[\]-]", value, re.ASCII)
    if special and value[0] not in "[{\"'" and "(" not in value:
        return BadInput(
            f"{text!r} with the sign {special.group()!r}",
            "a text with special signs in quotes",
            f"write {typed(key, value)}",
        )
    return BadInput(
        repr(text),
        "key=value, with brackets and quotes closed",
        "a list is key=[a,b], a text with special signs is key='\"text\"'",
    )


def _is_reserved(text: str) -> bool:
    """Whether the grammar reads `text` as null, a truth or a number, and not as a text."""
    return bool(re.fullmatch(r"null|true|false|[+-]?(inf|nan)|[.\d].*", text, re.IGNORECASE))


def _enabled(text: str) -> str:
    """`baselines=true` is short for `baselines.enabled=true`."""
    return re.sub(r"^baselines=", "baselines.enabled=", text)


def _refuse_strange(override: "Override", text: str) -> None:
    """Only a yaml file may name code, and Hydra's own switches are not ours."""
    if re.search(r"(^|[^A-Za-z0-9])_[a-z]+_([^A-Za-z0-9]|$)", text):
        raise BadInput(
            text,
            "a value: code is named in yaml files alone, never on a command line",
            "write a yaml and point --config-dir at its folder",
        )
    if override.key_or_group.split(".")[0] in NAMING_CODE and not override.is_sweep_override():
        for word in _texts(override.value()):
            if "." in word and all(name.isidentifier() for name in word.split(".")):
                raise BadInput(
                    f"{text}, where {word} names code",
                    "names without a dot: code is named in yaml files alone",
                    "write a yaml and point --config-dir at its folder",
                )
    if override.is_hydra_override() or override.package is not None:
        raise BadInput(text, "a key of fedkd", "Hydra's own keys are not used here")
    if override.key_or_group.split(".")[0] == "choices":
        raise BadInput(text, "group=name", "choices are what was chosen, not what is set")
    if override.key_or_group in NAMED_GROUPS:
        name = text.partition("=")[2]
        remedy = f"did you mean clients.models=[{name}] or student.model={name}?"
        raise BadInput(text, "a known key", remedy)
    if not override.is_sweep_override() and "${" in str(override.value()):
        raise BadInput(text, "a plain value", "references belong into yaml files")


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, int | float):
        yield str(getattr(value, "text", value))
