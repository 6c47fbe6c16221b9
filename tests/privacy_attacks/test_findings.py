"""What is told of an attack: a refuted claim, or silence, and never a certificate."""

import numpy as np

from fedkd.privacy.attacks import SENTENCE, Attacked, Claim, Report, epsilon_of, finding


def scores(gap, pairs=200, seed=0):
    """Member, other, member, other: members are `gap` deviations ahead."""
    said = np.random.default_rng(seed).normal(size=2 * pairs)
    said[0::2] += gap
    return said


def told(claim, gap, **options):
    site = Attacked("north", claim)
    site.findings.append(finding("lira", scores(gap), claim, 0.01, **options))
    return Report("runs/x", 16, 0, 0.01, 1, [site])


def test_a_claim_below_the_bound_is_refuted():
    report = told(Claim(0.1, 1e-5), gap=5.0)
    assert report.refuted
    assert report.to_json()["sites"][0]["findings"][0]["refutes"]
    assert any("REFUTED" in line for line in report.lines())


def test_a_claim_above_the_bound_is_met_with_silence():
    report = told(Claim(8.0, 1e-5), gap=5.0)
    assert not report.refuted
    assert any(line.endswith("silent") for line in report.lines())
    assert not any("REFUTED" in line for line in report.lines())


def test_where_nothing_is_claimed_nothing_is_refuted():
    report = told(Claim(None, 1e-5), gap=5.0)
    assert not report.refuted
    assert any(line.endswith("no claim") for line in report.lines())
    assert report.to_json()["sites"][0]["claim"] == {"epsilon": None, "delta": 1e-5}


def test_a_claim_of_gaussian_privacy_says_more_and_is_refuted_earlier():
    plain = finding("lira", scores(3.0), Claim(1.0, 1e-5), 0.01)
    gaussian = finding("lira", scores(3.0), Claim(1.0, 1e-5, gaussian=True), 0.01)
    assert plain.epsilon_at_least is not None
    assert gaussian.epsilon_at_least is not None
    assert gaussian.epsilon_at_least > 1.2 * plain.epsilon_at_least
    assert gaussian.epsilon_at_least < epsilon_of(1.5, 1e-5)  # half the gap is the truth


def test_what_an_attacker_never_gets_has_no_bound():
    report = told(Claim(0.01, 1e-5), gap=9.0, what_if=True)
    found = report.sites[0].findings[0]
    assert (found.epsilon_at_least, found.epsilon_pooled) == (None, None)
    assert found.auc > 0.99
    assert not report.refuted


def test_a_bound_equal_to_the_claim_refutes_nothing():
    found = finding("lira", scores(5.0), Claim(None, 1e-5), 0.01)
    assert not found.refutes(Claim(found.epsilon_at_least, 1e-5))


def test_all_bounds_of_a_report_share_its_alpha():
    assert Report("runs/x", 16, 0, 0.01, 20).alpha_each == 0.0005


def test_every_report_says_what_it_is_not():
    report = told(Claim(1.0, 1e-5), gap=0.0)
    lines, body = "\n".join(report.lines()), report.to_json()
    assert SENTENCE in lines
    assert "NOT RELEASABLE" in lines
    assert "confidence 99%" in lines
    assert (body["releasable"], body["sentence"], body["confidence"]) == (False, SENTENCE, 0.99)
    for word in ("anonymous", "compliant", "certified"):
        assert word not in lines.lower()


def test_the_figures_are_those_of_the_scores():
    found = finding("loss", np.array([3.0, 0.0, 2.0, 1.0]), Claim(None, 0.0), 0.01)
    assert (found.pairs, found.auc, found.tpr) == (2, 1.0, 1.0)
    assert 0 < found.tpr_low < found.tpr_high == 1.0
