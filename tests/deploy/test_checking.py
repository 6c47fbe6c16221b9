"""`fedkd site check HOSPITAL`: a hospital that joined, its file and its data, and what is said."""

import hashlib
import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trustme

from fedkd.audit.officer import BUDGET, new_key, sign_paper
from fedkd.cli import main
from fedkd.cli.hospital import part_of
from fedkd.deploy.checking import check_hospital
from fedkd.deploy.founding import found
from fedkd.deploy.hospital import hospital_at
from fedkd.deploy.invitations import FEDERATION, Invitation, in_days, new_token
from fedkd.deploy.site_file import SiteFile
from fedkd.deploy.verdicts import in_order
from fedkd.federation.building import Workshop
from fedkd.federation.papers import install
from fedkd.federation.site import SiteFolder
from tests.deploy.network_servers import federation, intercepting_proxy
from tests.federation.officers import NOT_PRIVATE
from tests.federation.officers import paper as officers_paper

SCHEMA = """\
format: 1
name: "heart"
schema:
  label: {column: ill, classes: {"no": [0], "yes": [1]}}
  columns:
    age: {kind: numeric, low: 18, high: 100, unit: years}
    chol: {kind: numeric, low: 80, high: 620, unit: mg/dl, missing: 0.1}
    sex: {kind: categorical, categories: [f, m]}
"""
SITE = """\
format: 1
data: {{path: ward.csv}}
columns:
  age: {{column: alter}}
  chol: {{column: cholesterin{unit}}}
  sex: {{column: geschlecht, codes: {{w: f, m: m}}}}
label: {{column: krank}}
card:
  {{name: Ward, version: "1", modality: table, licence: none, legal_basis: consent, origin: here}}
model: {model}
mechanism: {mechanism}
policy: {policy}
retention: {{}}
"""
MG = ""
MMOL = ", unit: mmol/l, factor: 38.67"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(organization_name="heart")


@pytest.fixture
def hospital(tmp_path, authority):
    """A hospital's folder as `fedkd site join` leaves it, with records of 80 patients."""
    folder = tmp_path / "hospital"
    folder.mkdir(mode=0o700)
    (folder / "invitation.json").write_bytes(invitation(tmp_path, authority, "localhost:443"))
    told = json.loads((folder / "invitation.json").read_bytes())
    (folder / "federation.yaml").write_text(told["federation_yaml"])
    (folder / "federation.yaml.sig").write_text(told["federation_sig"])
    for name in ("invitation.json", "federation.yaml", "federation.yaml.sig"):
        (folder / name).chmod(0o600)
    for name in ("run", "site", "rehearsal"):
        (folder / name).mkdir(mode=0o700)
    write_records(folder)
    write_site(folder)
    return folder


def invitation(folder, authority, address, expires=None):
    key = new_key(folder / "federation.key", "heart")
    signature = sign_paper(key, FEDERATION, SCHEMA.encode()).decode()
    paper = Invitation(
        federation="heart", site="north", address=address,
        ca=authority.cert_pem.bytes().decode(), federation_vkey=key.verifier().text(),
        federation_yaml=SCHEMA, federation_sig=signature,
        software="0.1.0", bundle="0" * 64, token=new_token(), expires=expires or in_days(30),
    )  # fmt: skip
    return paper.signed(key).to_bytes()


def write_records(folder, **columns):
    rng = np.random.default_rng(0)
    made = {
        "alter": rng.integers(30, 90, 80), "cholesterin": rng.integers(150, 300, 80),
        "geschlecht": ["w", "m"] * 40, "krank": rng.integers(0, 2, 80), "Name": ["x"] * 80,
    }  # fmt: skip
    pd.DataFrame({**made, **columns}).to_csv(folder / "ward.csv", index=False)


def write_site(folder, *, unit=MG, model="mlp", mechanism="dp_training", policy="{}"):
    text = SITE.format(unit=unit, model=model, mechanism=mechanism, policy=policy)
    (folder / "site.yaml").write_text(text)
    (folder / "site.yaml").chmod(0o600)


