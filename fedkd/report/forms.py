"""Writes what a report still asks for as a form, and reads it back once a person filled it in.

A form is YAML, or a Word document where its name ends in `.docx` (`word_forms`). Reading is strict:
an answer counts only for the question that it was given to, word for word as it is asked today.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fedkd.knowledge import BadInput
from fedkd.report.verify.catalogue import Catalogue

FORMAT: Final = "fedkd-form/1"
WORD: Final = ".docx"
MOST_FORM_BYTES: Final = 1 << 24
INTRODUCTION: Final = (
    "Fill in the answers that you can give and leave the others empty. Each becomes a statement "
    "that is signed with your key, with your name and the date: it is shown as DECLARED, and "
    "never as computed."
)
NEW_FORM: Final = "make a new form with fedkd report questions, and copy the answers into it"


class Question(NamedTuple):
    """A field that is open: its name, where it stands in the law, and what is asked."""

    field: str
    point: str
    asked: str


class Given(NamedTuple):
    """What a filled-in form says of one field; `asked` None where the form does not repeat it."""

    field: str
    asked: str | None
    answer: str


class Filled(NamedTuple):
    """A form as it came back: of which run, and every question in it with its answer."""

    run: str | None
    given: Sequence[Given]


Questions = Mapping[str, Sequence[Question]]
"""By who could answer."""


def form(name: str, run: str, questions: Questions) -> bytes:
    """The form, by the end of its name a Word document or YAML; every answer is empty.

    Raises `BadInput` where a Word document is asked for and python-docx is not installed.
    """
    if name.lower().endswith(WORD):
        from fedkd.report.word_forms import document

        return document(run, questions)
    return _yaml(run, questions).encode()


def answers(path: Path, run: str, catalogue: Catalogue) -> dict[str, str]:
    """The answers of a form that was filled in, by field; those left empty are left out.

    Raises `BadInput` where it is no form, one of another run, or asks what is not asked today.
    """
    try:
        if path.stat().st_size > MOST_FORM_BYTES:
            raise BadInput(f"{path}, larger than {MOST_FORM_BYTES} bytes", "a form")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{error.strerror} at {path}", "a form that was filled in") from None
    if content.startswith(b"PK\x03\x04"):
        from fedkd.report.word_forms import read

        filled = read(str(path), content)
    else:
        filled = _read_yaml(str(path), content)
    if filled.run not in (None, run):
        raise BadInput(f"{path}, a form of run {filled.run}", f"one of run {run}", NEW_FORM)
    texts: dict[str, str] = {}
    for one in filled.given:
        _expect_as_asked(str(path), one, catalogue)
        if one.field in texts:
            raise BadInput(f"{one.field} twice in {path}", "each field once", NEW_FORM)
        texts[one.field] = one.answer.strip()
    texts = {field: text for field, text in texts.items() if text}
    if not texts:
        raise BadInput(f"no field filled in in {path}", "at least one answer")
    return texts


def asked_of(requirement: str, applies: str | None) -> str:
    """A question in words."""
    return f"{requirement} ({applies})" if applies else requirement


def _expect_as_asked(path: str, one: Given, catalogue: Catalogue) -> None:
    if one.asked is None or not one.answer.strip():
        return
    field = next((field for field in catalogue.fields if field.id == one.field), None)
    if field is None:
        return  # who takes the answers in says which fields there are
    expected = asked_of(field.requirement, field.applies)
    if one.asked.split() != expected.split():
        raise BadInput(
            f"an answer to {one.asked[:100]!r} under {one.field} in {path}",
            f"one to {expected[:100]!r}",
            f"a question may not be changed: {NEW_FORM}",
        )


def _yaml(run: str, questions: Questions) -> str:
    lines = [
        f"# What the report of run {run} still asks for.",
        *(f"# {line}." for line in INTRODUCTION.rstrip(".").split(". ")),
        f"form: {FORMAT}",
        f"run: {json.dumps(run)}",
        "answers:",
    ]
    for who, asked in questions.items():
        lines += ["", f"  # {who}"]
        for one in asked:
            lines += [
                f"  {one.field}:",
                f"    point: {json.dumps(one.point)}",
                f"    asked: {json.dumps(one.asked)}",
                '    answer: ""',
            ]
    return "\n".join(lines) + "\n"


def _read_yaml(path: str, content: bytes) -> Filled:
    import yaml

    class Once(yaml.SafeLoader):
        """Refuses a key that comes twice: of two answers one would be lost."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise yaml.YAMLError(f"{twice!r} comes twice")
            return dict(super().construct_mapping(node, deep))

    try:
        told = yaml.load(content.decode(), Once)  # noqa: S506 - a safe loader
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}, which cannot be read ({reason})", "a form as YAML") from None
    found = told.get("answers") if isinstance(told, dict) else None
    if not isinstance(found, dict):
        raise BadInput(f"no answers in {path}", "a form that fedkd report questions made")
    if told.get("form", FORMAT) != FORMAT:
        raise BadInput(f"{path}, a form {told['form']!r}", FORMAT, NEW_FORM)
    given = []
    for field, one in found.items():
        if not isinstance(one, dict):
            raise BadInput(f"{one!r} under {field} in {path}", "answer: with a text", NEW_FORM)
        asked = one.get("asked")
        answer = one.get("answer")
        given.append(
            Given(
                str(field),
                None if asked is None else str(asked),
                "" if answer is None else str(answer),
            )
        )
    run = told.get("run")
    return Filled(None if run is None else str(run), given)
