"""What can be shown: a run's figures as table, drawing, comparison; later the compliance report."""

from fedkd.report.compare import Comparison, compare, sweep_table
from fedkd.report.figures import write_figures
from fedkd.report.load import Run, load, load_all
from fedkd.report.metrics import append_metrics, read_metrics
from fedkd.report.summary import check_summary, read_summary, summary_schema, write_summary
from fedkd.report.table import show, table
from fedkd.report.utility import write_utility

__all__ = [
    "Comparison",
    "Run",
    "append_metrics",
    "check_summary",
    "compare",
    "load",
    "load_all",
    "read_metrics",
    "read_summary",
    "show",
    "summary_schema",
    "sweep_table",
    "table",
    "write_figures",
    "write_summary",
    "write_utility",
]
