"""Views: interactive pictures of runs and captures, the same in a notebook and on an exported page.

Every view is usable alone in a cell, has ``to_html()``, ``save("x.svg")`` and ``data()``, and needs no torch.
"""
