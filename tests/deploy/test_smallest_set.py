"""Few patients are easily told apart: one figure says how many, wherever it is asked."""

import pytest

from fedkd.cli.hospital import part_of
from fedkd.deploy.approving import shown
from fedkd.deploy.checking import check_hospital
from fedkd.deploy.consent import Shelf
from fedkd.deploy.founding import found
from fedkd.deploy.site_file import SiteFile
from fedkd.federation.excluded import write_excluded
from fedkd.federation.excluding import exclude
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import Answer, Considered, Reason, Ruling
from tests.deploy.federated import Federated, approve, taken_in
from tests.deploy.test_policy import expect_refused, question, said, with_policy

HERE = 80
"""Of a hospital's 100 patients those from whom its model learns: a fifth of them judge it."""


def problem(federated: Federated) -> str | None:
    """What `fedkd site check` says is wrong with the number of records."""
    verdicts = check_hospital(federated.hospitals["east"].folder, part_of, federated.build)
    (found_,) = [verdict for verdict in verdicts if verdict.check == "records"]
    return found_.found if found_.outcome == "problem" else None


def refound(federated: Federated) -> None:
    east = federated.hospitals["east"]
    found(east, SiteFile.read(east.site_yaml), part_of, federated.build)


def test_as_many_as_the_policy_wants_pass_everywhere(federated: Federated) -> None:
    with_policy(federated, smallest_training_set=HERE)
    assert problem(federated) is None
    refound(federated)
    run = federated.proposed("audit.cosigners=0")
    ruled = taken_in(federated, run)["east"]
    assert isinstance(ruled, Considered)
    assert ruled.ruling is Ruling.PENDING
    approve(federated, run, "east")
    assert isinstance(said(federated, question(run)), Answer)


def test_one_too_few_passes_nowhere(federated: Federated) -> None:
    with_policy(federated, smallest_training_set=HERE + 1)
    assert "each counted as a patient; 80 to learn from, where the policy wants 81" in str(
        problem(federated)
    )
    with pytest.raises(BadInput, match="80 patients to learn from"):
        refound(federated)
    ruled = taken_in(federated, federated.proposed())["east"]
    assert isinstance(ruled, Considered)
    assert ruled.ruling is Ruling.DECLINED


@pytest.mark.parametrize("list_is_there", [True, False], ids=["", "its list was lost"])
def test_who_was_taken_out_is_no_patient_to_learn_from(
    federated: Federated, list_is_there: bool
) -> None:
    """The next training is refused at home, in words; and so is a yes to another run."""
    with_policy(federated, smallest_training_set=HERE)
    run = federated.proposed("audit.cosigners=0")
    taken_in(federated, run)
    approve(federated, run, "east")
    east = federated.hospitals["east"]
    exclude(SiteFolder(east.site), ["1"], "objection")
    assert "79 to learn from" in str(problem(federated))
    one = shown(east, Shelf(east).read(run.proposal().digest), federated.build)
    why = "smallest_training_set: found 79 patients to learn from, expected at least 80"
    assert one.objection == why
    if not list_is_there:
        write_excluded(east.site, frozenset())
    expect_refused(federated, question(run), Reason.OUTSIDE_POLICY, why)
    with pytest.raises(BadInput, match="79 patients to learn from"):
        refound(federated)
