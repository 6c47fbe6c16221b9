"""Holds every configured value against the signature or dataclass that it will be given to."""

import dataclasses
import difflib
import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedkd.cli.keys import EXTRAS, GROUPS, OPTIONAL_GROUPS, PLAIN_GROUPS, Configuration
from fedkd.knowledge import BadInput, OneOf, Range

HANDED_OVER = {
    "model": ("space", "rng"),
    "gate": ("space", "rng"),
    "generator": ("space", "schema"),
}
"""Arguments that the program gives a part of a group, and no yaml."""

SWITCHES = ("_target_", "_partial_")
"""What a yaml says about itself: what to call, and whether the program calls it later."""

LARGEST_WHOLE = 2**53 - 1
"""A configuration is hashed as JSON, whose numbers are exact up to here (RFC 8785, 3.2.2.3)."""

REQUIRED: Any = object()
"""Stands where a parameter has no default."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """What may stand at a key: the annotation that it is held against, and its default."""

    annotation: Any
    default: Any = REQUIRED


def check(configuration: Mapping[str, Any], groups: Sequence[str] = GROUPS) -> None:
    """Raises `BadInput` unless every key is known and every value has its type and range."""
    fields = parameters_of_dataclass(Configuration)
    for key in configuration:
        if key not in fields and key not in groups and key != "choices":
            raise unknown_key(key, known_keys(configuration))
    own = {key: value for key, value in configuration.items() if key in fields}
    _check_mapping(own, fields, "", configuration)
    for group in groups:
        check_part(group, configuration.get(group), configuration)
    _check_together(configuration)


def check_part(group: str, part: Any, configuration: Mapping[str, Any] | None = None) -> None:
    """Raises `BadInput` unless `part`, the content of a group's yaml, fits what it is given to."""
    if part is None and group in OPTIONAL_GROUPS:
        return
    if not isinstance(part, Mapping):
        raise BadInput(f"{group}={part!r}", f"a yaml of conf/{group} by its name")
    _check_mapping(part, parameters_of_part(group, part), group, configuration or {group: part})


def parameters_of_part(group: str, part: Mapping[str, Any]) -> dict[str, Parameter]:
    """The keys that a group's yaml may hold: its target's arguments, and the group's own."""
    extras = parameters_of_dataclass(EXTRAS[group]) if group in EXTRAS else {}
    if "_target_" in part:
        return extras | parameters_of_target(target_of(part, group), group)
    if group in PLAIN_GROUPS:
        return parameters_of_dataclass(PLAIN_GROUPS[group])
    if part.get("kind", "none") == "none" and group in OPTIONAL_GROUPS:
        return {"kind": Parameter(str)}
    raise BadInput(f"no _target_ in the yaml of {group}", "the dotted name of a function or class")


def target_of(part: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """What a yaml's `_target_` names, imported; `BadInput` if there is no such thing."""
    dotted = part["_target_"]
    if not isinstance(dotted, str) or not all(name.isidentifier() for name in dotted.split(".")):
        raise BadInput(f"{where}._target_={dotted!r}", "a dotted name such as package.module.name")
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"{where}._target_={dotted}, which cannot be imported ({error})",
            "an installed function or class",
            "correct the yaml, or install the package that holds it",
        ) from error
    if not callable(found):
        raise BadInput(f"{where}._target_={dotted}, a {type(found).__name__}", "something to call")
    return typing.cast(Callable[..., Any], found)


def parameters_of_dataclass(kind: type) -> dict[str, Parameter]:
    """The fields of a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        field.name: Parameter(
            hints[field.name],
            REQUIRED if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(kind)
    }


def parameters_of_target(target: Callable[..., Any], group: str = "") -> dict[str, Parameter]:
    """The arguments of a function or class; an annotation that cannot be read allows anything."""
    written = target.__init__ if inspect.isclass(target) else target
    names = getattr(inspect.unwrap(written), "__globals__", {})
    try:
        signature = inspect.signature(target)
    except ValueError as error:
        raise BadInput(f"{target}, whose arguments cannot be read", "a Python function") from error
    found = {}
    for name, parameter in signature.parameters.items():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if variable or name in HANDED_OVER.get(group, ()):
            continue
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        found[name] = Parameter(_annotation(parameter, names), default)
    return found


def _annotation(parameter: inspect.Parameter, names: Mapping[str, Any]) -> Any:
    """One annotation at a time: a name that exists for type checkers only spoils no other."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = type("Holder", (), {"__annotations__": {"it": parameter.annotation}})
    try:
        return typing.get_type_hints(holder, dict(names), include_extras=True)["it"]
    except (NameError, TypeError, AttributeError):
        return Any


