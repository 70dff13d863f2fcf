"""Pure functions: arrays in, arrays out. No files, no torch, no dagster, no configuration."""
