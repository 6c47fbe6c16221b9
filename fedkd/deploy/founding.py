"""Founds a hospital's two sites from its site.yaml: the real one, and the rehearsal's."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fedkd.audit.officer import expect_signed, verifier_of
from fedkd.data import Card, Dataset, Records, mapped, validation
from fedkd.deploy.federation_file import FederationFile
from fedkd.deploy.hospital import Hospital, write_private
from fedkd.deploy.invitations import FEDERATION
from fedkd.deploy.site_file import SiteFile
from fedkd.federation.excluded import read_excluded, without
from fedkd.federation.participant import generator_of
from fedkd.federation.paying import opening
from fedkd.federation.randomness import stream
from fedkd.federation.site import (
    Accepts,
    Build,
    SiteFolder,
    SiteSettings,
    facts_of,
    found_site,
    patients_in,
)
from fedkd.knowledge import BadInput, Space, digest_of_bytes

Part = Callable[[str, str, Mapping[str, Any]], dict[str, Any]]
"""The checked spec of an installed part: its group, its name, and keys that are to be others."""

REHEARSAL_SEED: Final = 0
REHEARSAL_EPSILON, REHEARSAL_PLAN = 20.0, 1.0
"""Of a rehearsal's ledger and of one run: nobody is behind its rows, so that many may be tried."""
_DROPPED_LOSS: Final = ("weight", "temperature")
_LOSSES: Final = ("kl", "jensen_shannon")
_CODECS: Final = ("float32",)
_MARK: Final = "founded"


@dataclass(frozen=True, slots=True)
class Founded:
    """What was founded: rows for training and validation, and what was mended in the file."""

    train: int
    validation: int
    patients: int
    notes: tuple[str, ...]


def federation_of(hospital: Hospital) -> FederationFile:
    """What the federation agreed on; `BadInput` unless its own key signed exactly these bytes."""
    key = verifier_of(str(hospital.invited()["federation_vkey"]))
    try:
        content = hospital.federation_yaml.read_bytes()
        signature = hospital.federation_sig.read_bytes()
    except OSError as error:
        raise BadInput(
            f"no {error.filename} ({error.strerror})", "the federation's signed file", "join again"
        ) from None
    expect_signed(
        key,
        FEDERATION,
        content,
        signature,
        str(hospital.federation_yaml),
        remedy="put back both files as they came, from a backup, or ask the coordinator for them",
    )
    return FederationFile.read(content)


def frame_of(hospital: Hospital, site_file: SiteFile) -> Any:
    """The hospital's table, a pandas data frame, under the federation's names, in its units and
    codes, not yet encoded (`fedkd.data.mapped.frame_of`).
    """
    schema = federation_of(hospital).schema
    if schema is None:
        raise BadInput("a federation whose records are no table", "a table")
    return mapped.frame_of(schema, site_file.data, site_file.columns, site_file.label)


def dataset_of(hospital: Hospital, site_file: SiteFile) -> Dataset:
    """The hospital's records as the federation's models see them, with notes on what was mended."""
    federation = federation_of(hospital)
    if federation.schema is None:
        return mapped.pictures(federation.space, site_file.data, site_file.card)
    return mapped.dataset_of(
        federation.schema, site_file.data, site_file.columns, site_file.label, site_file.card
    )


def settings_of(
    hospital: Hospital, site_file: SiteFile, part: Part, *, rehearsal: bool = False
) -> SiteSettings:
    """What the site, or its rehearsal, is told at its founding; nothing is written."""
    federation = federation_of(hospital)
    name, policy, asked = hospital.name, site_file.policy, site_file.evaluations
    mechanism = dict(part("mechanism", site_file.mechanism.name, site_file.mechanism.keys))
    plan_epsilon = mechanism.pop("epsilon", None)
    private = site_file.mechanism.name != "none"
    losses = {loss: part("loss", loss, {}) for loss in _LOSSES}
    generators = policy.generators or _default_generators(federation.space)
    population = site_file.population or name
    return SiteSettings(
        name=name,
        seed=REHEARSAL_SEED if rehearsal else None,
        population=f"rehearsal:{federation.name}:{population}" if rehearsal else population,
        rehearsal=rehearsal,
        model_name=site_file.model.name,
        model=part("model", site_file.model.name, site_file.model.keys),
        space=federation.space,
        schema=None if federation.schema is None else federation.schema.to_json(),
        card=_rehearsal_card(federation, site_file) if rehearsal else site_file.card,
        training=dict(site_file.training),
        mechanism=mechanism,
        gate=part("gate", "none", {}),
        generators={each: part("generator", each, {}) for each in generators},
        accepts=Accepts(
            losses={
                loss: {key: value for key, value in spec.items() if key not in _DROPPED_LOSS}
                for loss, spec in losses.items()
            },
            codecs={codec: part("codec", codec, {}) for codec in _CODECS},
            most_epochs=policy.most_epochs,
            most_rounds=policy.most_rounds + 1,  # the closing question has a round of its own
            models={kind: part("model", kind, {}) for kind in asked["models"]},
            most_evaluation_epsilon=asked["most_epsilon"],
            floor=asked["floor"],
            groups=tuple(asked["groups"]),
        ),
        epsilon=REHEARSAL_EPSILON if rehearsal and private else None,
        plan_epsilon=REHEARSAL_PLAN if rehearsal and private and not plan_epsilon else plan_epsilon,
    )


