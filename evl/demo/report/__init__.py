"""The demo's ``report.html``: one file, no script, nothing fetched."""
