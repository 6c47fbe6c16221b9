"""A coordinator that was updated, and a hospital that knows the bundle before: real processes."""

import json
import time
from pathlib import Path

import pytest

from fedkd.data.sources.heart_disease import HOSPITALS
from fedkd.deploy.bundles import digits_of
from fedkd.deploy.hospital import Hospital
from fedkd.federation.flower.bundle import bundle_digest
from tests.deploy.federations import needs_nginx, needs_offline
from tests.federation.officers import NOT_PRIVATE
from tests.stories.hospitals import HEART_DISEASE, SEED, Hospitals, fedkd, told

pytestmark = [
    pytest.mark.long,
    needs_nginx,
    needs_offline,
    pytest.mark.skipif(not HEART_DISEASE.is_dir(), reason=f"no {HEART_DISEASE}"),
]
BEFORE = "0" * 64


class Behind(Hospitals):
    """Its hospital was invited when the coordinator had another bundle."""

    def _site_yaml(self, site: str) -> None:
        super()._site_yaml(site)
        path = Hospital(self.sites[site]).invitation
        path.write_text(json.dumps({**json.loads(path.read_bytes()), "bundle": BEFORE}))


def test_its_people_let_the_new_bundle_in_and_the_run_goes_on(tmp_path: Path) -> None:
    site = HOSPITALS[0]
    rows = (HEART_DISEASE / f"processed.{site}.data").read_text().splitlines()[:60]
    with Behind(tmp_path / "f", {site: rows}, paper=NOT_PRIVATE) as federation:
        folder = federation.sites[site]
        process, out = federation.begin("rounds=1", f"seed={SEED}")
        until = time.monotonic() + 300
        while not list((folder / "proposals").glob("*.json")):
            assert time.monotonic() < until, federation.logs()
            time.sleep(0.3)
        status = told("site", "status", folder)
        assert status["versions"]["bundles"] == [BEFORE]
        (warning,) = [it for it in status["warnings"] if "bundle" in it]
        assert f"proposes with the bundle {digits_of(bundle_digest())}" in warning
        run = status["versions"]["coordinator"]["run"]
        yes = ["site", "approve", folder, run, "--yes", "--by", "Ada Example"]
        assert "a bundle that is not known here" in fedkd(*yes, check=False)
        fedkd(
            *yes, "--bundle", digits_of(told("server", "status", federation.federation)["bundle"])
        )
        federation.ended(process, out)
        summary = json.loads((out / "summary.json").read_text())
        assert [row["left_out"] for row in summary["clients"]] == [[]]
        assert "bundle" not in (folder / "letterbox" / "refusals.log").read_text()
