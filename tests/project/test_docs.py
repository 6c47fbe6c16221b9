"""README and docs cannot drift: what they show parses, exists, resolves and runs."""

import csv
import functools
import json
import random
import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from fedkd.audit.events import EVENTS
from fedkd.cli import main
from fedkd.cli.configuration import compose, options, sweep
from fedkd.cli.keys import GROUPS, Configuration
from fedkd.cli.validation import flattened, known_keys
from tests.command_line import COMMANDS, named, parsed

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CLAIMS = re.compile(r"\b(anonymous|anonymi[sz]ed|compliant|certified)\b", re.IGNORECASE)
MUTUAL = re.compile(r"[^.|]*\b(mutual(ly)?[ -](authenticated )?TLS|mTLS)\b[^.|]*", re.IGNORECASE)
DENIED = re.compile(r"\b(no|not|nothing|never|nobody)\b", re.IGNORECASE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[a-z]+[a-z_]*(\.[a-z_]+)+")
KEY_VALUE = re.compile(r"(?:[a-z_]+(?:\.[a-z_]+)*=[^\s=]+)(?: [a-z_]+(?:\.[a-z_]+)*=[^\s=]+)*")
HEADS = {*GROUPS, *(key.split(".")[0] for key in flattened(Configuration))}
FOREIGN = {
    "--extra-index-url", "--no-deps", "--node-config", "--run-config", "--isolation",
    "--trusted-entities", "--out", "--all", "--now", "--help",
}  # fmt: skip
"""Options of pip, Flower, systemctl and of scripts in docs/ that pages name; all have --help."""
STANDS_FOR = re.compile(r"'[A-Z]+'")
PLACEHOLDER = re.compile(r"\.\.\.|\||<|DIR|FILE|PATH")


def prose(page):
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def typed_commands(page):
    """Every `fedkd ...` of a page's shell blocks: a whole command."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCE.findall(text):
        if language == "sh":
            for line in block.splitlines():
                if line.startswith(("fedkd ", ".venv/bin/fedkd ")):
                    yield re.split(r" [#>]", line)[0]


def mentioned_commands(page):
    """Every `fedkd ...` between single backquotes of a page's text or tables.

    A command may be named there without what it needs; `a|b` stands for `a` and for `b`.
    """
    for code in INLINE.findall(prose(page)):
        before, *last = code.rsplit(" ", 1)
        if code.startswith("fedkd ") and "..." not in code:
            yield from (f"{before} {each}" for each in "".join(last).split("|"))


def shown_overrides(page):
    """Every inline `key=value [key=value]` of a page that can be tried as it stands."""
    for code in INLINE.findall(prose(page)):
        head = code.split("=")[0].split(".")[0]
        if KEY_VALUE.fullmatch(code) and head in HEADS and not PLACEHOLDER.search(code):
            yield code


def each(shown):
    return [
        pytest.param(it, id=f"{page.relative_to(ROOT)}: {it}")
        for page in PAGES
        for it in dict.fromkeys(shown(page))
    ]


@pytest.fixture(scope="module")
def shown_files(tmp_path_factory):
    """A folder with every file that the docs show, as a reader would have typed it."""
    folder = tmp_path_factory.mktemp("shown")
    for page in PAGES:
        for name, content in SHOWN_FILE.findall(page.read_text(encoding="utf-8")):
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                assert place.read_text(encoding="utf-8") == content, f"{name} is shown two ways"
            place.write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", each(typed_commands))
def test_a_shown_command_parses_and_its_keys_and_values_are_right(
    command, shown_files, monkeypatch
):
    monkeypatch.chdir(shown_files)
    words = shlex.split(command)[1:]
    if words[0].startswith("-") or "--help" in words:
        assert main(words) == 0
    else:
        expect_right(words)


@pytest.mark.parametrize("command", each(mentioned_commands))
def test_a_command_that_is_mentioned_is_one(command, shown_files, monkeypatch):
    """Whole, or without what it needs: then all that is said of it is right."""
    monkeypatch.chdir(shown_files)
    words = shlex.split(command.split(" >")[0])[1:]
    if words[0].startswith("-") or "--help" in words:
        assert main(words) == 0
        return
    rest = named(words)[2]
    try:
        if rest:
            expect_right(words, composed=not PLACEHOLDER.search(command))
    except click.MissingParameter:
        pass
    except click.BadOptionUsage as error:
        if error.option_name != words[-1]:  # else it is named, and not what it takes
            raise
    except click.BadParameter as error:
        if not STANDS_FOR.search(error.message):
            raise


@pytest.mark.parametrize(
    "command",
    ["fedkd site paus hospital", "fedkd site", "fedkd site pause --now hospital", "fedkd sit",
     "fedkd site pause hospital more", "fedkd server rotate --keys", "fedkd keys sign --by"],
)  # fmt: skip
def test_a_command_that_is_none_is_found(command):
    with pytest.raises((AssertionError, click.UsageError)):
        expect_right(shlex.split(command)[1:])


def expect_right(words, *, composed=True):
    """A whole command, and of a simulation the keys and values, too."""
    context = parsed(words)
    if words[0] != "simulate" or context.params["resume"] is not None or not composed:
        return
    given, config_dir = context.params["overrides"] or [], context.params["config_dir"]
    own = None if config_dir is None else Path(config_dir)
    points = sweep(given, own) if context.params["multirun"] else [given]
    for point in points:
        compose(point, own)


def companions(overrides):
    """What a page's words around an override say beside it."""
    beside = []
    if "query=mismatched" in overrides:
        beside.append("query.data=kmnist")
    if "query=synthetic" in overrides:
        beside.append("generator=procedural")
    for source, key in (
        ("image_folder", "data.(size|grey|sites|patient)"),
        ("text", "data.(label|text|features)"),
        ("table", "data.schema"),
    ):
        if re.match(key, overrides) and "data=" not in overrides.split():
            beside.append(f"data={source}")
    if overrides.startswith("sites.rehearsal"):
        beside.append("sites.dir=lasting")
    if overrides.startswith("partition.alpha"):
        beside.append("partition=dirichlet")
    return beside


def options_below(command):
    """Every option of a command and of those below it."""
    below = getattr(command, "commands", {}).values()
    own = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    return own.union(*map(options_below, below))


def test_every_option_that_pages_name_is_one():
    known = FOREIGN.union(*map(options_below, COMMANDS.values()))
    named = {
        (option, page.name)
        for page in PAGES
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(INLINE.findall(prose(page))))
    }
    assert {(option, page) for option, page in named if option not in known} == set()