def _check_mapping(
    values: Mapping[str, Any],
    fields: Mapping[str, Parameter],
    where: str,
    configuration: Mapping[str, Any],
) -> None:
    dot = f"{where}." if where else ""
    for key, value in values.items():
        if key in SWITCHES:
            continue
        if key not in fields:
            known = known_keys(configuration) if configuration else []
            raise unknown_key(f"{dot}{key}", [f"{dot}{name}" for name in fields] + known)
        check_value(f"{dot}{key}", value, fields[key].annotation)
    for key, field in fields.items():
        if key not in values and field.default is REQUIRED and _is_plain(field.annotation):
            raise BadInput(f"no {dot}{key}", expectation(field.annotation), f"add {dot}{key}=...")


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Raises `BadInput` unless `value` fits `annotation`, nested ones included."""
    if value == "???":
        raise BadInput(f"no {key}", expectation(annotation), f"add {key}=...")
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        if not isinstance(value, Mapping):
            raise BadInput(f"{key}={_shown(value)}", f"keys below {key}, such as {key}.x=...")
        _check_mapping(value, parameters_of_dataclass(annotation), key, {})
    elif isinstance(value, Mapping) and "_target_" in value:
        _check_mapping(value, parameters_of_target(target_of(value, key)), key, {})
    elif not fits(value, annotation):
        raise BadInput(f"{key}={_shown(value)}{_kind(value)}", expectation(annotation))


def fits(value: Any, annotation: Any) -> bool:  # noqa: PLR0911 - one return a kind of type
    """Whether a plain value may be given where `annotation` is asked for."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or isinstance(annotation, typing.TypeVar):
        return True
    if origin is typing.Annotated:
        marks = [mark for mark in inner[1:] if isinstance(mark, Range | OneOf)]
        return fits(value, inner[0]) and all(value is None or value in mark for mark in marks)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        same = isinstance(value, list | tuple) and len(value) == len(inner)
        return same and all(fits(*pair) for pair in zip(value, inner, strict=True))
    if _is_sequence(origin or annotation):
        one = inner[0] if inner else Any
        return isinstance(value, list | tuple) and all(fits(item, one) for item in value)
    if _is_mapping(origin or annotation):
        key, one = inner or (Any, Any)
        return isinstance(value, Mapping) and all(
            fits(k, key) and fits(v, one) for k, v in value.items()
        )
    return _fits_plain(value, annotation)


def _fits_plain(value: Any, annotation: Any) -> bool:
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and not _is_too_large(value)
    if annotation is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and not _is_too_large(value) and math.isfinite(value)
    if annotation is str or getattr(annotation, "__name__", "") in ("Path", "PathLike"):
        return isinstance(value, str)
    return True


def expectation(annotation: Any) -> str:  # noqa: PLR0911 - one return a kind of type
    """Says in words what `annotation` asks for."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        marks = [mark for mark in inner[1:] if isinstance(mark, Range | OneOf)]
        if any(isinstance(mark, OneOf) for mark in marks):
            return " or ".join(str(mark) for mark in marks)
        return " ".join([expectation(inner[0]), *map(_range_in_words, marks)])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expectation(option) for option in inner)
    if origin is typing.Literal:
        return " | ".join(str(option) for option in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return "[" + ", ".join(expectation(item) for item in inner) + "]"
    if _is_sequence(origin or annotation):
        return f"a list such as [a, b], each {expectation(inner[0] if inner else Any)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if annotation is None or annotation is type(None):
        return "null"
    return words.get(annotation, "a value of the documented kind")


def _range_in_words(mark: Any) -> str:
    low, high = mark.low, mark.high
    if low is not None and high is not None:
        return f"from {low:g} to {high:.10g}"
    return f"of at least {low:g}" if low is not None else f"of at most {high:g}"


def unknown_key(key: str, known: Iterable[str]) -> BadInput:
    """The refusal of a key that does not exist, with the nearest right spellings."""
    near = nearest(key, known)
    remedy = f"did you mean {' or '.join(near)}?" if near else "fedkd simulate --help names them"
    return BadInput(f"{key}, which is no configuration key", "a known key", remedy)


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The spellings of `known` nearest to `word`, by the whole and by the last part."""
    choices = sorted(set(known))
    if clear := difflib.get_close_matches(word, choices, n=1, cutoff=0.85):
        return clear
    whole = difflib.get_close_matches(word, choices, n=most, cutoff=0.6)
    last = word.rsplit(".", 1)[-1]
    tails = [key for key in choices if key.rsplit(".", 1)[-1] == last]
    similar = {key.rsplit(".", 1)[-1] for key in choices}
    close = set(difflib.get_close_matches(last, sorted(similar), n=1, cutoff=0.75))
    ends = [key for key in choices if key.rsplit(".", 1)[-1] in close]
    return list(dict.fromkeys([*tails, *whole, *ends]))[:most]


