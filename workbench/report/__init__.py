"""The report of a study: one self-contained HTML file, and its figures for use in a notebook. Needs no
torch.
"""

from workbench.report.build import build_report
from workbench.views.charts.study import show_live

__all__ = ["build_report", "show_live"]
