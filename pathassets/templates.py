"""The files that `pathassets init` writes into a study's folder, as text.

Belongs here: the commented settings and Dagster's instance file. Does not belong: code that reads them (`config.py`).
"""

CONFIG_TEMPLATE = """\
# A pathassets study. Every setting here may be left out; what stands in comments is the default.
# Environment variables win over this file: PATHASSETS_DEVICE=cuda:1, PATHASSETS_TISSUE__METHOD=entropy.

[study]
# name = "study"
# inbox = ["inbox"]        # folders that the inbox sensor watches
# device = "auto"          # auto | cuda | cuda:1 | mps | cpu
# workers = 0              # threads that read tiles; 0 = one per core
# slides_per_run = 16      # slides in one Dagster run; the encoder is loaded once for all of them

[tissue]
# method = "auto"          # auto | otsu | entropy | none
# mpp = 8.0                # resolution of the mask, µm per pixel
# min_area_mm2 = 0.02      # smaller pieces are dropped
# min_hole_mm2 = 0.005     # smaller holes are filled

[tilings.px224_mpp050]     # the name is the first part of asset keys and SQL's column `recipe`
tile_px = 224              # or [height, width]
mpp = 0.5                  # or power = 20, level = 0, tile_um = 112, tile_um = "20x"; none of them = native resolution
# overlap = 0.0            # or stride_px
# min_tissue = 0.5         # least share of a tile that is tissue
# edge = "drop"            # drop | pad tiles that cross the slide's border

[[recipes]]                # one tiling seen by one encoder; `pathassets encoders` lists the names
encoder = "demo-vlm"       # knows procedural tissue only; take timm/<name>, or a local file through `weights`, for real work
tiling = "px224_mpp050"

# [[recipes]]
# name = "uni"
# encoder = "timm/vit_large_patch16_224"
# weights = "/data/weights/uni.safetensors"
# tiling = "px224_mpp050"

[embeddings]
# batch_size = 64
# precision = "auto"       # auto | fp32 | bf16 | fp16
# dtype = "float16"        # on disk; float32 is taken by itself where values overflow
# max_bad_tiles = 0.05     # a slide fails when a larger share of its tiles cannot be read

[vectors]
# methods = ["mean"]       # any of mean, max, median, std

[domains]
# preset = "tutorial"      # resolution 0.2 on smoothed features
# variants = ["leiden", "utag"]
# resolution = 0.2
# n_pcs = 50
# n_neighbors = 15

[text]
terms = ["mucosa", "submucosa", "muscularis", "adipose", "stroma", "lymphocytes", "tumor", "necrosis", "blood"]
# templates = ["{}", "an H&E image of {}"]   # the encoder's own when left out
# temperature = 0.1                          # the model's own logit scale when left out
"""

DAGSTER_YAML = """\
# Dagster's instance. State lies beside this file, in SQLite: right for one machine and a few runs at once.
telemetry:
  enabled: false
nux:
  enabled: false          # no sign-up window at the first visit

# Slides wait their turn instead of all starting together: two runs keep a device busy while another reads.
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    granularity: op
    default_limit: 1        # pool "gpu": one op on the device at a time; pool "publish": one snapshot at a time

run_monitoring:
  enabled: true
  start_timeout_seconds: 300
  free_slots_after_run_end_seconds: 60   # without it a killed run keeps its place in a pool for ever

run_retries:
  enabled: false            # a slide that fails is tried again by its own rule, not the whole run

retention:
  sensor:
    purge_after_days: {skipped: 2, failure: 30, success: 30}
"""
