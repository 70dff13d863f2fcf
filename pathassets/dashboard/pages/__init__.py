"""The pages: each gives its layout for an address, and adds what happens on it.

Belongs here: one module per page, with `layout(context, rest, query)` and `register(app, context)`. Does not belong: questions
to the store (`catalog`, `search`, `cohort`, `sql_box`), figures (`figures/`).
"""
