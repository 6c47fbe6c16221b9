"""Draws a synthetic query set at the hospital: what made it is nothing to take on trust."""

from collections.abc import Mapping
from typing import Any

from fedkd.federation.participant import Refused, drawn
from fedkd.federation.site import Build, SiteSettings
from fedkd.knowledge import BadInput, QuerySet, Synthetic, WrongDigest
from fedkd.wire import Question, Reason


class OtherCode(BadInput):
    """A set of a generator whose code is another here: fedkd's versions differ."""

    def __init__(self, generator: str, found: object, here: str) -> None:
        super().__init__(
            f"queries of {generator} with code {found}",
            f"code {here}, of the fedkd that is installed here",
            "install the coordinator's version (docs/deploy.md, Updating), or, having seen the "
            "set, list its digest in policy",
        )


def expect_same_code(query: Mapping[str, Any], settings: SiteSettings, build: Build) -> None:
    """`OtherCode` where a paper's synthetic `query` set cannot be drawn again by what runs here.

    Said before a person is asked: after a yes it would be refused in each round.
    """
    name = query.get("generator")
    if name not in settings.generators:
        return  # the policy has its word for that
    _expect_code(str(name), query.get("code"), drawn(str(name), query["seed"], 1, settings, build))


def drawn_here(
    question: Question, origin: Synthetic, settings: SiteSettings, build: Build
) -> QuerySet:
    """The set that a question is about, drawn again; `Refused` where it does not come out."""
    if origin.generator not in settings.generators:
        raise Refused(Reason.OUTSIDE_POLICY, f"query_sets: {origin.generator} is not here")
    queries = drawn(origin.generator, origin.seed, question.size, settings, build)
    try:
        _expect_code(origin.generator, origin.code, queries)
        return queries.expect(question.about)
    except OtherCode as error:
        raise Refused(Reason.VERSION, str(error)) from None
    except WrongDigest:
        raise Refused(
            Reason.OUTSIDE_POLICY, f"query_sets: {origin.generator} does not make this set"
        ) from None


def _expect_code(name: str, found: object, queries: QuerySet) -> None:
    made = queries.origin
    if isinstance(made, Synthetic) and found != made.code:
        raise OtherCode(name, found, made.code)
