"""Pictures, one maker for each: for Dagster's UI, for pages, for reports.

Belongs here: arrays and tables to pictures. Does not belong: dagster, dash, computing what is drawn.
`overlays` and `maps` make small pictures, `interactive` pages, `slide_pictures` finds what they need in the store.
"""
