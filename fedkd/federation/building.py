"""Builds parts from specs, each once a process: parts are frozen, and making them takes time."""

from typing import Any

import rfc8785

from fedkd.federation.site import Spec
from fedkd.knowledge import BadInput


def instantiate(spec: Spec) -> Any:
    """The part that a yaml's spec names, with plain lists and dicts as arguments.

    What the part itself says about its arguments comes through; Hydra would wrap it.
    """
    import hydra.utils
    from hydra.errors import InstantiationException

    try:
        return hydra.utils.instantiate(dict(spec), _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, BadInput):
            raise error.__cause__ from None
        raise


class Workshop:
    """`Build` with a memory: equal specs give the same part."""

    def __init__(self) -> None:
        self._made: dict[bytes, Any] = {}

    def __call__(self, spec: Spec) -> Any:
        """The part that `spec` names."""
        name = rfc8785.dumps(dict(spec))
        if name not in self._made:
            self._made[name] = instantiate(spec)
        return self._made[name]
