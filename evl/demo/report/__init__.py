"""The demo's ``report.html``: one file, no script, nothing fetched."""

from evl.demo.report.page import write_report

__all__ = ["write_report"]