def known_keys(configuration: Mapping[str, Any], groups: Sequence[str] = GROUPS) -> list[str]:
    """Every key that may be set, dotted, with what the chosen parts of each group take."""
    keys = [*groups, *flattened(Configuration)]
    for group in groups:
        part = configuration.get(group)
        if isinstance(part, Mapping):
            keys += [f"{group}.{name}" for name in parameters_of_part(group, part)]
    return keys


def flattened(kind: type, before: str = "") -> list[str]:
    """The dotted names of a dataclass's fields, those of nested dataclasses included."""
    names = []
    for name, parameter in parameters_of_dataclass(kind).items():
        names.append(before + name)
        if dataclasses.is_dataclass(parameter.annotation):
            names += flattened(typing.cast(type, parameter.annotation), f"{before}{name}.")
    return names


def _check_together(configuration: Mapping[str, Any]) -> None:
    """What no single value shows: keys that need or exclude each other."""
    query, sites = configuration["query"], configuration["sites"]
    if not sites.get("rehearsal", True) and not sites.get("dir"):
        raise BadInput(
            "sites.rehearsal=false without sites.dir",
            "lasting folders: sites inside a run are a rehearsal",
            "add sites.dir=DIR",
        )
    if query["kind"] == "mismatched" and not query.get("data"):
        raise BadInput(
            "query=mismatched without query.data",
            "the name of the data yaml that the queries come from",
            "add query.data=kmnist, for example",
        )
    if query["kind"] == "synthetic" and _is_none(configuration.get("generator")):
        raise BadInput(
            "query=synthetic without a generator",
            "generator=<a name of conf/generator>",
            "add generator=..., for example one that suits the data",
        )
    if configuration["lesson"]["kind"] == "minimum_subtracted" and _is_none(
        configuration.get("gate")
    ):
        raise BadInput(
            "lesson=minimum_subtracted without a gate",
            "a gate, since only a gate spreads what is subtracted",
            "add gate=<a name of conf/gate>, or use lesson=plain",
        )
    if _is_none(configuration["mechanism"]):
        for group, key in (("budget", "epsilon"), ("budget", "delta"), ("mechanism", "epsilon")):
            if (value := configuration[group].get(key)) is not None:
                raise BadInput(
                    f"{group}.{key}={value} with mechanism=none",
                    "a mechanism that bounds what an answer tells: without one no budget holds",
                    f"add mechanism=<name>, or leave {group}.{key} out",
                )
        return
    name = str(configuration["mechanism"].get("_target_", "")).rpartition(".")[2]
    real = not configuration["sites"].get("rehearsal", True)
    for key, value in configuration["budget"].items():
        if real and value is not None:
            raise BadInput(
                f"budget.{key}={value} with sites.rehearsal=false",
                "none: at such a site its officer's signed paper says it",
                f"leave budget.{key} out; fedkd privacy budget new makes a paper to be signed",
            )
    if configuration["budget"].get("epsilon") is None and not real:
        raise BadInput(
            f"mechanism={name} and no budget",
            "budget.epsilon, which a site's patients may spend at most, ever",
            "for example budget.epsilon=4, or 1 where nothing speaks for more",
        )
    if not _is_none(configuration.get("gate")):
        raise BadInput(
            f"a gate with mechanism={name}",
            "none: a gate reads records, and what it opens is not paid for",
            "leave gate out",
        )
    if configuration["clients"].get("cohort") == "auto":
        raise BadInput(
            f"clients.cohort=auto with mechanism={name}",
            "off: a private site trains in its own turn, once it has paid",
            "leave clients.cohort out",
        )


def _is_none(part: Any) -> bool:
    """Whether a group's part says that nothing of the kind is used."""
    if part is None or part.get("kind") == "none":
        return True
    return str(part.get("_target_", "")).rpartition(".")[2] == "none"


def _is_sequence(kind: Any) -> bool:
    return kind in (list, tuple) or getattr(kind, "__name__", "") in ("Sequence", "Iterable")


def _is_mapping(kind: Any) -> bool:
    return kind is dict or getattr(kind, "__name__", "") == "Mapping"


def _is_plain(annotation: Any) -> bool:
    """Whether a yaml could hold such a value: other arguments are handed over by the program."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_plain(inner[0])
    if origin in (typing.Union, types.UnionType):
        return any(_is_plain(option) for option in inner if option is not type(None))
    nested = isinstance(annotation, type) and dataclasses.is_dataclass(annotation)
    sequence = _is_sequence(origin or annotation)
    return nested or sequence or annotation in (int, float, bool, str) or origin is typing.Literal


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if value in (True, False) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    if _is_too_large(value):
        return " (beyond 2^53)"
    return " (text)" if isinstance(value, str) else ""


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > LARGEST_WHOLE
