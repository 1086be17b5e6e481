"""Tables, plots and pages from stored results; nothing here needs torch."""

from softmax_bench.report.show.files import write_report
from softmax_bench.report.tables.shown import print_table
from softmax_bench.report.tables.summary import summary_table

__all__ = ["print_table", "summary_table", "write_report"]
