"""Makes a classifier of whatever a model yaml's `_target_` names."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import BadInput, Space

EXPECTED = (
    "a factory called as factory(space, rng, **keys), a subclass of torch.nn.Module, "
    "or a scikit-learn classifier class"
)


def as_classifier(
    target: Any, space: Space, rng: Rng, keys: Mapping[str, Any] | None = None
) -> Classifier:
    """The untrained classifier that `target` makes for `space`, given the yaml's other `keys`.

    `target` is a factory that takes `space` and `rng`; or a subclass of `torch.nn.Module`, or a
    scikit-learn classifier class, built with the keys alone; each also as a `functools.partial`
    that holds the keys, as Hydra's `_partial_` makes it. A module class that has a parameter
    `space` is given it. Anything else, and keys that do not fit, are a `BadInput`.
    """
    found, held = _unwrapped(target, dict(keys or {}))
    if is_subclass_of(found, "torch.nn", "Module"):
        from fedkd.distill.models.torch_module import torch_module

        if "space" in _parameters(found):
            held["space"] = space
        _check_keys(found, held)
        return torch_module(space, rng, module=functools.partial(found, **held))
    if is_subclass_of(found, "sklearn.base", "BaseEstimator"):
        from fedkd.distill.models.scikit import scikit

        _check_keys(found, held)
        return scikit(space, rng, estimator=functools.partial(found, **held))
    if callable(found) and list(_parameters(found))[:2] == ["space", "rng"]:
        _check_keys(found, held, space, rng)
        return _checked(found(space, rng, **held), found)
    raise BadInput(f"{called(found)} as a model", EXPECTED)


def is_subclass_of(target: Any, module: str, name: str) -> bool:
    """Whether `target` is a subclass of `module.name`; imports nothing to find out.

    A subclass can only exist once the module of its base is there.
    """
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and isinstance(target, type) and issubclass(target, base)


def called(target: Any, keys: Mapping[str, Any] | None = None) -> str:
    """Names `target` with its keys, the same in every process: `my.nets.Net(width=8)`."""
    found, held = _unwrapped(target, dict(keys or {}))
    if not hasattr(found, "__qualname__"):
        return f"an object of type {type(found).__name__}"
    inside = ", ".join(f"{key}={held[key]!r}" for key in sorted(held) if key != "space")
    return f"{found.__module__}.{found.__qualname__}" + (f"({inside})" if inside else "")


def _unwrapped(target: Any, keys: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    while isinstance(target, functools.partial) and not target.args:
        target, keys = target.func, {**target.keywords, **keys}
    return target, keys


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # a callable that was not written in Python
        return {}


def _check_keys(target: Callable[..., Any], keys: Mapping[str, Any], *given: Any) -> None:
    try:
        inspect.signature(target).bind(*given, **keys)
    except TypeError as error:
        known = [name for name in _parameters(target) if name not in ("space", "rng")]
        expected = f"keys out of {', '.join(known) or 'none'}"
        raise BadInput(f"{called(target)}: {error}", expected) from None


def _checked(made: Any, target: Any) -> Classifier:
    lacking = [name for name in ("fit", "probs", "architecture") if not hasattr(made, name)]
    if lacking:
        raise BadInput(
            f"{called(target)} that returns {type(made).__name__}",
            "a classifier (fedkd.distill.Classifier)",
            f"it lacks {', '.join(lacking)}",
        )
    classifier: Classifier = made
    return classifier
