"""Use cases: a reader, a pure function, an encoder and the store put together, one module for each asset.

Belongs here: what happens to one slide (or the cohort) and how it is recorded. Does not belong: dagster, pictures, options' meaning.
`nodes` names the assets and their order, `session` holds what a run shares, `chain` runs a slide through its nodes.
"""
