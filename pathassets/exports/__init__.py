"""Exports: a study's results as the files that other tools read, and those tools' files as results.

Belongs here: one module for each family of formats (`anndata_files`, `features`, `spatialdata_store`, `qupath`, `tables`,
`pictures`), what they have in common (`gather`, `files`), the order of an export (`run`). Does not belong: making results.

Nothing here imports AnnData, torch, Zarr or h5py before it is used.
"""
