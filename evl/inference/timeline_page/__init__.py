"""``timeline.html``: a timeline as a page that needs no network."""
