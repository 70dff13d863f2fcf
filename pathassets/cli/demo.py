"""`pathassets demo`: slides whose truth is known, through everything, in two minutes.

Belongs here: what a newcomer sees first. Does not belong: anything that a real study needs.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from pathassets.cli.console import print_rows, say
from pathassets.cli.running import Request, run_study
from pathassets.config import Study, init_home

SLIDES = 3
QUERIES = (
    (
        "Which domains does each slide have, and what do they look like?",
        "SELECT slide_id, domain, n_tiles, round(share, 2) AS share, label FROM domain_summary "
        "WHERE variant = 'leiden' ORDER BY slide_id, domain LIMIT 12",
    ),
)


def run_demo(home: Path) -> int:
    """Makes synthetic slides in `<home>/inbox`, materialises everything, shows a table and what to do next."""
    init_home(home)
    made = [home / "inbox" / f"synthetic_{seed:02d}.tiff" for seed in range(1, SLIDES + 1)]
    missing = [path for path in made if not path.exists()]
    if missing:
        say(f"drawing {len(missing)} synthetic slides in {home / 'inbox'}")
        with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
            list(pool.map(_draw, missing))
    code = run_study(Request(home=home, select="*"))
    if code == 0:
        _show(Study(home))
    return code


def _draw(path: Path) -> None:
    from pathassets.slides.synthetic import synthetic_slide

    synthetic_slide(path, seed=int(path.stem.rpartition("_")[2]))


def _show(study: Study) -> None:
    from pathassets.store.query import query

    for question, text in QUERIES:
        say("")
        say(question)
        say(f'  pathassets sql "{text}" --home {study.home}')
        frame = query(study.home, text)
        print_rows(frame.to_dicts(), frame.columns)
    say("")
    say(f"Dagster's UI with the lineage graph: pathassets dev --home {study.home}   (http://127.0.0.1:3000)")
    say("Your own slides:                     pathassets run /path/to/slides --home my_study")
