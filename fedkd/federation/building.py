"""Builds parts from specs, each once a process: parts are frozen, and making them takes time."""

from collections.abc import Callable
from typing import Any

import rfc8785

from fedkd.federation.site import Spec


class Workshop:
    """`Build` with a memory: equal specs give the same part."""

    def __init__(self, instantiate: Callable[[Spec], Any]) -> None:
        self._instantiate = instantiate
        self._made: dict[bytes, Any] = {}

    def __call__(self, spec: Spec) -> Any:
        """The part that `spec` names."""
        name = rfc8785.dumps(dict(spec))
        if name not in self._made:
            self._made[name] = self._instantiate(spec)
        return self._made[name]
