"""How long a program is inside the methods of logs, keys and witnesses: a stopwatch around each."""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Self


class Inside:
    """Times every call of the methods below while it is entered; what is nested counts once.

    It is for a program of one thread: a second one would start and stop the same watch.
    """

    def __init__(self) -> None:
        from fedkd.audit import Log
        from fedkd.audit.verify import Note, SigningKey, VerifierKey, Witness

        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._timed: list[tuple[type[Any], str]] = [
            (Log, name) for name, value in vars(Log).items() if _is_timed(name, value)
        ]
        self._timed += [(Witness, "add"), (VerifierKey, "verify"), (SigningKey, "sign")]
        self._timed += [(Note, "verify")]
        self._before: list[tuple[type[Any], str, Any]] = []
        self._depth = 0

    @property
    def total(self) -> float:
        """Seconds inside any of them."""
        return sum(self.seconds.values())

    def __enter__(self) -> Self:
        for owner, name in self._timed:
            method = getattr(owner, name)
            self._before.append((owner, name, method))
            watched = self._transaction if name == "writing" else self._method
            setattr(owner, name, watched(name, method))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, method in self._before:
            setattr(owner, name, method)

    def _time(self, name: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self._depth += 1
        began = time.perf_counter()
        try:
            return call(*args, **named)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds[name] += time.perf_counter() - began

    def _method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def watched(*args: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return self._time(name, method, *args, **named)

        return watched

    def _transaction(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Times its begin and its commit; what is done between them has watches of its own."""

        @contextmanager
        def watched(*args: Any) -> Iterator[None]:
            self.calls[name] += 1
            transaction = method(*args)
            self._time(name, transaction.__enter__)
            try:
                yield
            except BaseException:
                if not self._time(name, transaction.__exit__, *sys.exc_info()):
                    raise
            else:
                self._time(name, transaction.__exit__, None, None, None)

        return watched


def _is_timed(name: str, value: Any) -> bool:
    # `entries` comes back before its work is done, and whoever reads on reads outside.
    public = not name.startswith("_") or name == "__init__"
    return public and callable(value) and name != "entries"
