"""Says at the coordinator what can be done where a hospital takes no part, by the word it said."""

from collections.abc import Mapping
from typing import Final

from fedkd import __version__
from fedkd.wire import Reason, Ruling

_VERSION: Final = f"refused: {Reason.VERSION}"
_BY_WORD: Final[Mapping[str, str]] = {
    str(Ruling.PENDING): "a person there has to type: fedkd site approve HOSPITAL",
    str(Ruling.DECLINED): "a person there, or their policy, said no; they know why",
    _VERSION: (
        "its fedkd does not read what this one sends: bring that hospital the wheelhouse of this "
        "version (docs/deploy.md, Updating)"
    ),
    f"refused: {Reason.MALFORMED}": (
        "what arrived there is no message: compare both versions of fedkd, and what lies between"
    ),
    f"refused: {Reason.NOT_APPROVED}": (
        "nobody there approved this run, or its bundle: propose it anew after an update"
    ),
    f"refused: {Reason.NOT_ACCEPTED}": (
        "the proposal is not by the key that they know, or not for them: after fedkd server "
        "rotate --key they need fedkd site trust; errors.txt there says more"
    ),
    f"refused: {Reason.PAUSED}": "people there paused it: call them",
    f"refused: {Reason.NOT_CONFIGURED}": (
        "that hospital still has to found its site, or to mend its site.yaml"
    ),
    f"refused: {Reason.NOT_SIGNED}": "their data protection officer has to sign first",
}


def with_remedy(said: str, software: str | None = None) -> str:
    """What a hospital said, with what to do about it where anything can be done from outside.

    `software` is the fedkd that it had when it was heard of last.
    """
    remedy = _BY_WORD.get(said)
    if remedy is None:
        return said
    there = f" (fedkd {software} there, {__version__} here)" if software else ""
    return f"{said}{there if said == _VERSION else ''}; {remedy}"
