"""A comparison starts from options of the right kind, and counts what it says it counts."""

import os
import time
from pathlib import Path

import pytest

from fedkd.cli.bench.flower_loop import _is_rays
from fedkd.cli.bench.options import OPTIONS, options_of
from fedkd.cli.bench.processes import Processes, mib, under
from fedkd.knowledge import BadInput


def test_options_come_with_the_type_that_is_used() -> None:
    assert options_of("methods", ["seeds=3,1", "cells=2"]) == {
        "seeds": [3, 1],
        "fashion_mnist": "",
        "heart_disease": "",
        "cells": [2],
    }
    assert options_of("simulate", ["sites=5", "seconds=1"])["seconds"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_is_not_typed_has_its_default(name: str) -> None:
    assert options_of(name, []) == {key: it.default for key, it in OPTIONS[name].items()}


@pytest.mark.parametrize("typed", ["sites=-3", "sites=many", "sites=", "seconds=inf", "place=1"])
def test_a_wrong_option_is_named_with_what_would_be_right(typed: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        options_of("simulate", [typed])


@pytest.mark.parametrize(
    ("command", "is_rays"),
    [
        (b"ray::ClientAppActor.run\0\0\0", True),
        (b"ray::IDLE", True),
        (b"/venv/lib/ray/core/src/ray/raylet/raylet\0--x", True),
        (b"/venv/lib/ray/core/src/ray/gcs/gcs_server\0--x", True),
        (b"vim\0array.py", False),
        (b"/usr/bin/python\0-m\0xray", False),
        (b"grep\0raylet", False),
        (b"", False),
    ],
)
def test_only_rays_own_processes_are_counted(command: bytes, is_rays: bool) -> None:
    assert _is_rays(command) is is_rays


def test_a_deployed_bench_is_bounded() -> None:
    assert options_of("deploy", ["nodes=8", "parts=nodes"])["nodes"] == 8
    for typed in ("nodes=41", "sites=1", "rounds=1", "parts=everything"):
        with pytest.raises(BadInput, match="expected"):
            options_of("deploy", [typed])


def test_processes_are_weighed_with_all_that_descend_from_them(tmp_path: Path) -> None:
    started = Processes(tmp_path)
    parent = started.begin("parent", ["sh", "-c", "sleep 30 & sleep 30; true"])
    try:
        until = time.monotonic() + 5
        while len(found := under([parent.pid])) < 3:
            assert time.monotonic() < until
        assert found[0] == parent.pid
        assert os.getpid() not in found
        pss, rss = mib(os.getpid()) or (0.0, 0.0)
        assert 0 < pss <= rss
        assert mib(2**22 + 1) is None  # no process has such a number
    finally:
        started.end()
    until = time.monotonic() + 5
    while mib(found[1]) is not None:  # it was told to end, and ends
        assert time.monotonic() < until
