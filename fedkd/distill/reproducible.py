"""Keeps torch's arithmetic the same everywhere: one thread, and no global generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread, with deterministic algorithms, and puts both back.

    How a sum is cut between threads changes its last bits, so the number of cores would.
    """
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # missing in torch's stubs
    torch.set_num_threads(1)
    # Not use_deterministic_algorithms, which does the same and loads a compiler for 1.6 s first.
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as above; costs a pass
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]  # as above


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lends torch's global generator for initial weights and dropout, then puts it back."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def generator(seed: int) -> torch.Generator:
    """A generator of its own, for the order of batches."""
    return torch.Generator().manual_seed(seed)
