"""Says what a coordinator's own runs are held to, before anything is proposed to a hospital."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from fedkd.data.typed_by_hand import listed, mapping_of, text
from fedkd.deploy.proposals import Proposed, RunProposal
from fedkd.knowledge import BadInput

WHERE: Final = "policy of server.yaml"


@dataclass(frozen=True, slots=True)
class CoordinatorPolicy:
    """The section `policy` of a server.yaml; what is left out has these values.

    It binds this coordinator, and widens no hospital's own. A run asks at least `fewest_sites`
    admitted hospitals, under one of `mechanisms` (None: any), for at most `most_rounds` rounds. Of
    whatever is proposed at least `fewest_cosigners` others must say how far each asked hospital's
    log goes.
    """

    fewest_sites: int = 1
    mechanisms: tuple[str, ...] | None = None
    fewest_cosigners: int = 0
    most_rounds: int = 100

    @classmethod
    def from_json(cls, told: object) -> "CoordinatorPolicy":
        """The policy that a person typed; `BadInput` names what is wrong with it."""
        keys = [each.name for each in fields(cls)]
        given = mapping_of({} if told is None else told, WHERE, keys)
        made: dict[str, Any] = {
            name: _count(given[name], name, least)
            for name, least in (("fewest_sites", 1), ("fewest_cosigners", 0), ("most_rounds", 1))
            if name in given
        }
        if "mechanisms" in given:
            made["mechanisms"] = _names(given["mechanisms"])
        return cls(**made)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def in_words(self) -> str:
        """One line, in the words of the file."""
        said = {**self.to_json(), "mechanisms": " ".join(self.mechanisms or ("any",))}
        return ", ".join(f"{name} {value}" for name, value in said.items())

    def expect(self, proposal: RunProposal, there: int) -> None:
        """`BadInput` where this run is none to propose; `there` admitted hospitals would be asked.

        A rehearsal is held to the same: it rehearses the terms of a run.
        """
        mechanism, rounds = proposal.asked["mechanism"], proposal.asked["rounds"]
        if there < self.fewest_sites:
            raise _beyond("fewest_sites", f"{there} admitted hospitals to ask",
                          f"at least {self.fewest_sites}", "admit more hospitals")  # fmt: skip
        if self.mechanisms is not None and mechanism not in self.mechanisms:
            raise _beyond("mechanisms", f"mechanism={mechanism}",
                          f"one of {', '.join(self.mechanisms)}", "name another")  # fmt: skip
        if rounds > self.most_rounds:
            raise _beyond("most_rounds", f"rounds={rounds}",
                          f"at most {self.most_rounds}", "ask for fewer")  # fmt: skip
        self.expect_watched(proposal)

    def expect_watched(self, proposal: Proposed) -> None:
        """`BadInput` where too few would have to watch the log of a hospital that is asked."""
        rosters = proposal.federated().rosters()
        watch = min(rosters[site].needed for site in proposal.sites)
        if watch < self.fewest_cosigners:
            raise _beyond(
                "fewest_cosigners",
                f"{watch} others who watch a hospital's log",
                f"at least {self.fewest_cosigners}",
                "propose a run with more audit.cosigners, a higher audit.threshold, or more "
                "hospitals",
            )


def _beyond(key: str, found: str, expected: str, instead: str) -> BadInput:
    return BadInput(found, f"{expected}: {key} in the {WHERE}", f"{instead}, or change it there")


def _count(value: object, name: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise BadInput(f"{value!r} as {name} in the {WHERE}", f"a whole number from {least}")
    return value


def _names(value: object) -> tuple[str, ...]:
    where = f"mechanisms in the {WHERE}"
    names = tuple(text(each, where) for each in listed(value, where))
    if not names:
        raise BadInput(f"no {where}", "one at least", "leave the key out to allow every mechanism")
    return names
