"""Writes a model's lineage as W3C PROV, in PROV-JSON (W3C Member Submission, 24 April 2013).

What an entry records is an activity, which ended when its party wrote it; what it made or used are
entities; whose log it stands in is the agent. Everything names the entry behind it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedkd.audit.export.writing import (
    VOCABULARY,
    entry_of,
    iri_of,
    json_bytes,
    names_of,
    only_stated,
)
from fedkd.audit.verify.lineage import Activity, Entity, Gap, Lineage, Logs, card_of, stated
from fedkd.audit.verify.naming import Place

NAME: Final = "lineage.prov.json"
_REGISTERED: Final = ("dataset.registered", "config.fixed")
"""These record a thing that was there before; no activity here made it."""
_ALWAYS: Final = ("licence", "legal_basis", "origin")
_IF_STATED: Final = ("version", "modality", "citation")
_NOT_A_LETTER: Final = re.compile(r"[^A-Za-z0-9]+")


def files(found: Lineage, logs: Logs) -> Iterator[tuple[str, bytes]]:
    """The one file of this format."""
    yield NAME, json_bytes(document(found, logs))


def document(found: Lineage, logs: Logs) -> dict[str, Any]:
    """The lineage as a PROV document; what cannot be told is an entity of type NotShown."""
    return _Writing(found, logs).document()


class _Writing:
    def __init__(self, found: Lineage, logs: Logs) -> None:
        self.found, self.logs = found, logs
        named = {*found.agents, *(gap.place.party for gap in found.gaps)}
        self.prefixes = {party: name for party, name in names_of(logs).items() if party in named}
        self.acts = {activity.place: activity for activity in found.activities}
        self.records: dict[str, dict[str, Any]] = {}

    def document(self) -> dict[str, Any]:
        for party in self.prefixes:
            self._agent(party)
        for activity in self.found.activities:
            self._write(activity)
        for number, gap in enumerate(self.found.gaps, 1):
            self._gap(gap, f"gap{number}")
        logs = {
            prefix: iri_of(self.logs, Place(party, 0)).removesuffix("0")
            for party, prefix in self.prefixes.items()
        }
        return {"prefix": {"fedkd": VOCABULARY, **logs}, **self.records}

    def _agent(self, party: str) -> None:
        log = self.logs[party]
        self._add("agent", f"{self.prefixes[party]}:log", {
            "prov:type": _term("Party"),
            "prov:label": party,
            "fedkd:log": log.origin,
            "fedkd:entries": len(log.entries),
            "fedkd:root": log.root.hex(),
        })  # fmt: skip

    def _write(self, activity: Activity) -> None:
        party = f"{self.prefixes[activity.place.party]}:log"
        if activity.type in _REGISTERED:
            for entity in activity.made:
                self._entity(entity, activity)
                self._relate("wasAttributedTo", entity=self._id(entity), agent=party)
            self._write_parts(activity)
            return
        act = self._act(activity.place)
        self._add("activity", act, {
            "prov:type": _term(_camel(activity.type)),
            "prov:label": activity.type + (f", round {activity.round}" if activity.round else ""),
            "prov:endTime": activity.time,
            **self._told(activity.place),
            **_settings(activity),
        })  # fmt: skip
        self._relate("wasAssociatedWith", activity=act, agent=party)
        if activity.type == "synthetic.generated":
            self._generator(activity, act)
        for role, used in activity.uses:
            self._relate("used", activity=act, entity=self._id(used), **{"prov:role": role})
        for made in activity.made:
            if made.kind != "partition":
                self._entity(made, activity)
                self._generated(made, activity)

    def _write_parts(self, activity: Activity) -> None:
        for _, partition in activity.uses:
            for made in activity.made:
                self._generated(made, self.acts[partition.place])

    def _generated(self, made: Entity, activity: Activity) -> None:
        """That `activity` made `made` out of everything it used, a configuration apart."""
        act, id_ = self._act(activity.place), self._id(made)
        self._relate("wasGeneratedBy", entity=id_, activity=act, time=activity.time)
        for role, used in activity.uses:
            if role != "configuration":
                self._relate(
                    "wasDerivedFrom", generatedEntity=id_, usedEntity=self._id(used), activity=act
                )

    def _entity(self, entity: Entity, activity: Activity) -> None:
        told: dict[str, Any] = {
            "prov:type": _term(_camel(entity.kind)),
            "prov:label": entity.name,
            "fedkd:name": entity.name,
            **self._told(entity.place),
        }
        if activity.type == "dataset.registered":
            card = card_of(activity.body)
            told |= {f"fedkd:{_camel(key, 1)}": card[key] for key in _ALWAYS}
            told |= only_stated({f"fedkd:{key}": card[key] for key in _IF_STATED})
            told |= only_stated({"fedkd:card": card["name"]})
            told |= only_stated({"fedkd:role": stated(activity.body, "role")})
        self._add("entity", self._id(entity), told)

    def _generator(self, activity: Activity, act: str) -> None:
        id_ = f"{act}.generator"
        self._add("agent", id_, {
            "prov:type": {"$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME"},
            "prov:label": stated(activity.body, "generator"),
            "fedkd:code": stated(activity.body, "code"),
            "fedkd:seed": stated(activity.body, "seed"),
        })  # fmt: skip
        self._relate("wasAssociatedWith", activity=act, agent=id_)

    def _gap(self, gap: Gap, name: str) -> None:
        id_ = f"{self._act(gap.place)}.{name}"
        told = {"prov:type": _term("NotShown"), "prov:label": gap.why, **self._told(gap.place)}
        self._add("entity", id_, told)
        if self._act(gap.place) in self.records.get("activity", {}):
            self._relate("used", activity=self._act(gap.place), entity=id_)

    def _told(self, place: Place) -> dict[str, Any]:
        return {"fedkd:entry": entry_of(self.logs, place)}

    def _act(self, place: Place) -> str:
        return f"{self.prefixes[place.party]}:{place.index}"

    def _id(self, entity: Entity) -> str:
        return f"{self._act(entity.place)}.{_NOT_A_LETTER.sub('-', entity.kind)}"

    def _add(self, kind: str, id_: str, attributes: Mapping[str, Any]) -> None:
        self.records.setdefault(kind, {})[id_] = dict(attributes)

    def _relate(self, kind: str, **attributes: Any) -> None:
        there = self.records.setdefault(kind, {})
        named = {key if ":" in key else f"prov:{key}": value for key, value in attributes.items()}
        there[f"_:{kind}{len(there) + 1}"] = named


def _settings(activity: Activity) -> dict[str, Any]:
    """What an activity was set to, in single values; never a count of a hospital's records."""
    keys = ("run", "round", "mechanism", "rule", "filter", "by")
    told = {key: activity.body.get(key) for key in keys}
    return {f"fedkd:{key}": value for key, value in told.items() if isinstance(value, str | int)}


def _term(name: str) -> dict[str, str]:
    return {"$": f"fedkd:{name}", "type": "prov:QUALIFIED_NAME"}


def _camel(text: str, first: int = 0) -> str:
    words = _NOT_A_LETTER.sub(" ", text.replace("_", " ")).split()
    return "".join(word if at < first else word.capitalize() for at, word in enumerate(words))