def checked(folder):
    found_ = {}
    for verdict in check_hospital(folder, part_of, Workshop()):
        found_[verdict.check] = verdict
    return found_


def found_at(folder):
    hospital = hospital_at(folder)
    found(hospital, SiteFile.read(hospital.site_yaml), part_of, Workshop())
    return SiteFolder(hospital.site)


def sign_budget(site, folder, *, unprotected=False):
    key = new_key(folder / "dpo.key", "Ada Example")
    changes = NOT_PRIVATE if unprotected else {}
    paper = officers_paper("north", site.facts(2).patients, **changes)
    mechanism = Workshop()(site.settings().mechanism)
    install(site, paper, sign_paper(key, BUDGET, paper), mechanism, key.verifier().text())


def test_before_its_officer_has_signed_the_price_is_shown_and_is_a_problem(hospital):
    said = checked(hospital)
    wrong = {name: v for name, v in said.items() if v.outcome == "problem"}
    assert set(wrong) == {"cost"}
    assert "no signed budget" in wrong["cost"].found
    assert "With epsilon 1: a run costs epsilon" in wrong["cost"].found
    assert said["step"].found.startswith("one private step of mlp on 80 rows")
    assert said["label"].outcome == "passed"


def test_with_the_officers_paper_all_is_in_order(hospital, tmp_path):
    site = found_at(hospital)
    sign_budget(site, tmp_path)
    verdicts = list(check_hospital(hospital, part_of, Workshop()))
    assert in_order(verdicts), [v for v in verdicts if v.outcome != "passed"]
    said = {verdict.check: verdict.found for verdict in verdicts}
    assert "spent 0 of 1" in said["cost"]
    leaves = " ".join(v.found for v in verdicts if v.check == "leaves")
    assert "[1000, 2]" in leaves
    assert "at most 20000 queries a run" in leaves


def test_an_answers_bytes_are_those_of_a_real_one(hospital):
    leaves = [v.found for v in check_hospital(hospital, part_of, Workshop()) if v.check == "leaves"]
    size = int(leaves[0].split("], ")[1].split(" bytes")[0].replace(",", ""))
    assert 4 * 1000 * 2 < size < 4 * 1000 * 2 + 1000


def test_nothing_in_the_folder_changes_by_a_check(hospital, tmp_path):
    sign_budget(found_at(hospital), tmp_path)

    def tree():
        return {
            str(path.relative_to(hospital)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(hospital.rglob("*"))
            if path.is_file()
        }

    checked(hospital)
    before = tree()
    checked(hospital)
    assert tree() == before


def test_cholesterol_in_mmol_is_a_problem_until_the_site_says_so(hospital):
    write_records(hospital, cholesterin=np.random.default_rng(0).normal(5.3, 0.6, 80).round(1))
    said = checked(hospital)
    assert said["chol"].found.startswith("100 % of chol below range: mmol/l?")
    assert "factor: 38.67" in said["chol"].fix
    assert said["step"].outcome == "not tried"
    write_site(hospital, unit=MMOL)
    assert checked(hospital)["step"].outcome == "passed"


def test_a_hospital_that_is_too_small_for_its_own_policy_is_told(hospital):
    write_site(hospital, policy="{smallest_training_set: 500}")
    assert "72 to learn from, where the policy wants 500" in checked(hospital)["records"].found


@pytest.mark.parametrize(
    ("zone", "here"), [("UTC", "UTC (UTC+0000)"), ("Asia/Kolkata", "IST (UTC+0530)")]
)
@pytest.mark.parametrize(
    ("policy", "when"), [("{}", "at any hour"), ('{hours: "08:00-18:00"}', "08:00-18:00")]
)
def test_hours_are_said_with_the_time_zone_that_they_are_in(hospital, in_zone, zone, here, policy,
                                                            when):  # fmt: skip
    in_zone(zone)
    write_site(hospital, policy=policy)
    said = checked(hospital)["hours"].found
    assert said.startswith(f"{when}; here it is ")
    assert here in said


def test_a_model_that_cannot_be_private_is_found_before_anything_is_paid(hospital):
    write_site(hospital, model="random_forest")
    assert "gradients" in checked(hospital)["step"].found
    write_site(hospital, model="random_forest", mechanism="none")
    said = checked(hospital)
    assert said["step"].outcome == "passed"
    assert "NOT PRIVATE" in said["cost"].found


@pytest.mark.parametrize(
    ("mechanism", "figures", "leaves"),
    [
        ("dp_training", "[]", "no figure of this hospital's own records may be asked for"),
        ("dp_training", "[counts]", "noised and charged: counts"),
        ("dp_training", "[counts, exact_counts]", "noised and charged: counts"),
        ("none", "[counts]", "no figure may be asked for: nothing bounds what it tells"),
        ("none", "[counts, exact_counts]", "NOT PRIVATE: counts that are asked for leave as they"),
    ],
)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "not signed"])
def test_how_figures_would_leave_is_said_by_the_budget_there_is(
    hospital, tmp_path, mechanism, figures, leaves, signed
):
    write_site(hospital, mechanism=mechanism, policy=f"{{figures: {figures}}}")
    if signed:
        sign_budget(found_at(hospital), tmp_path, unprotected=mechanism == "none")
    verdicts = check_hospital(hospital, part_of, Workshop())
    assert [v.found for v in verdicts if v.check == "leaves"][-1].find(leaves) >= 0


