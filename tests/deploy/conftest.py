"""Federations that are founded once; each test that changes one takes a copy."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy import figured
from tests.deploy.federated import SITES, Federated, dealt, simulated, table

PRIVATE = {"name": "dp_training", "epsilon": 0.5, "steps": 5}


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished simulation of the table that the hospitals have."""
    return simulated(tmp_path_factory.mktemp("simulation") / "here")


@pytest.fixture(scope="session")
def founded_as_simulated(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Federated:
    return Federated.made(tmp_path_factory.mktemp("open") / "all", dealt(simulation))


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    return Federated.made(tmp_path_factory.mktemp("rows") / "all", rows)


@pytest.fixture(scope="session")
def founded_private(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    rows = {site: [row for row in table() if row["clinic"] == site] for site in SITES}
    keys = {"epsilon": 1.0, "mechanisms": ["dp_training"]}
    place = tmp_path_factory.mktemp("private") / "all"
    return Federated.made(place, rows, mechanism=PRIVATE, **keys)


@pytest.fixture
def as_simulated(founded_as_simulated: Federated, tmp_path: Path) -> Federated:
    """Without privacy, with the rows that the simulation dealt out."""
    return founded_as_simulated.copied(tmp_path / "all")


@pytest.fixture
def federated(founded: Federated, tmp_path: Path) -> Federated:
    """Without privacy."""
    return founded.copied(tmp_path / "all")


@pytest.fixture
def private(founded_private: Federated, tmp_path: Path) -> Federated:
    """Under dp_training."""
    return founded_private.copied(tmp_path / "all")


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets this machine's time zone."""

    def set_to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="session")
def open_world(tmp_path_factory: pytest.TempPathFactory) -> figured.World:
    return figured.open_world(tmp_path_factory.mktemp("open-world") / "all")


@pytest.fixture(scope="session")
def private_world(tmp_path_factory: pytest.TempPathFactory) -> figured.World:
    return figured.private_world(tmp_path_factory.mktemp("private-world") / "all", PRIVATE)