@pytest.mark.parametrize("overrides", each(shown_overrides))
def test_a_shown_override_is_taken(overrides, shown_files):
    compose([*companions(overrides), *overrides.split()], shown_files / "mine")


@functools.cache
def every_key():
    """Every key that some choice of yaml files takes."""
    keys = set(known_keys(compose([])))
    for group in GROUPS:
        for name in options(group):
            if name in ("synthetic", "mismatched", "minimum_subtracted"):
                continue
            private = group == "mechanism" and name != "none"
            budget = ["budget.epsilon=1"] if private else []
            keys |= set(known_keys(compose([f"{group}={name}", *budget])))
    return keys


def test_every_dotted_key_exists():
    keys = every_key()
    for page in PAGES:
        for code in INLINE.findall(prose(page)):
            name = code.split("=")[0]
            if NAME.fullmatch(name) and name.split(".")[0] in HEADS:
                file = name.rsplit(".", 1)[1] in ("sqlite", "json", "yaml", "safetensors")
                known = name in keys or name in EVENTS
                assert known or file, f"{page.relative_to(ROOT)}: no key {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.relative_to(ROOT)} points at {link}"
        assert place.is_relative_to(ROOT), f"{page.relative_to(ROOT)} points outside: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.relative_to(ROOT)} points at no title: {link}"


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for link in LINK.findall(prose(page)):
            place = (page.parent / link.split("#")[0]).resolve()
            if place.suffix == ".md" and place.exists() and place not in reached:
                waiting.append(place)
    assert set(PAGES) <= reached


def test_files_that_pages_name_are_there():
    shape = re.compile(r"(fedkd|conf|docs|tests|server|clients)/[\w./-]+")
    for page in PAGES:
        for code in INLINE.findall(prose(page)):
            if shape.fullmatch(code) and "/x." not in code:
                assert (ROOT / code).exists(), f"{page.relative_to(ROOT)} names {code}"


SOURCES = sorted(path for top in ("fedkd", "server", "clients") for path in (ROOT / top).rglob("*"))


def test_nothing_is_claimed_that_nobody_can_claim():
    texts = [*PAGES, ROOT / "CITATION.cff", *(ROOT / "conf").rglob("*.yaml"), *SOURCES]
    for path in texts:
        if path.suffix in (".md", ".py", ".yaml", ".json", ".cff"):
            found = CLAIMS.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.relative_to(ROOT)} says {found and found.group()}"
            for said in MUTUAL.finditer(path.read_text(encoding="utf-8")):
                assert DENIED.search(said.group()), f"{path.relative_to(ROOT)} says {said.group()}"


