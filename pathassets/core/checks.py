"""Checks: what a result must look like to be believed, as verdicts on a few numbers.

Belongs here: thresholds and the verdicts that follow. Does not belong: where the numbers come from (`steps/checks.py`),
refusing a slide (its step does that).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite

from pathassets.core.cohort import MIN_GROUP_SLIDES, MIN_SLIDES, GroupEffect

# A needle biopsy covers about a hundredth of the scanned glass, and round any tissue there is some glass.
TISSUE_SHARE = (0.002, 0.95)
# Fewer tiles cannot be grouped; a million would be the largest slides there are, at four times the usual magnification.
TILE_COUNT = (16, 1_000_000)
# bf16 keeps 0.999 and more on sound networks; nearest neighbours begin to change below 0.99.
MIN_COSINE = 0.99
# A tile a hundred times longer than the others outweighs a hundred of them in every mean.
MAX_NORM_RATIO = 100.0
MAX_DOMAIN_SHARE = 0.98
MAX_DOMAINS_PER_TILE = 0.25
MAX_SUM_ERROR = 1e-4
# The usual limit of modified z-scores (Iglewicz and Hoaglin 1993): of normal numbers one in two thousand is beyond it.
MAX_OUTLIER_SCORE = 3.5
# A tenth of all differences between slides is what a change of scanner or stain makes at least, where one can be seen by
# eye; by chance it comes about in small cohorts only, which is what p is for.
MAX_GROUP_SHARE, MIN_P = 0.1, 0.01


# slides that are named one by one
SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        passed: Whether all is well.
        message: What was found, in words.
        numbers: What it was judged by.
    """

    passed: bool
    message: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)


def tissue_share(tissue_mm2: float, slide_mm2: float, *, found: bool) -> Verdict:
    """Judges how much of the slide is tissue; where it was not `found` but told (a mask, no detection) all is allowed."""
    share = tissue_mm2 / slide_mm2
    least, most = TISSUE_SHARE
    passed = not found or least <= share <= most
    numbers = {"tissue_share": share, "tissue_mm2": tissue_mm2}
    return Verdict(passed, f"{share:.2%} of the slide is tissue", numbers)


def tile_count(n_tiles: int) -> Verdict:
    """Judges the number of tiles."""
    return Verdict(TILE_COUNT[0] <= n_tiles <= TILE_COUNT[1], f"{n_tiles} tiles", {"tiles": n_tiles})


def precision_agreement(cosine: float | None, max_rel_error: float | None) -> Verdict:
    """Judges how near the precision used comes to fp32, measured on the slide's own tiles."""
    if cosine is None or max_rel_error is None:
        return Verdict(False, "the agreement with fp32 has not been measured")
    numbers = {"cosine": cosine, "max_rel_error": max_rel_error}
    return Verdict(cosine >= MIN_COSINE, f"cosine to fp32 at least {cosine:.5f}", numbers)


def embeddings_finite(n_not_finite: int, n_unreadable: int) -> Verdict:
    """Judges rows of tiles that were read: every number in them is one."""
    numbers = {"not_finite": n_not_finite, "unreadable": n_unreadable}
    return Verdict(n_not_finite == 0, f"{n_not_finite} rows of readable tiles hold values that are no numbers", numbers)


def embeddings_shape(found: tuple[int, int], wanted: tuple[int, int]) -> Verdict:
    """Judges rows and columns by the tiles there are and the encoder's card."""
    numbers = {"rows": found[0], "dim": found[1], "tiles": wanted[0], "card_dim": wanted[1]}
    return Verdict(found == wanted, f"{found[0]} x {found[1]} for {wanted[0]} tiles of {wanted[1]} numbers", numbers)


def embeddings_norms(least: float, median: float, most: float) -> Verdict:
    """Judges the lengths of a slide's embeddings; all NaN where no tile could be read."""
    numbers = {"least": least, "median": median, "most": most}
    if not isfinite(most):
        return Verdict(True, "no tile could be read")
    return Verdict(least > 0 and most <= MAX_NORM_RATIO * median, f"lengths from {least:.4g} to {most:.4g}", numbers)


def same_digest(found: Mapping[str, str | None], wanted: Mapping[str, str | None]) -> Verdict:
    """Judges whether the parts of a result speak of one another: a digest for each, as it is and as it should be."""
    wrong = sorted(name for name in wanted if found.get(name) != wanted[name])
    numbers = {name: str(found.get(name)) for name in wanted}
    return Verdict(not wrong, f"another digest in: {', '.join(wrong)}" if wrong else "one digest everywhere", numbers)


def domains_not_degenerate(sizes: Mapping[str, Collection[int]]) -> Verdict:
    """Judges domains by their sizes, for each variant: neither all tiles in one, nor hardly two together."""
    numbers: dict[str, float | int | str] = {}
    bad = []
    for variant, counts in sizes.items():
        n, largest = sum(counts), max(counts, default=0)
        numbers |= {f"{variant}_domains": len(counts), f"{variant}_largest_share": largest / n if n else 0.0}
        if n >= TILE_COUNT[0] and (largest > MAX_DOMAIN_SHARE * n or len(counts) > MAX_DOMAINS_PER_TILE * n):
            bad.append(variant)
    return Verdict(not bad, f"degenerate: {', '.join(bad)}" if bad else "several domains of several tiles", numbers)


def sums_to_one(largest_error: float) -> Verdict:
    """Judges the probabilities of a tile's terms, by the tile whose sum is furthest from one."""
    return Verdict(
        largest_error <= MAX_SUM_ERROR, f"sums differ from one by {largest_error:.2g}", {"largest_error": largest_error}
    )


def outlier_slides(scores: Mapping[str, float] | None) -> Verdict:
    """Judges a cohort by its slides that are unlike all others: slide -> modified z-score of how far its neighbours are."""
    if scores is None:
        return Verdict(True, f"fewer than {MIN_SLIDES} slides: nobody knows what is usual")
    far = sorted((slide for slide in scores if scores[slide] > MAX_OUTLIER_SCORE), key=lambda slide: -scores[slide])
    numbers: dict[str, float | int | str] = {"slides": len(scores), "outliers": len(far)}
    numbers |= {slide: scores[slide] for slide in far[:SHOWN]}
    return Verdict(not far, f"{len(far)} of {len(scores)} slides are unlike all others", numbers)


def batch_effects(effects: Mapping[str, GroupEffect | None]) -> Verdict:
    """Judges how much slides differ by how they were made: column -> what goes with it, None where nothing can be said."""
    known = {column: effect for column, effect in effects.items() if effect is not None}
    numbers: dict[str, float | int | str] = {}
    for column, effect in known.items():
        sizes = ", ".join(f"{group}: {size}" for group, size in effect.groups.items())
        numbers |= {f"{column}_share": effect.share, f"{column}_p": effect.p, f"{column}_slides": sizes}
    if not known:
        return Verdict(True, f"no two groups of {MIN_GROUP_SLIDES} slides to compare")
    bad = [column for column, e in known.items() if e.share > MAX_GROUP_SHARE and e.p <= MIN_P]
    told = ", ".join(f"{column} {effect.share:.0%}" for column, effect in known.items())
    return Verdict(not bad, f"share of the differences between slides that goes with {told}", numbers)


def failed_slides(failures: Mapping[str, str]) -> Verdict:
    """Judges a day by the slides that failed in it: slide -> what and why."""
    numbers: dict[str, float | int | str] = {"failed": len(failures)}
    numbers |= dict(sorted(failures.items())[:SHOWN])
    return Verdict(not failures, f"{len(failures)} slides have failed since yesterday", numbers)
