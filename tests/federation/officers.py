"""A data protection officer for tests: keys on disk, papers as typed, signed and installed."""

from pathlib import Path
from typing import Any

import yaml

from fedkd.audit.officer import BUDGET, new_key, sign_paper
from fedkd.audit.verify import SigningKey
from fedkd.cli.run import Run
from fedkd.federation.budgets import UNPROTECTED, template
from fedkd.federation.building import Workshop
from fedkd.federation.papers import Installed, install
from fedkd.federation.site import SiteFolder

NOT_PRIVATE: dict[str, Any] = {
    UNPROTECTED: True, "mechanisms": ["none"], "epsilon": None, "delta": None,
}  # fmt: skip
BUILD = Workshop()


def officer(folder: Path, name: str = "Ada Example") -> SigningKey:
    """A person with a key in a file of her own."""
    return new_key(folder / f"{name.replace(' ', '-')}.key", name)


def lasting_at(folder: Path) -> list[str]:
    """The words for sites in `folder` that are no rehearsal."""
    return [f"sites.dir={folder}", "sites.rehearsal=false"]


def paper(population: str, patients: int = 500, /, **changes: Any) -> bytes:
    """The shipped template with `changes`, as an officer would have typed them."""
    typed = yaml.safe_load(template(population, patients))
    return yaml.safe_dump({**typed, **changes}).encode()


def installed(folder: Path, key: SigningKey, body: bytes, pin: bool = True) -> Installed:
    """`body`, signed by `key` and installed at the site in `folder`."""
    site = SiteFolder(folder)
    mechanism = BUILD(site.settings().mechanism)
    vkey = key.verifier().text() if pin else None
    return install(site, body, sign_paper(key, BUDGET, body), mechanism, vkey)


def signed(run: Run, key: SigningKey, **changes: Any) -> Run:
    """`run` with a budget of its officer's at each of its lasting sites, if it has none yet."""
    for name, folder in run.sites.items():
        if not (folder / "papers").exists():
            installed(folder, key, paper(name, **changes))
    return run
