"""Colours: distinct, and distinct for the colour-blind where it matters."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from pathassets.core import palette

# Linear-light simulation of dichromats (Viénot, Brettel & Mollon, Color Res Appl 1999), rows sum to one.
DICHROMATS = {
    "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


def _lab(colours: list[str], view: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2lab

    values = np.array([palette.rgb(c) for c in colours]) / 255
    seen = np.clip(values**2.2 @ view.T, 0, 1) ** (1 / 2.2)
    return rgb2lab(seen[None])[0]


def test_all_colours_are_written_alike():
    colours = [*palette.DOMAIN_COLOURS, palette.NO_DOMAIN_COLOUR, palette.TISSUE_OUTLINE, palette.ACCENT]
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours)


def test_domain_colours_are_distinct():
    assert len(set(palette.DOMAIN_COLOURS)) == len(palette.DOMAIN_COLOURS) >= 24
    assert palette.NO_DOMAIN_COLOUR not in palette.DOMAIN_COLOURS
    lab = _lab(list(palette.DOMAIN_COLOURS), np.eye(3))
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 8


def test_the_outline_of_tissue_looks_like_no_domain():
    outline, *domains = _lab([palette.TISSUE_OUTLINE, *palette.DOMAIN_COLOURS], np.eye(3))
    assert min(np.linalg.norm(outline - domain) for domain in domains) > 45


@pytest.mark.parametrize("view", sorted(DICHROMATS))
def test_the_first_eight_stay_apart_for_the_colour_blind(view):
    lab = _lab(list(palette.DOMAIN_COLOURS[:8]), DICHROMATS[view])
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 8


def test_many_colours_at_once_are_those_of_one_by_one():
    domains = np.array([[-1, 0, 5], [23, 24, 100]])
    many = palette.domain_rgb(domains)
    assert many.dtype == np.uint8
    for where in np.ndindex(domains.shape):
        assert tuple(many[where].tolist()) == palette.rgb(palette.domain_colour(int(domains[where])))


def test_scales_are_known_to_plotly():
    import plotly.colors

    for name in (palette.SEQUENTIAL_SCALE, palette.DIVERGING_SCALE):
        assert plotly.colors.get_colorscale(name)
