"""Report: a slide, or a study, as one HTML file that opens anywhere, offline.

Belongs here: what a report tells (`slide`, `cohort`), pixels of single tiles (`crops`), the page (`page`). Does not belong: drawing
(`figures/`), results themselves.
"""
