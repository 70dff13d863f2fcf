"""The only package that imports dagster: partitions, resources, assets, jobs, sensors, schedules.

Belongs here: telling Dagster what there is and what happened. Does not belong: doing it (`steps/`).
"""
