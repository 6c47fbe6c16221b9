"""Runs the laws of its kind on one part, and says which of them it breaks."""

import functools
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import typer

from fedkd.cli.configuration import build, part, part_of_file
from fedkd.cli.validation import nearest
from fedkd.knowledge import BadInput

Laws: TypeAlias = Mapping[str, Callable[[Any], None]]

WHERE = {
    "aggregate": ("fedkd.knowledge.laws", "AGGREGATE_LAWS"),
    "filter": ("fedkd.knowledge.laws", "FILTER_LAWS"),
    "codec": ("fedkd.wire.laws", "CODEC_LAWS"),
    "loss": ("fedkd.distill.laws", "LOSS_LAWS"),
    "model": ("fedkd.distill.laws", "MODEL_LAWS"),
    "gate": ("fedkd.distill.laws", "GATE_LAWS"),
    "generator": ("fedkd.distill.generators.laws", "GENERATOR_LAWS"),
    "mechanism": ("fedkd.federation.mechanism_laws", "MECHANISM_LAWS"),
}
"""Where the laws of a kind stand: a dict of sentence -> check, which raises AssertionError."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a part keeps a law, and if not, why not."""

    law: str
    held: bool
    reason: str = ""


def laws(name: str, *, config_dir: Path | None, as_json: bool) -> int:
    """0 if every law of its kind is kept, 1 if one is broken, 3 if its kind has none."""
    group, content = _found(name, config_dir)
    sentences = laws_of(group)
    if not sentences:
        typer.echo(f"cannot tell: no laws are written down for {group}", err=True)
        return 3
    verdicts = [judge(law, check, content, group) for law, check in sentences.items()]
    if as_json:
        typer.echo(json.dumps({"part": name, "laws": [asdict(it) for it in verdicts]}, indent=2))
    else:
        _show(name, verdicts)
    return 0 if all(verdict.held for verdict in verdicts) else 1


def laws_of(group: str) -> Laws:
    """The laws on parts of a group; none where nobody has written any."""
    if group not in WHERE:
        return {}
    module, name = WHERE[group]
    try:
        return dict(getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return {}
        raise
    except AttributeError:
        return {}


def judge(
    law: str, check: Callable[[Any], None], content: Mapping[str, Any], group: str
) -> Verdict:
    """Runs one law on a freshly built part: any exception breaks it, with its text as reason."""
    try:
        check(_made(content, group))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Verdict(law, False, kind + (lines[0] if lines else "no reason given"))
    return Verdict(law, True)


def _made(content: Mapping[str, Any], group: str) -> Any:
    """The part as its laws take it: of a model that is a factory of classifiers."""
    made = build(content, group)
    if group != "model":
        return made
    from fedkd.distill import as_classifier

    return functools.partial(as_classifier, made)


def _found(name: str, config_dir: Path | None) -> tuple[str, dict[str, Any]]:
    if name.endswith((".yaml", ".yml")):
        return part_of_file(Path(name))
    group, slash, option = name.partition("/")
    if not slash or not option:
        near = nearest(group, WHERE)
        raise BadInput(
            name,
            "group/name such as aggregate/mean, or a yaml file",
            f"did you mean {near[0]}/<name>?" if near else "groups: " + ", ".join(WHERE),
        )
    return group, part(group, option, config_dir)


def _show(name: str, verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        typer.echo(f"{'held  ' if verdict.held else 'BROKEN'}  {verdict.law}")
        if not verdict.held:
            typer.echo(f"        {verdict.reason}")
    broken, laws = sum(not verdict.held for verdict in verdicts), len(verdicts)
    kept = f"{name} keeps {'its one law' if laws == 1 else f'all {laws} laws'}"
    typer.echo(f"{name} breaks {broken} of {laws}" if broken else kept)
