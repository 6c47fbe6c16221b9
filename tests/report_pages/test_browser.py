"""The page in a real browser: no errors, no network, links that arrive, a filter for the keyboard.

Skipped where there is no Chromium; FEDKD_CHROMIUM names one that lies elsewhere.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedkd.report.building import Built
from fedkd.report.verify.drawing import PAGE
from tests.report_pages import browser
from tests.report_pages.browser import Browser
from tests.report_pages.papers import CARD, Hospitals, built

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.found() is None, reason="found no Chromium on this machine"),
]
FOCUS = "document.activeElement"
SHOWN = "document.querySelectorAll('article.field:not([hidden])').length"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = browser.found()
    assert program is not None
    one = Browser(program, tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def address(plain: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / PAGE
    path.write_bytes(plain.files[PAGE])
    return path.as_uri()


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_it_opens_without_errors_and_without_the_network(
    tab: Browser, address: str, width: int, tmp_path: Path
) -> None:
    tab.open(address, width=width)
    assert tab.run("document.getElementById('filter').hidden") is False  # the script ran
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [address]
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.screenshot(tmp_path / f"page-{width}.png")
    assert (tmp_path / f"page-{width}.png").stat().st_size > 10_000


def test_nothing_overflows_a_telephone_once_all_is_open(tab: Browser, address: str) -> None:
    tab.open(address, width=360)
    tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.until("document.querySelectorAll('.entries pre').length > 100")
    assert tab.run("document.documentElement.scrollWidth") <= 360
    wide = "[...document.querySelectorAll('main *:not(.unseen)')].filter((one) => "
    wide += "one.getBoundingClientRect().right > 361 && !one.closest('pre, thead, svg'))"
    assert tab.run(f"{wide}.map((one) => one.outerHTML.slice(0, 80))") == []


def test_a_statement_opens_its_evidence_and_links_arrive_at_it(tab: Browser, address: str) -> None:
    tab.open(address, width=1000)
    statement = "document.getElementById('a4.2g.metrics/1')"
    tab.run(f"{statement}.querySelector('summary').click()")
    tab.until(f"{statement}.querySelector('li pre.body') !== null")
    assert '"ece": 0.125' in tab.run(f"{statement}.querySelector('li pre.body').textContent")
    link = f"{statement}.querySelector('a.entry')"
    to = tab.run(f"{link}.getAttribute('href').slice(1)")
    tab.run(f"{link}.click()")
    tab.until(f"document.activeElement.id === '{to}'")
    assert tab.run(f"document.getElementById('{to}').open") is True
    box = f"document.getElementById('{to}').getBoundingClientRect()"
    assert tab.run(f"{box}.top >= 0 && {box}.top < innerHeight") is True


def test_an_address_leads_into_what_is_closed(tab: Browser, address: str) -> None:
    tab.open(f"{address}#entry/site-02/5", width=1000)
    tab.until("document.activeElement.id === 'entry/site-02/5'")
    assert tab.run("document.getElementById('entry/site-02/5').checkVisibility()") is True
    assert tab.run("scrollY") > 1000


def test_the_filter_works_by_keyboard(tab: Browser, address: str) -> None:
    tab.open(address, width=1000)
    every = tab.run(SHOWN)
    assert every == 93
    tab.run("document.getElementById('filter-words').focus()")
    tab.write("calibration error")
    assert 0 < tab.run(SHOWN) < every
    told = tab.run("document.getElementById('filter-found').textContent")
    assert told == f"{tab.run(SHOWN)} of 93 fields are shown."
    for _ in range(len("calibration error")):
        tab.press("Backspace")
    assert tab.run(SHOWN) == every
    tab.press("Tab")
    assert tab.run(f"{FOCUS}.value") == "COMPUTED"
    tab.press(" ", " ")
    statuses = "[...new Set([...document.querySelectorAll('article.field:not([hidden])')]"
    assert "COMPUTED" not in tab.run(f"{statuses}.map((one) => one.dataset.status))]")
    for _ in range(5):
        tab.press("Tab")
    assert tab.run(f"{FOCUS}.id") == "filter-who"
    tab.write("the h")
    asked = "[...new Set([...document.querySelectorAll('article.field:not([hidden])')]"
    assert tab.run(f"{asked}.map((one) => one.dataset.asks))]") == ["the hospital"]
    tab.press("Tab")
    assert tab.run(f"{FOCUS}.id") == "filter-all"
    tab.press("Enter", "\r")
    assert tab.run(SHOWN) == every


def test_the_first_tab_skips_to_the_report(tab: Browser, address: str) -> None:
    tab.open(address, width=1000)
    tab.press("Tab")
    assert tab.run(f"{FOCUS}.className") == "skip"
    assert tab.run(f"{FOCUS}.getBoundingClientRect().left") >= 0
    tab.press("Enter", "\r")
    tab.until(f"{FOCUS}.id === 'main'")


def test_a_link_to_a_hidden_field_shows_it(tab: Browser, address: str) -> None:
    tab.open(address, width=1000)
    tab.run("document.querySelector('a[data-only=DECLARED]').click()")
    tab.until(f"{SHOWN} === 1")
    tab.run("document.querySelector('#minute a[href=\"#g9.basis\"]').click()")
    tab.until(f"{FOCUS}.id === 'g9.basis'")
    assert tab.run(SHOWN) == 93


def test_markup_in_logs_does_nothing(tab: Browser, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=\"document.title='owned'\"></script><script>location='x'</script>"
    card = dict.fromkeys(CARD, nasty)
    hospital = "<img|src=x|onerror=alert(1)>"
    found = built(Hospitals(("site-01", hospital), card=card, said=nasty, who=nasty), tmp_path)
    path = tmp_path / PAGE
    path.write_bytes(found.files[PAGE])
    tab.open(path.as_uri(), width=1000)
    tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.until("document.querySelectorAll('.entries pre').length > 50")
    assert tab.complaints == []
    assert tab.requests == [path.as_uri()] or tab.requests[1:] == ["data:,"]
    assert tab.run("document.title").startswith("SIMULATION: Technical documentation")
    assert tab.run("document.images.length") == 0
    statement = tab.run("document.getElementById('a4.1a.purpose/1').querySelector('q').textContent")
    assert statement == nasty


def test_every_sheet_of_paper_says_simulation(tab: Browser, address: str, tmp_path: Path) -> None:
    tab.open(address, width=1000)
    tab.on_paper(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    rule = (
        "[...document.styleSheets[0].cssRules].some((rule) => rule.cssText.includes('@top-center'))"
    )
    assert tab.run(rule) is True