def found(hospital: Hospital, site_file: SiteFile, part: Part, build: Build) -> Founded:
    """Founds site/ and rehearsal/; done again it changes neither records nor log.

    `BadInput`, before anything is written, for whatever in the file, the data or the policy does
    not fit, and where the site was founded with other records.
    """
    dataset = dataset_of(hospital, site_file)
    settings = settings_of(hospital, site_file, part)
    site = SiteFolder(hospital.site)
    seed = site.seed(settings) if site_file.seed is None else site_file.seed
    train, held = split_of(hospital, site_file, dataset, seed)
    _expect_enough(hospital, site_file, train)
    _found_rehearsal(hospital, site_file, part, build)
    found_site(hospital.site, settings, train, held, None, dataset.patients)
    _expect_private(hospital)
    write_private(hospital.run / _MARK, (_founded_from(hospital) + "\n").encode())
    return Founded(len(train), len(held), patients_in(dataset.records), dataset.notes)


def split_of(
    hospital: Hospital, site_file: SiteFile, dataset: Dataset, seed: int
) -> tuple[Records, Records]:
    """Records for training and validation, everybody's."""
    split = stream(seed, hospital.name, 0, "validation")
    return validation(dataset.records, site_file.validation, split)


def to_learn_from(hospital: Hospital, train: Records) -> int:
    """How many patients of `train` a model would learn from: without those who were taken out."""
    return patients_in(without(train, read_excluded(hospital.site)))


def is_founded(hospital: Hospital) -> bool:
    """Whether both sites are founded from the site.yaml and federation.yaml that are there now."""
    there = all((each / "site.json").exists() for each in (hospital.site, hospital.rehearsal))
    try:
        return there and (hospital.run / _MARK).read_text().strip() == _founded_from(hospital)
    except OSError:
        return False


def _founded_from(hospital: Hospital) -> str:
    parts = (hospital.site_yaml, hospital.federation_yaml, hospital.invitation)
    return digest_of_bytes(b"".join(hashlib.sha256(each.read_bytes()).digest() for each in parts))


def _found_rehearsal(hospital: Hospital, site_file: SiteFile, part: Part, build: Build) -> None:
    """Rows from the declared ranges with labels at random: no record of the hospital is read."""
    settings = settings_of(hospital, site_file, part, rehearsal=True)
    name = next(iter(_default_generators(settings.space)))
    generator = generator_of(build, part("generator", name, {}), settings)
    own = int.from_bytes(hashlib.sha256(settings.name.encode()).digest()[:4], "big")
    _, posed = generator.pose(generator.init(own), None, site_file.rehearsal_records)
    rng = stream(REHEARSAL_SEED, settings.name, 0, "sample")
    labels = rng.integers(0, len(settings.space.classes), len(posed.inputs))
    records = Records(posed.inputs, labels)
    train, held = validation(records, site_file.validation, rng)
    facts = facts_of(train, len(settings.space.classes))
    opened = opening(settings, build(settings.mechanism), facts)
    found_site(hospital.rehearsal, settings, train, held, opened)


def _rehearsal_card(federation: FederationFile, site_file: SiteFile) -> Card:
    return replace(
        site_file.card,
        name="REHEARSAL, rows from declared ranges",
        version="1",
        licence="CC0-1.0",
        legal_basis="No health data: drawn from the federation's declared ranges.",
        origin=f"drawn from federation.yaml of {federation.name}",
        citation="",
    )


def _default_generators(space: Space) -> tuple[str, ...]:
    return ("procedural",) if space.kind == "image" else ("dictionary",)


def _expect_private(hospital: Hospital) -> None:
    for folder in (hospital.site, hospital.rehearsal):
        folder.chmod(0o700)
    for name in ("train.npz", "validation.npz", "commitment.key"):
        for folder in (hospital.site, hospital.rehearsal):
            (folder / name).chmod(0o600)


def _expect_enough(hospital: Hospital, site_file: SiteFile, train: Records) -> None:
    patients, least = to_learn_from(hospital, train), site_file.policy.smallest_training_set
    if patients < least:
        raise BadInput(
            f"{patients} patients to learn from in {site_file.data.path.name}",
            f"at least {least}, as smallest_training_set of the policy says",
            "who judges the model (validation) or was taken out is not among them; few patients "
            "are easily told apart in what a model says",
        )
