"""Summaries of runs, as test input: typed figures, no run was made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedkd.privacy.claim import REHEARSAL_NOISE, Claim, Evidence, Preparation, Use
from fedkd.report.claims import statement

Make = Callable[..., dict[str, Any]]


def a_client(place: int, **changed: Any) -> dict[str, Any]:
    return {
        "site": f"hospital-{place + 1:02d}",
        "records": 1000 + place,
        "model": ("mlp", "cnn", "logistic")[place % 3],
        "local_accuracy": 0.5 + 0.004 * place,
        "local_balanced_accuracy": 0.5,
        "local_auroc": 0.8,
        "local_own_mix": 0.88,
        "local_own_auroc": None,
        "accuracy": 0.72 - 0.006 * place,
        "balanced_accuracy": 0.7,
        "auroc": 0.9,
        "own_mix": 0.9 - 0.001 * place,
        "own_auroc": None,
        "epsilon": None,
        "delta": None,
        "messages": 3,
        "bytes_up": 12_000,
        "bytes_down": 21_000,
        "left_out": [],
        **changed,
    }


def a_summary(hospitals: int = 5, **changed: Any) -> dict[str, Any]:
    return {
        "method": "fedkd",
        "data": "digits",
        "seed": 0,
        "rounds": 3,
        "mechanism": "none",
        "private": False,
        "student": {
            "accuracy": 0.776,
            "balanced_accuracy": 0.77,
            "macro_f1": 0.765,
            "auroc": 0.96,
            "ece": 0.041,
            "parameters": 4810,
            "bytes": 19_240,
        },
        "clients": [a_client(place) for place in range(hospitals)],
        "bytes_up": 12_000 * hospitals,
        "bytes_down": 21_000 * hospitals,
        "fedavg_bytes": None,
        "pooled_accuracy": None,
        "fedavg_accuracy": None,
        "fedavg_best": None,
        "query_set": {"kind": "public", "size": 300, "digest": "sha256:" + "0" * 64},
        "wall_s": 8.25,
        "train_s": 5.5,
        "engine": "inprocess",
        "versions": {"fedkd": "0.1.0"},
        "audit": {"entries": None, "root": None, "verified": None},
        **changed,
    }


def a_claim(place: int = 0, **changed: Any) -> Claim:
    use = Use(
        run="r1",
        mechanism="dp_training",
        sensitivity="one clip",
        noise_multiplier=28.9,
        clip=1.0,
        sampling_rate=1.0,
        steps=60,
        sampling="none",
    )
    said: dict[str, Any] = {
        "epsilon": 4.0,
        "delta": 1e-5,
        "spent": 2.5 + 0.01 * place,
        "unit": "patient",
        "units": 300 + place,
        "records_per_unit": "any number",
        "relation": "replace_special",
        "not_protected": ("what is true of all",),
        "trust": "the hospital's machine",
        "uses": (use,),
        "accountant": "gdp",
        "accountant_version": "fedkd 0.1.0",
        "filter": "gdp",
        "order": "none",
        "runs": ("r1",),
        "period": "2026-11-24",
        "population": f"rehearsal:r1:{place}",
        "refusals": 0,
        "preprocessing": (Preparation("ranges", "public"),),
        "tuning": (Preparation("steps", "public"),),
        "noise_source": REHEARSAL_NOISE,
        "audit": "not attacked",
        "subgroup_utility": "not measured",
        "several_sites": "losses add up",
        "evidence": Evidence("site", 9, "0" * 64),
    }
    return Claim(**{**said, **changed})


def a_private_summary(hospitals: int = 3, epsilon: float = 4.0, **changed: Any) -> dict[str, Any]:
    """A run under dp_training: all of an epsilon spent in the first of three rounds, by claim."""
    claims = {
        f"hospital-{place + 1:02d}": a_claim(
            place, epsilon=epsilon, spent=epsilon * (0.99 - place / 100)
        )
        for place in range(hospitals)
    }
    clients = [
        a_client(place, epsilon=claim.spent, delta=claim.delta)
        for place, claim in enumerate(claims.values())
    ]
    privacy = {
        "statement": statement(claims),
        "claims": {site: claim.to_json() for site, claim in claims.items()},
        "without": {},
        "spent": {
            site: [{"round": number, "epsilon": claim.spent} for number in (1, 2, 3)]
            for site, claim in claims.items()
        },
    }
    mechanism = {"mechanism": "dp_training", "private": True, "privacy": privacy}
    return a_summary(hospitals, clients=clients, **{**mechanism, **changed})


ROUNDS = [
    {"round": 1, "student_accuracy": 0.71, "hospitals_accuracy": 0.55, "agreement": 0.62},
    {"round": 2, "student_accuracy": 0.76, "hospitals_accuracy": 0.66, "agreement": 0.78},
    {"round": 3, "student_accuracy": 0.77, "hospitals_accuracy": None, "agreement": 0.83},
]


def write_run(
    folder: Path, summary: dict[str, Any], config: str = "seed: 0\n", rounds: Any = ROUNDS
) -> Path:
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(config)
    lines = "".join(json.dumps(line) + "\n" for line in rounds)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


@pytest.fixture
def summary() -> Make:
    return a_summary


@pytest.fixture
def private() -> Make:
    return a_private_summary


@pytest.fixture
def claim() -> Callable[..., Claim]:
    return a_claim


@pytest.fixture
def client() -> Make:
    return a_client


@pytest.fixture
def finished() -> Callable[..., Path]:
    return write_run
