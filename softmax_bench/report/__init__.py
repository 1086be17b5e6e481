"""Tables, plots and pages from stored results. Nothing here needs torch."""

from softmax_bench.report.files import write_report
from softmax_bench.report.tables import print_table, summary_table

__all__ = ["print_table", "summary_table", "write_report"]
