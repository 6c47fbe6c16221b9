"""A hospital as its units run it: one user has the records, another one faces the network."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedkd.deploy.hospital import Hospital
from fedkd.deploy.preparing import Whose, prepare_letterbox
from tests.deploy.federations import coordinator, enrolled
from tests.deploy.two_users import FEDKD, GROUP, LETTERBOX, as_user, is_known

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become two others"),
    pytest.mark.skipif(not is_known(), reason="this processor's calls are not known here"),
]
PREPARED = Whose(group=GROUP)


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    """A hospital of the user fedkd's, in a folder that everybody may enter, as /var/lib is."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        enrolled(coordinator(folder), "north", folder / "hospital")
        found = Hospital(folder / "hospital")
        for path in (found.folder, *found.folder.rglob("*")):
            os.chown(path, FEDKD, GROUP)
        yield found


def test_what_the_unit_forbids_is_refused_here_too(hospital: Hospital) -> None:
    with pytest.raises(AssertionError, match="PermissionError"):
        as_user(FEDKD, lambda: hospital.folder.chmod(0o2770))
    as_user(FEDKD, lambda: hospital.folder.chmod(0o700))


def test_a_letterbox_is_prepared_by_whoever_may_set_no_group_by_a_mode(hospital: Hospital) -> None:
    """RestrictSUIDSGID=yes of the site's unit."""
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))
    as_user(FEDKD, lambda: prepare_letterbox(hospital, PREPARED))  # at every start
    for name in ("outbox", "home", "logs"):
        path = hospital.letterbox / name / "kept"
        as_user(LETTERBOX, lambda path=path: path.write_text("kept"))
        assert path.stat().st_gid == GROUP
        as_user(FEDKD, path.read_text)
