"""The letterbox: takes bytes out of a message, hands them to the site, puts its bytes back."""

import os
import sys
from functools import cache
from pathlib import Path

from flwr.app import Context, Message

from fedkd.federation.building import Workshop
from fedkd.federation.durable import read_json
from fedkd.federation.flower.letters import body_of, content_of
from fedkd.federation.flower.ray import SITES_VARIABLE
from fedkd.federation.participant import MOST_QUESTION_BYTES, open_participant
from fedkd.wire import Reason, Refusal, encode

UNKNOWN = "unknown"
"""Signs a refusal where nobody knows which site this is; a site cannot be called so."""


class NoSite(ValueError):
    """This node was not told which site it is."""


def reply_to(message: Message, context: Context) -> Message:
    """The reply of the site that this node stands for; no exception's text ever leaves."""
    try:
        site = open_participant(site_folder(context), workshop())
        body = site.answer(body_of(message, MOST_QUESTION_BYTES))
    except NoSite:
        body = encode(Refusal(UNKNOWN, UNKNOWN, 0, Reason.NOT_CONFIGURED))
    except Exception:
        body = encode(Refusal(UNKNOWN, UNKNOWN, 0, Reason.FAILED))
    return Message(content_of(body), reply_to=message)


def site_folder(context: Context) -> Path:
    """The folder of the site that this node stands for.

    In a hospital the node's own configuration names it (`site="/srv/..."`), and nothing else can.
    A simulation's nodes have a number alone: there the simulation says where the sites are.
    """
    named = context.node_config.get("site")
    if named:
        return Path(str(named))
    number = context.node_config.get("partition-id")
    sites = _simulated_sites(context)
    if number is None or sites is None:
        raise NoSite("found no site in the node's configuration")
    folders = sorted(path.parent for path in sites.glob("*/site.json"))
    return folders[int(number)]


def _simulated_sites(context: Context) -> Path | None:
    # Only inside a Ray worker, where no hospital's node ever runs, may the submitter say where.
    if "ray" not in sys.modules:
        return None
    if SITES_VARIABLE in os.environ:
        return Path(os.environ[SITES_VARIABLE])
    out = context.run_config.get("out")
    return Path(read_json(Path(str(out)) / "run.json")["sites_dir"]) if out else None


@cache
def workshop() -> Workshop:
    """Builds the parts that a site's own folder names, each once a process."""
    return Workshop()
