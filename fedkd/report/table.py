"""Prints a run's figures for a person: a table in a terminal, the same as plain text elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fedkd.report.claims import claims_of, lines
from fedkd.report.figures import against_fedavg
from fedkd.report.summary import Summary
from fedkd.report.svg import shortened
from fedkd.report.units import share, size

if TYPE_CHECKING:
    from rich.console import Console

LONGEST_MODEL, SHORT_MODEL = 20, 14
"""Letters of a model's name where there is room, and where there is not."""

MOST_ROWS = 12
"""With more hospitals than this only the best, the median and the worst are shown."""


class Column(NamedTuple):
    """One column: its heading, what stands in it for a hospital, on which side."""

    heading: str
    cell: Callable[[Mapping[str, Any]], str]
    right: bool = True


def table(summary: Summary) -> list[str]:
    """The lines of plain text: under 30 for five hospitals, with nothing that needs a terminal."""
    columns, clients = _columns(summary), _shown(summary)
    rows = [[column.heading for column in columns]]
    rows += [[column.cell(client) for column in columns] for client in clients]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    lines = [_title(summary), ""]
    for row in rows:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return [*lines, *_notes(summary, clients), "", *_results(summary), *_warnings(summary)]


def show(summary: Summary, console: "Console | None" = None) -> None:
    """Prints the table: drawn where there is a terminal, plain text where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        for line in table(summary):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    clients = _shown(summary)
    columns = _columns(summary)
    if _width(columns, clients) > console.width:
        columns = _fitting(_columns(summary, SHORT_MODEL), clients, console.width)
    drawn = Table(title=_title(summary), title_justify="left", title_style="bold", expand=False)
    for column in columns:
        drawn.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    for client in clients:
        drawn.add_row(*(Text(column.cell(client)) for column in columns))
    console.print(drawn)
    for line in [*_notes(summary, clients), *_results(summary)]:
        console.print(line, markup=False, highlight=False)
    for line in _warnings(summary):
        style = "bold red" if line.startswith("NOT PRIVATE") else "yellow"
        console.print(line, style=style, markup=False, highlight=False)


def _fitting(
    columns: list[Column], clients: Sequence[Mapping[str, Any]], width: int
) -> list[Column]:
    """The columns that a narrow terminal has room for: a figure is left out, never cut short."""
    fitting = list(columns)
    for spare in ("got", "sent", "model", "records", "own alone", "AUROC alone"):
        if _width(fitting, clients) <= width:
            break
        fitting = [column for column in fitting if column.heading != spare]
    return fitting


def _width(columns: Sequence[Column], clients: Sequence[Mapping[str, Any]]) -> int:
    """Signs across a drawn table, its lines included."""
    widest = [
        max(len(column.heading), *(len(column.cell(client)) for client in clients), 0)
        for column in columns
    ]
    return sum(widest) + 3 * len(columns) + 1


def _title(summary: Summary) -> str:
    rounds = summary["rounds"]
    return (
        f"{summary['method']} on {summary['data']}, seed {summary['seed']}: {rounds} "
        f"round{'' if rounds == 1 else 's'}, {len(summary['clients'])} hospitals, "
        f"{summary['query_set']['size']} {summary['query_set']['kind']} queries"
    )


def _columns(summary: Summary, longest: int = LONGEST_MODEL) -> list[Column]:
    clients = summary["clients"]
    columns = [
        Column("hospital", lambda client: shortened(client["site"], 20), right=False),
        Column("records", lambda client: _count(client["records"])),
        Column("model", lambda client: shortened(client["model"] or "-", longest), right=False),
        _figure("alone", "local_accuracy"),
        _figure("now", "accuracy"),
        _figure("own alone", "local_own_mix"),
        _figure("own now", "own_mix"),
    ]
    if any(client["own_auroc"] is not None for client in clients):
        columns.append(_figure("AUROC alone", "local_own_auroc"))
        columns.append(_figure("AUROC now", "own_auroc"))
    if summary["private"]:
        budgets = {site: claim.epsilon for site, claim in claims_of(summary).items()}
        columns.append(Column("epsilon", lambda client: _epsilon(client, budgets)))
    columns.append(Column("sent", lambda client: size(client["bytes_up"])))
    columns.append(Column("got", lambda client: size(client["bytes_down"])))
    return columns


def _figure(heading: str, key: str) -> Column:
    return Column(heading, lambda client: share(client[key]))


def _shown(summary: Summary) -> Sequence[Mapping[str, Any]]:
    """All hospitals; of many the best, the median and the worst by what they gained."""
    clients: Sequence[Mapping[str, Any]] = summary["clients"]
    if len(clients) <= MOST_ROWS:
        return clients
    ranked = sorted(clients, key=lambda client: (-_rank(client), client["site"]))
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def _rank(client: Mapping[str, Any]) -> float:
    if client["accuracy"] is None:
        return float("-inf")
    return float(client["accuracy"] - (client["local_accuracy"] or 0.0))


def _notes(summary: Summary, clients: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    if len(clients) < len(summary["clients"]):
        notes.append(
            f"Of {len(summary['clients'])} hospitals: the one that gained most on the common test, "
            "the median one, the one that gained least."
        )
    if any(client["local_accuracy"] is not None for client in clients):
        notes.append("alone, now: common test; own: the same weighted to the hospital's class mix.")
    return notes


def _results(summary: Summary) -> list[str]:
    student = summary["student"]
    clients = summary["clients"]
    lines = [
        f"student        accuracy {share(student['accuracy'])}, "
        f"balanced {share(student['balanced_accuracy'])}, macro F1 {share(student['macro_f1'])}, "
        f"AUROC {share(student['auroc'])}, ECE {share(student['ece'])}"
    ]
    before, after = (_mean(clients, key) for key in ("local_accuracy", "accuracy"))
    if before is not None and after is not None:
        lines.append(
            f"mean hospital  accuracy {share(after)}, alone {share(before)} ({after - before:+.3f})"
        )
    if summary["pooled_accuracy"] is not None:
        lines.append(f"pooled         accuracy {share(summary['pooled_accuracy'])}")
    if summary["fedavg_accuracy"] is not None:
        best = summary["fedavg_best"]
        tail = ""
        if best is not None:
            tail = (
                f"; at best {share(best['accuracy'])} in round {best['round']} "
                f"for {size(best['bytes'])}"
            )
        lines.append(f"FedAvg         accuracy {share(summary['fedavg_accuracy'])}{tail}")
    ours = summary["bytes_up"] + summary["bytes_down"]
    lines.append(
        f"bytes          {size(summary['bytes_up'])} up, {size(summary['bytes_down'])} down"
    )
    lines.append(f"               {against_fedavg(ours, summary['fedavg_bytes'])}")
    lines.append(f"time           {_seconds(summary)}")
    return lines


def _warnings(summary: Summary) -> list[str]:
    said = []
    out = [client for client in summary["clients"] if client["left_out"]]
    for client in out[:5]:
        said.append(
            f"left out       {client['site']}: {_reasons(client['left_out'], summary['rounds'])}"
        )
    if len(out) > 5:
        said.append(f"left out       {len(out) - 5} more, with their reasons in summary.json")
    return [*said, *lines(summary)]


def _reasons(left_out: Sequence[Mapping[str, Any]], rounds: int) -> str:
    """Each reason once, with the rounds in which it was given; after the last one is closing."""
    given: dict[str, list[int]] = {}
    for entry in left_out:
        given.setdefault(entry["reason"], []).append(entry["round"])
    return "; ".join(f"{reason} ({_when(numbers, rounds)})" for reason, numbers in given.items())


def _when(numbers: Sequence[int], rounds: int) -> str:
    within = [number for number in numbers if number <= rounds]
    said = [f"round{'s' if len(within) > 1 else ''} {_spans(within)}"] if within else []
    return " and ".join([*said, *(["closing"] if len(within) < len(numbers) else [])])


def _spans(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as `1-3, 7`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _mean(clients: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over all hospitals; None unless each has the figure, since half a mean misleads."""
    values = [client[key] for client in clients]
    if not values or any(value is None for value in values):
        return None
    return float(sum(values) / len(values))


def _seconds(summary: Summary) -> str:
    train = summary["train_s"]
    inside = "" if train is None else f", {train:.1f} s of them training"
    return f"{summary['wall_s']:.1f} s{inside}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _epsilon(client: Mapping[str, Any], budgets: Mapping[str, float]) -> str:
    spent, budget = client["epsilon"], budgets.get(client["site"])
    return "-" if spent is None or budget is None else f"{spent:.2f} of {budget:g}"
