"""The dashboard: a few pages in the browser over what a study has made.

Belongs here: pages, their routes, and what they ask of the store. Does not belong: dagster, making results, drawing
(`figures/`, which Dagster's UI shows too).

It reads the snapshot, the arrays, stored thumbnails and the slides, and writes nothing. `app` puts the pages together,
`catalog` asks the snapshot, `pixels` and `routes` give pictures, `layers` what tiles can show, `search` tiles that are
alike, `sql_box` the one question at a time that a reader may ask.
"""