@pytest.mark.parametrize(
    ("text", "claimed"),
    [("Both sides prove who they are: mutual TLS.", True), ("By mTLS, which is on.", True),
     ("Nobody else. Mutual TLS guards it.", True), ("So nothing here is mutual TLS.", False)],
)  # fmt: skip
def test_a_claim_of_mutual_tls_is_told_from_its_denial(text, claimed):
    (said,) = MUTUAL.finditer(text)
    assert (DENIED.search(said.group()) is None) is claimed


@pytest.mark.parametrize("part", ["aggregate/confident", "loss/brier", "model/boosted"])
def test_the_parts_that_are_shown_keep_their_laws(part, shown_files, capsys):
    assert main(["laws", part, "--config-dir", str(shown_files / "mine")]) == 0
    assert "keeps all" in capsys.readouterr().out


def test_the_part_that_is_shown_to_break_a_law_breaks_it(shown_files, tmp_path, capsys):
    (tmp_path / "spoilt_parts.py").write_text(
        (shown_files / "mine" / "my_parts.py").read_text().replace(" * answers.answered", "")
    )
    (tmp_path / "aggregate").mkdir()
    (tmp_path / "aggregate" / "spoilt.yaml").write_text("_target_: spoilt_parts.confident\n")
    assert main(["laws", "aggregate/spoilt", "--config-dir", str(tmp_path)]) == 1
    assert "BROKEN" in capsys.readouterr().out


def write_ward(path):
    """Made-up patients that fit the schema of the README."""
    drawn = random.Random(0)  # noqa: S311
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["patient_id", "hospital", "age", "creatinine", "ward", "readmitted"])
        for number in range(400):
            age, ward = drawn.randint(20, 95), drawn.choice(["surgery", "medicine", "geriatrics"])
            creatinine = "" if drawn.random() < 0.1 else round(drawn.lognormvariate(0, 0.5), 2)
            ill = drawn.gauss((age - 60) / 15, 1) > 0
            label = drawn.choice(["<30", ">30"]) if ill else "no"
            hospital = drawn.choice(["north", "south", "harbour"])
            rows.writerow([f"p{number // 2}", hospital, age, creatinine, ward, label])


def write_ugly(path):
    """A file as an old spreadsheet leaves it, which fits the schema of docs/own-data.md."""
    drawn = random.Random(1)  # noqa: S311
    lines = ["Größe;Thrombozyten;Station;Befund"]
    for number in range(300):
        height = drawn.randint(150, 199)
        plates = "nicht gemessen" if number % 17 == 0 else f"{drawn.randint(120, 399)}.000"
        found = "o.B." if height > 175 else drawn.choice(["Anämie", "Sepsis"])
        lines.append(f"{height},5;{plates};{drawn.choice('ABC')};{found}")
    path.write_text("\n".join(lines) + "\n", encoding="windows-1252")


QUICK = ["rounds=1", "training.local_epochs=2", "training.lesson_epochs=1", "student.epochs=2"]


@pytest.mark.parametrize(
    ("name", "write", "more"),
    [
        ("ward.csv", write_ward, ["partition=site", "clients.count=null"]),
        ("ugly.csv", write_ugly, ["clients.count=2"]),
    ],
)
def test_a_table_with_the_schema_that_is_shown_runs(
    name, write, more, shown_files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    schema = f"{name}.schema.yaml"
    (tmp_path / schema).write_bytes((shown_files / schema).read_bytes())
    shown = ["simulate", "data=table", f"data.path={name}", *more, *QUICK, "out=run"]
    assert main(shown) == 0
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("script", "results", "pages"),
    [
        ("table.py", "methods.json", ["README.md", "docs/benchmarks.md"]),
        ("audit_table.py", "audit.json", ["docs/benchmarks.md"]),
        ("privacy_table.py", "privacy.json", ["docs/benchmarks.md"]),
        ("deploy_table.py", "deploy.json", ["docs/benchmarks.md"]),
    ],
)
def test_a_table_of_figures_is_what_the_kept_results_say(script, results, pages):
    bench = ROOT / "docs" / "bench"
    made = runpy.run_path(str(bench / script))["table"]
    table = made(json.loads((bench / results).read_text()))
    for page in pages:
        said = (ROOT / page).read_text(encoding="utf-8")
        assert table in said, f"{page}: python docs/bench/{script}"
