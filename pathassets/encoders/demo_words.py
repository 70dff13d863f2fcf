"""The words that demo-vlm was taught, and how any text becomes n-grams.

Belongs here: the vocabulary, prompt templates, the tokeniser; no torch. Does not belong: the network.
"""

from __future__ import annotations

import re
from functools import lru_cache
from zlib import crc32

SYNONYMS: dict[str, tuple[str, ...]] = {
    "background": (
        "background", "white background", "empty", "empty glass", "glass", "blank", "blank slide", "bare slide",
        "nothing", "no tissue", "outside", "white space", "clear area",
    ),
    "adipose": (
        "adipose", "adipose tissue", "fat", "fatty tissue", "fat cells", "adipocytes", "adipocyte", "fatty", "lipid",
        "lipid cells", "mesenteric fat", "subserosal fat", "serosal fat",
    ),
    "stroma": (
        "stroma", "stromal", "fibrous stroma", "fibrous tissue", "fibrosis", "fibrotic", "desmoplasia",
        "desmoplastic stroma", "desmoplastic reaction", "collagen", "collagenous stroma", "fibroblasts", "fibroblast",
        "connective tissue", "dense connective tissue", "scar", "tumour-associated stroma", "serosa",
    ),
    "submucosa": (
        "submucosa", "submucosal", "sub-mucosa", "sub mucosa", "submucous layer", "loose connective tissue",
        "areolar tissue", "loose tissue with vessels", "vessels", "blood vessels in loose tissue", "submucosal layer",
        "oedema", "edema", "oedematous tissue",
    ),
    "muscularis": (
        "muscularis", "muscularis propria", "muscularis externa", "smooth muscle", "muscle", "muscular", "muscle layer",
        "muscle fibres", "muscle fibers", "muscle cells", "leiomyocytes", "muscular wall", "smooth muscle cells",
    ),
    "mucosa": (
        "mucosa", "mucosal", "mucous membrane", "glands", "gland", "glandular", "glandular mucosa", "crypts", "crypt",
        "epithelium", "normal epithelium", "glandular epithelium", "goblet cells", "lamina propria", "normal mucosa",
        "colonic mucosa", "normal glands", "lining",
    ),
    "lymphocytes": (
        "lymphocytes", "lymphocyte", "lymphocytic", "lymphoid", "lymphoid aggregate", "lymphoid follicle",
        "lymphoid tissue", "lymph node", "lymph follicle", "lymphocytic infiltrate", "immune cells", "immune",
        "immune infiltrate", "inflammation", "inflammatory cells", "inflamed", "tertiary lymphoid structure",
        "follicle", "TILs", "leukocytes", "B cells", "T cells",
    ),
    "tumor": (
        "tumor", "tumour", "tumoral", "tumoural", "tumor cells", "tumour cells", "cancer", "cancer cells", "cancerous",
        "carcinoma", "adenocarcinoma", "malignant", "malignancy", "malignant cells", "neoplasm", "neoplastic",
        "neoplasia", "invasive carcinoma", "tumour nest", "tumor nest", "tumor epithelium", "atypical cells",
    ),
    "necrosis": (
        "necrosis", "necrotic", "necrotic tissue", "dead tissue", "dead cells", "cell death", "debris",
        "necrotic debris", "cell debris", "coagulative necrosis", "tumour necrosis", "tumor necrosis", "dying cells",
        "karyorrhexis",
    ),
    "blood": (
        "blood", "red blood cells", "red cells", "erythrocytes", "erythrocyte", "haemorrhage", "hemorrhage",
        "haemorrhagic", "hemorrhagic", "bleeding", "bleed", "blood cells", "RBC", "red corpuscles", "haematoma",
        "hematoma", "extravasated blood",
    ),
}  # fmt: skip
"""What each class may be called; the first is its name."""

TEMPLATES: tuple[str, ...] = ("{}", "an image of {}", "a histology tile showing {}", "an H&E patch of {}")
"""Prompt templates for an ensemble; all of them were used in training."""

TRAINING_TEMPLATES: tuple[str, ...] = (
    *TEMPLATES, "a photo of {}", "a picture of {}", "this is {}", "a tile with {}", "{} in a tissue section",
    "microscopy of {}", "a micrograph of {}", "a region of {}", "an area of {}", "{} on a slide", "the {}",
    "a histopathology image of {}", "pathology slide of {}", "haematoxylin and eosin stain of {}",
    "hematoxylin and eosin section of {}", "H&E stained {}", "{} seen at high power", "{} present", "there is {}",
)  # fmt: skip
"""All templates that captions were made with."""

KNOWN_SHARE = 0.6
"""A word counts as known when at least this share of its n-grams was seen in training."""


def words(text: str) -> list[str]:
    """Lower-case words; a hyphen between letters joins them ("sub-mucosa" is "submucosa")."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=\w)-(?=\w)", "", text.lower()))


def ngrams(word: str) -> list[int]:
    """The word itself, then its runs of three and four characters, as CRC-32 hashes."""
    marked = f"<{word}>"
    pieces = [f"={word}"] + [marked[k : k + n] for n in (3, 4) for k in range(len(marked) - n + 1)]
    return [crc32(piece.encode()) for piece in pieces]


@lru_cache(maxsize=1)
def trained_words() -> frozenset[str]:
    """All words of the captions."""
    texts = [term for terms in SYNONYMS.values() for term in terms] + list(TRAINING_TEMPLATES)
    return frozenset(word for text in texts for word in words(text))


@lru_cache(maxsize=1)
def vocabulary() -> tuple[int, ...]:
    """Hashes of all n-grams of the captions, sorted: row k of the text tower's table belongs to entry k."""
    return tuple(sorted({gram for word in trained_words() for gram in ngrams(word)}))


def unknown_words(text: str) -> list[str]:
    """Words of a text that the text tower cannot know, in their order.

    Args:
        text: Any text.

    Returns:
        Words of which fewer than `KNOWN_SHARE` of the n-grams occur in the training captions.
    """
    seen = set(vocabulary())

    def known(word: str) -> bool:
        pieces = ngrams(word)[1:] or ngrams(word)
        return word in trained_words() or sum(p in seen for p in pieces) >= KNOWN_SHARE * len(pieces)

    return [word for word in words(text) if not known(word)]