@pytest.mark.parametrize(
    ("write", "check", "found_"),
    [
        (lambda f: (f / "site.yaml").write_text("format: 1\n"), "site.yaml", "no path"),
        (lambda f: (f / "ward.csv").unlink(), "table", "ward.csv"),
        (lambda f: (f / "federation.yaml").write_text(SCHEMA + "\n"), "federation", "signature"),
        (lambda f: f.chmod(0o755), "folder", "0755"),
        (lambda f: write_records(f, krank=["perhaps"] * 80), "label", "perhaps"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_remedy(hospital, write, check, found_):
    write(hospital)
    verdict = checked(hospital)[check]
    assert verdict.outcome == "problem"
    assert found_ in verdict.found
    assert verdict.fix


@pytest.mark.parametrize(
    ("key", "value", "rewrite"),
    [
        ("separator", "';'", lambda text: text.replace(",", ";").encode()),
        ("encoding", "latin-1", lambda text: text.replace("Name", "Größe").encode("latin-1")),
    ],
)
def test_how_a_file_is_written_is_said_in_site_yaml_as_the_command_says(
    hospital, capsys, key, value, rewrite
):
    table = hospital / "ward.csv"
    table.write_bytes(rewrite(table.read_text()))
    problem = problems(hospital, capsys)["table"][0]
    assert f"{key}: {value}" in problem["fix"]
    assert "at a hospital under data: in site.yaml" in problem["fix"]
    typed = (hospital / "site.yaml").read_text()
    mended = typed.replace("path: ward.csv", f"path: ward.csv, {key}: {value}")
    (hospital / "site.yaml").write_text(mended)
    assert set(problems(hospital, capsys)) == {"cost"}


def test_all_columns_that_are_wrong_are_told_at_once_and_hide_no_other(hospital, capsys):
    write_records(hospital, cholesterin=np.full(80, 5.2), krank=["perhaps"] * 80)
    typed = (hospital / "site.yaml").read_text()
    typed = typed.replace("column: alter", "column: altr").replace("w: f, m: m", "f: f, m: m")
    (hospital / "site.yaml").write_text(typed.replace("sex:", "gender:"))
    said = problems(hospital, capsys)
    told = " ".join(one["found"] + one["fix"] for one in said["columns"])
    for words in ("no column 'altr' in ward.csv", "did you mean 'alter'?",
                  "the column 'gender' in site.yaml", "no column 'sex' in site.yaml"):  # fmt: skip
        assert words in told
    assert "mmol/l?" in said["chol"][0]["found"]
    assert "perhaps" in said["label"][0]["found"]
    (hospital / "site.yaml").write_text(typed.replace("krank", "ill"))
    told = " ".join(one["found"] for one in problems(hospital, capsys)["columns"])
    assert "no column 'altr', no label column 'ill' in ward.csv" in told
    assert "'w' in the column 'geschlecht' for sex" in told


def problems(hospital, capsys):
    """What the command finds wrong, by what it looked at."""
    main(["site", "check", str(hospital), "--json"])
    told = json.loads(capsys.readouterr().out)["checks"]
    wrong = [one for one in told if one["outcome"] == "problem"]
    return {one["check"]: [o for o in wrong if o["check"] == one["check"]] for one in wrong}


def test_records_in_a_folder_that_nobody_else_enters_are_as_its_owner_likes(hospital):
    with tempfile.TemporaryDirectory() as made:  # pytest's own lets nobody in
        Path(made).chmod(0o755)
        folder = shutil.copytree(hospital, Path(made, "hospital"))
        (folder / "ward.csv").chmod(0o644)
        assert checked(folder)["folder"].outcome == "passed"
        folder.chmod(0o710)  # as it is opened to a letterbox of its own group
        assert "letterbox's user may read it" in checked(folder)["folder"].found


def test_the_command_prints_verdicts_and_its_code_says_whether_all_passed(hospital, capsys):
    assert main(["site", "check", str(hospital)]) == 1
    assert "PROBLEM   cost" in capsys.readouterr().out
    assert main(["site", "check", str(hospital), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert {"check", "outcome", "found", "fix"} == set(told["checks"][0])
    assert main(["site", "check"]) == 2
    assert main(["site", "check", str(hospital.parent)]) == 2


def test_the_network_is_tried_from_the_invitation_alone(tmp_path, authority, capsys, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    paper, ticket = tmp_path / "invitation.json", tmp_path / "ticket.txt"
    with federation(authority) as port, intercepting_proxy() as proxy:
        paper.write_bytes(invitation(tmp_path, authority, f"localhost:{port}"))
        assert main(["site", "check", "--network", str(paper), "--ticket", str(ticket)]) == 0
        assert "all passed" in capsys.readouterr().out
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        monkeypatch.setenv("NO_PROXY", "")
        assert main(["site", "check", "--network", str(paper)]) == 1
        assert f"exempt localhost:{port} from TLS inspection" in capsys.readouterr().out
    token = json.loads(paper.read_bytes())["token"]
    assert f"localhost:{port}" in ticket.read_text()
    assert token not in ticket.read_text()


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("https://proxy.example:8443", ("over TLS", "HTTPS_PROXY=http://HOST:PORT")),
        ("socks5://proxy.example:1080", ("socks5://proxy.example", "allows CONNECT")),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_line_among_the_others(
    tmp_path, authority, capsys, monkeypatch, proxy, words
):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    paper, ticket = tmp_path / "invitation.json", tmp_path / "ticket.txt"
    paper.write_bytes(invitation(tmp_path, authority, "localhost:443"))
    typed = ["site", "check", "--network", str(paper), "--ticket", str(ticket)]
    assert main([*typed, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["checks"]
    said = {one["check"]: one for one in told}
    assert said["invitation"]["outcome"] == said["python"]["outcome"] == "passed"
    assert said["port"]["outcome"] == "not tried"
    for word in words:
        assert word in said["proxy"]["found"] + said["proxy"]["fix"]
    assert "PROBLEM   proxy" in ticket.read_text()


def test_an_invitation_that_expired_is_a_problem_before_joining_alone(tmp_path, authority, capsys):
    paper = tmp_path / "invitation.json"
    past = in_days(0, datetime.now(UTC) - timedelta(days=1))
    paper.write_bytes(invitation(tmp_path, authority, "localhost:1", expires=past))

    def said():
        main(["site", "check", "--network", str(paper), "--json"])
        told = json.loads(capsys.readouterr().out)["checks"]
        return next(one for one in told if one["check"] == "invitation")

    assert said()["outcome"] == "problem"
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "node.key").write_text("x")
    assert said()["outcome"] == "passed"
