"""The files that `pathassets init` writes into a study's folder, as text.

Belongs here: the commented settings and Dagster's instance file. Does not belong: code that reads them (`config.py`).
"""

CONFIG_TEMPLATE = """\
# A pathassets study. Every setting here may be left out; what stands in comments is the default.
# Environment variables win over this file: PATHASSETS_DEVICE=cuda:1, PATHASSETS_TISSUE__METHOD=entropy.

[study]
# name = "study"
# store = "store"          # where results go: a folder, or s3://bucket/prefix (pip install 'pathassets[s3]'), asked with
                           # AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY of the environment, never of this file
# inbox = ["inbox"]        # what the inbox sensor watches: folders, and object stores such as "s3://lab/slides"
# automation = false       # true: Dagster's automation conditions ask for a slide's assets, not the inbox sensor
# cache_gb = 200           # room for local copies of slides in object stores
# device = "auto"          # auto | cuda | cuda:1 | mps | cpu; several share the slides out: "cuda:0,cuda:1", "cuda:all"
# workers = 0              # threads that read tiles; 0 = one per core
# memory_share = 0.8       # of the free memory (a container's limit counts), for tiles on their way to the device
# stall_seconds = 300      # a slide fails when opening it, or one read of it, takes longer
# slides_per_run = 16      # slides in one Dagster run; the encoder is loaded once for all of them
# exports = []             # kept up to date in the folder exports, every night and as assets: ["anndata", "qupath"]
# dagster_url = ""         # where Dagster's UI is served, as "https://lab.example": the dashboard then links to runs and assets
# dashboard_url = ""       # where the dashboard is served: Dagster's UI then links to slides; `pathassets dev` knows both by itself
# licences = []             # of weights that may be used: ["Apache-2.0", "MIT"], or ["commercial"] for all that allow it; none = all

[resources]                # what one run of slides asks of Ray or Kubernetes; nothing by default, and one machine passes over it
# as in: gpus = 1, cpus = 8, memory_gb = 32, each on a line of its own

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
tiling = "px224_mpp050"    # `pathassets run --encoder uni2-h` adds a recipe, and the tiling that the encoder's authors cut

# [[recipes]]
# name = "mine"
# encoder = "timm/vit_large_patch16_224"
# weights = "/data/weights/mine.safetensors"
# weights_sha256 = "3f1c22a0"                  # the beginning of their hash: any other file is refused
# tokenizer = "/data/weights/tokenizer.json"   # of encoders that read words, where it does not lie beside `weights`
# tiling = "px224_mpp050"

[embeddings]
# batch_size = 64
# precision = "auto"       # auto | fp32 | bf16 | fp16
# compile = false          # through torch.compile: faster after a first minute, where there is a compiler
# dtype = "float16"        # on disk; float32 is taken by itself where values overflow
# max_bad_tiles = 0.05     # a slide fails when a larger share of its tiles cannot be read
# include_preds = false    # true: what the network's own classifier says of each tile, too (table predictions); rather said in a
                           # recipe: embeddings = {include_preds = true} and predictions = {top_k = 3}
# dense = false            # true: every patch's vector, too (table patch_tokens); `run --dry-run` says how many GB that is

[vectors]
# methods = ["mean"]       # any of mean, max, median, std; slide encoders by name (`pathassets encoders`), in [recipes.vectors] of the
                           # recipe whose tiles they take; files that `pathassets train-abmil` wrote. The first is the slide map's
# weights = { "gigapath-slide" = "/data/weights/slide_encoder.pth" }   # local files of slide encoders; else the hub's cache, or the hub

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
# Dagster's instance: how runs wait, end and are tried again. Other machines and engines: docs/scaling.md.
# State lies beside this file, in SQLite, and so do the runs' outputs: right for one machine.
telemetry:
  enabled: false            # nothing about slides or their names leaves the machine
nux:
  enabled: false            # no sign-up window at the first visit

concurrency:
  runs:
    max_concurrent_runs: 8  # places for runs of any kind; who gets a device is decided by the pool below
  pools:
    granularity: op         # a place belongs to the step at work, and a run starts when its step has one: none waits half-started
    default_limit: 1        # pool "gpu": one batch on the device at a time, which reads ahead by itself; pool "publish": one snapshot
    # Several devices that each take a batch of their own: dagster instance concurrency set gpu 4
    # Who goes first (tag dagster/priority): snapshots 20, slides that have arrived 10, backfills 0, what is missing at night -10

run_monitoring:
  enabled: true                          # a run whose process was killed says nothing: somebody has to look
  start_timeout_seconds: 300             # a busy machine takes its time to start a process; after five minutes none is coming
  cancel_timeout_seconds: 180            # a cancelled run that does not end by then counts as cancelled
  max_runtime_seconds: 86400             # a batch that takes a day hangs; the tag dagster/max_runtime allows a run more (seconds)
  max_resume_run_attempts: 0             # nothing is resumed inside a dead run: a new one takes what is done as done
  poll_interval_seconds: 60              # how long a dead worker may go unnoticed
  free_slots_after_run_end_seconds: 60   # without it a killed run keeps its place in a pool for ever

run_retries:
  enabled: true                          # a night must not end with one lost process
  max_retries: 1                         # a worker that died (memory, power, node) is tried again once ...
  retry_on_asset_or_op_failure: false    # ... a slide that failed is not: its outcome says what to do; the night run tries it again

retention:                               # of ticks; a sensor that finds nothing every 15 s would fill the database
  schedule:
    purge_after_days: {skipped: 7, failure: 30, success: 30}   # a week of "nothing to do", a month of what was done
  sensor:
    purge_after_days: {skipped: 2, failure: 30, success: 30}   # 5,760 ticks a day: two days are enough to see a pattern
"""
