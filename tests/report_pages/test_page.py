"""The page: whole, closed to the network, linked to its evidence, and deaf to markup in logs."""

import base64
import hashlib
import itertools
import re
import sqlite3
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedkd.report.building import Built, build
from fedkd.report.verify import catalogue
from fedkd.report.verify.drawing import PAGE, TEXT
from fedkd.report.verify.judging import judge
from fedkd.report.verify.page import embedded, page
from tests.report_pages.papers import FIELD, Hospitals, built

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</style><style>body{display:none}</style>",
    "javascript:alert(1)",
    "\u202egnihton\u202c",
    "-->]]><!--",
)
CALLS = {"onerror", "onload", "onfocus", "onclick", "autofocus", "style"}


class Parsed(HTMLParser):
    """What a browser would find in a page, as far as these tests ask."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def values(self, key: str) -> list[str]:
        return [attributes[key] for _, attributes in self.elements if key in attributes]


@pytest.fixture(scope="module")
def parsed(plain: Built) -> Parsed:
    return Parsed(plain.files[PAGE])


def test_a_page_carries_its_evidence_and_is_judged_by_it(plain: Built, tmp_path: Path) -> None:
    assert embedded(plain.files[PAGE]) == plain.bundle
    path = tmp_path / PAGE
    path.write_bytes(plain.files[PAGE])
    assert judge(path).verdict == "CONSISTENT"
    path.write_bytes(plain.files[PAGE].replace(b"CC BY 4.0", b"CC BY 3.0", 1))
    assert judge(path).verdict == "REFUTED"


def test_the_same_evidence_gives_the_same_page(plain: Built) -> None:
    assert page(plain.derived, plain.bundle).encode() == plain.files[PAGE]


def test_the_policy_lets_in_the_one_script_and_the_one_style(plain: Built, parsed: Parsed) -> None:
    text = plain.files[PAGE].decode()
    (policy,) = [one["content"] for one in parsed.all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for name in ("script", "style"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert len(parsed.all("script")) == 2
    assert len(parsed.all("style")) == 1


def test_a_page_names_nothing_outside_itself(plain: Built, parsed: Parsed) -> None:
    assert parsed.values("src") == []
    assert [to for to in parsed.values("href") if not to.startswith("#")] == ["data:,"]
    assert b"@import" not in plain.files[PAGE]
    assert b"url(" not in plain.files[PAGE]


def test_every_link_leads_somewhere_and_every_name_is_used_once(parsed: Parsed) -> None:
    ids = Counter(parsed.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = [to[1:] for to in parsed.values("href") if to.startswith("#")]
    assert len(links) > 300
    assert set(links) <= ids.keys()
    named = [names.split() for names in parsed.values("aria-labelledby")]
    assert {name for names in named for name in names} <= ids.keys()


def test_every_field_and_every_statement_has_its_place(plain: Built, parsed: Parsed) -> None:
    ids = set(parsed.values("id"))
    assert {field.id for field in catalogue().fields} <= ids
    assert {one.id for one in plain.derived.statements} <= ids
    entries = [
        f"entry/{party}/{entry.index}"
        for party, book in plain.derived.evidence.books.items()
        for entry in book.entries
    ]
    assert set(entries) <= ids
    assert len(parsed.values("data-status")) == len(catalogue().fields)


def test_headings_go_down_one_step_at_a_time(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_pictures_have_words_and_tables(parsed: Parsed) -> None:
    pictures = parsed.all("svg")
    assert len(pictures) == 5
    assert all(one["role"] == "img" for one in pictures)
    assert len(parsed.all("desc")) == len(parsed.all("title")) - 1 == 5
    assert len(parsed.all("table")) >= 7


def test_a_simulation_says_so_at_the_top_and_on_every_sheet(plain: Built, tmp_path: Path) -> None:
    notice = "SIMULATION, PARTIES FICTIONAL, NOT FOR FILING"
    text = plain.files[PAGE].decode()
    assert text.index(f"<span>{notice}</span>") < text.index("<h1")
    assert f'@top-center {{ content: "{notice}"' in text
    deployed = built(Hospitals(kind=""), tmp_path)
    assert notice not in deployed.files[PAGE].decode()


@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_a_run_without_privacy_says_so_in_its_first_lines(
    epsilon: float | None, tmp_path: Path
) -> None:
    text = Parsed(built(Hospitals(epsilon=epsilon, kind=""), tmp_path).files[PAGE]).text
    top = text[: text.index("What data went in")]
    assert ("NOT PRIVATE at site-01, site-02, site-03" in top) == (epsilon is None)
    assert ("epsilon 0.8684 of 1 allowed" in text) == (epsilon is not None)


def test_a_minute_answers_the_five_questions(parsed: Parsed) -> None:
    box = parsed.text[
        parsed.text.index("In one minute\n") if "In one minute\n" in parsed.text else 0 :
    ]
    for said in (
        "hearts, version 2: table of clinical findings.",
        "Consent of each patient",
        "site-02: 191 to train on, 21 for validation (site-02#9)",
        "site-03: epsilon 0.8684 of 1 allowed",
        "Delta 1e-05; unit of privacy: patient",
        "accuracy 0.900 (95 % interval 0.851 to 0.934, 200 test records)",
        "The provider: 30 to state and sign",
        "every log held",
    ):
        assert said in box, said


@pytest.mark.parametrize("nasty", HOSTILE)
def test_text_of_logs_and_persons_stays_text(nasty: str, plain: Built, tmp_path: Path) -> None:
    card = dict.fromkeys(("name", "version", "modality", "licence", "legal_basis", "origin"), nasty)
    hospital = re.sub(r"[\s/\u202a-\u202e]", "|", nasty)  # it names a file, and a key
    who = f"{nasty} Doe"
    federation = Hospitals(("site-01", hospital), card=card, said=nasty, who=who, role=nasty)
    found = built(federation, tmp_path)
    assert found.derived.answer(FIELD).status == "DECLARED"
    here, there = Parsed(found.files[PAGE]), Parsed(plain.files[PAGE])
    assert {tag for tag, _ in here.elements} == {tag for tag, _ in there.elements}
    for name in ("script", "style", "svg", "link", "meta"):
        assert len(here.all(name)) == len(there.all(name)), name
    assert not CALLS & {key for _, attributes in here.elements for key in attributes}
    assert all(to.startswith("#") or to == "data:," for to in here.values("href"))
    assert "\u202e" not in here.text
    assert {to[1:] for to in here.values("href") if to[0] == "#"} <= set(here.values("id"))
    path = tmp_path / PAGE
    path.write_bytes(found.files[PAGE])
    assert judge(path).verdict == "CONSISTENT"


def test_what_leans_on_a_broken_log_is_marked(tmp_path: Path) -> None:
    run = Hospitals().write(tmp_path)
    database = sqlite3.connect(run / "audit" / "site-02.sqlite")
    with database:
        database.execute("UPDATE entries SET body = replace(body, '191', '911')")
    database.close()
    found = build(run)
    text = found.files[PAGE].decode()
    assert "A LOG DOES NOT HOLD: log of &#x27;site-02&#x27;" in text[: text.index("<h1")]
    doubted = [one for one in found.derived.statements if one.doubt is not None]
    assert doubted
    assert text.count("<strong>NOT SUPPORTED</strong>:") == len(doubted)
    assert "every log held" not in text
    said = Parsed(found.files[PAGE]).text
    assert "site-02: size not stated (site-02#2) NOT SUPPORTED" in said
    assert "NOT SUPPORTED at site-02: the log does not hold." in said
    assert "WITHHELD by" not in said
    assert "site-02: NOT SUPPORTED, its log" in found.files[TEXT].decode()


def test_a_site_that_keeps_everything_at_home_is_told_of(tmp_path: Path) -> None:
    run = Hospitals().write(tmp_path)
    database = sqlite3.connect(run / "audit" / "site-02.sqlite")
    with database:
        database.execute("UPDATE entries SET body = NULL, salt = NULL")
    database.close()
    text = Parsed(build(run).files[PAGE]).text
    assert "WITHHELD by site-02: what was spent is kept at home." in text
    assert "body kept at home or erased" in text


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("which", [0, 1, 2], ids=["light", "dark", "paper"])
def test_words_stand_out_from_their_ground(plain: Built, which: int) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1; 1.4.11: 3 to 1 for lines in pictures."""
    roots = re.findall(r":root \{(.*?)\}", plain.files[PAGE].decode(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", roots[which]))
    pairs = [(it, ground) for it in ("ink", "soft", "link") for ground in ("ground", "box")]
    pairs += [("warn", "warn-ground"), ("good", "good-ground"), ("typed", "typed-ground")]
    pairs += [("person", "person-ground"), ("kept", "kept-ground"), ("warn", "ground")]
    weak = [(pair, 4.5) for pair in pairs]
    weak += [((it, "ground"), 3.0) for it in ("one", "two", "line")]
    for (words, ground), least in weak:
        light = sorted(_luminance(colours[name]) + 0.05 for name in (words, ground))
        assert light[1] / light[0] >= least, (words, ground, light[1] / light[0])
