"""The letterbox: takes bytes out of a message, hands them to the site, puts its bytes back."""

import os
import sys
from functools import cache
from pathlib import Path

from flwr.app import Context, Message

from fedkd.federation.building import Workshop
from fedkd.federation.durable import read_json
from fedkd.federation.flower.letters import content_of, letter_of
from fedkd.federation.flower.ray import RUN_VARIABLE
from fedkd.federation.participant import MOST_QUESTION_BYTES, open_participant
from fedkd.wire import UNKNOWN, Reason, Refusal, encode


class NoSite(ValueError):
    """This node was not told which site it is."""


def reply_to(message: Message, context: Context) -> Message:
    """The reply of the site that this node stands for; no exception's text ever leaves."""
    try:
        site = open_participant(site_folder(context), workshop())
        body = site.answer(letter_of(message, MOST_QUESTION_BYTES))
    except NoSite:
        body = encode(Refusal(UNKNOWN, UNKNOWN, 0, Reason.NOT_CONFIGURED))
    except (Exception, SystemExit):
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
    run = _simulated_run(context)
    if number is None or run is None:
        raise NoSite("found no site in the node's configuration")
    told = read_json(run / "run.json")
    return Path(told["sites_dir"], told["sites"][int(number)])


def _simulated_run(context: Context) -> Path | None:
    # Only inside a Ray worker, where no hospital's node ever runs, may the submitter say where.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    named = os.environ.get(RUN_VARIABLE) or context.run_config.get("out")
    return Path(str(named)) if named else None


@cache
def workshop() -> Workshop:
    """Builds the parts that a site's own folder names, each once a process."""
    return Workshop()
