"""Columns of the tables of cards: `encoders` and `slide_encoders`.

Belongs here: their description. Does not belong: the cards (`encoders/`), the tables (`schema`).
"""

from __future__ import annotations

from pathassets.store.spec import BOOL, FLOAT, FLOATS, INT, TEXT, TEXTS, Column

_WEIGHTS = (
    Column("licence", TEXT, "Licence of the weights", optional=True),
    Column("commercial_use", BOOL, "Whether the licence allows it; empty = unclear", optional=True),
    Column("gated", BOOL, "Whether the hub asks for an agreement first", optional=True),
    Column("hub_id", TEXT, "Hugging Face repository of the weights", optional=True),
    Column("file", TEXT, "Weights' file in it", optional=True),
    Column("url", TEXT, "Where torchvision's own weights lie", optional=True),
    Column("sha256", TEXT, "Hash of that file, or its beginning", optional=True),
    Column("key_map", TEXT, "Layout of the checkpoint that is translated", optional=True),
    Column("citation", TEXT, "Authors, year, DOI", optional=True),
    Column("bibtex", TEXT, "The same for a list of references", optional=True),
    Column("link", TEXT, "Where to read more", optional=True),
    Column("source", TEXT, "Where the card's numbers come from", optional=True),
    Column(
        "evidence", TEXT, "V = built and compared, S = read in the source; empty = its author's word", optional=True
    ),
)

ENCODERS = (
    Column("name", TEXT, "How users ask for it"),
    Column("dim", INT, "Length of an embedding"),
    Column("input_px", INT, "Edge of the square that the network sees", "px"),
    Column("description", TEXT, "What it is, and what it must not be used for", optional=True),
    Column("family", TEXT, "Which module builds it", optional=True),
    Column("architecture", TEXT, "Network, as its library calls it", optional=True),
    Column("tile_px", INT, "Tile's edge that its authors used; 0 = any", "px", optional=True),
    Column("mpp", FLOAT, "Resolution that its authors used; empty = not tied to one", "µm/px", optional=True),
    Column("mean", FLOATS, "Subtracted from RGB in 0 to 1", optional=True),
    Column("std", FLOATS, "RGB is divided by it after that", optional=True),
    Column("interpolation", TEXT, "How a tile of another size is resized", optional=True),
    Column("antialias", BOOL, "Whether a tile made smaller is smoothed first", optional=True),
    Column("resize", INT, "The shorter edge before the crop; 0 = `input_px`", "px", optional=True),
    Column("crop", TEXT, "`center` keeps the middle square, `squash` everything", optional=True),
    Column("pooling", TEXT, "How tokens or a feature map become one vector", optional=True),
    Column("precision", TEXT, "What its authors ran it in", optional=True),
    Column("params_m", FLOAT, "Parameters of the image tower", "millions", optional=True),
    Column("vision_language", BOOL, "Whether it was trained with words", optional=True),
    Column("has_text", BOOL, "Whether tiles can be compared with words", optional=True),
    Column("text", TEXT, "Its text tower in words, or why it has none", optional=True),
    Column("text_encoder", TEXT, "Where it has none: the encoder to take for words", optional=True),
    Column("tokenizer", TEXTS, "Files that its words are cut up by, any one of them", optional=True),
    Column("context", INT, "Tokens that the text tower reads; 0 = any number", optional=True),
    Column("logit_scale", FLOAT, "Factor on cosines before the softmax; empty = in the weights", optional=True),
    Column("templates", TEXTS, "Prompt templates; `{}` is the term", optional=True),
    Column("training", TEXT, "How it was trained", optional=True),
    Column("n_wsis", INT, "Whole-slide images it was trained on; 0 = not stated", optional=True),
    *_WEIGHTS,
)

SLIDE_ENCODERS = (
    Column("name", TEXT, "How users ask for it, in `methods` of [vectors]"),
    Column("dim", INT, "Length of a slide's vector"),
    Column("description", TEXT, "What it is", optional=True),
    Column("takes", TEXTS, "The tile encoders whose embeddings it takes", optional=True),
    Column("dim_in", INT, "Length of those", optional=True),
    Column("tile_px", INT, "Tile's edge that its authors used", "px", optional=True),
    Column("mpp", FLOAT, "Resolution that its authors used", "µm/px", optional=True),
    Column("uses_positions", BOOL, "Whether it must know where tiles lie", optional=True),
    Column("architecture", TEXT, "Network with its arguments; empty where it is not here", optional=True),
    Column("pooling", TEXT, "How tiles become one vector", optional=True),
    Column("params_m", FLOAT, "Parameters of what runs here", "millions", optional=True),
    Column("missing", TEXT, "Why it cannot run here; empty = it can", optional=True),
    Column("instead", TEXT, "What can be done then", optional=True),
    *_WEIGHTS,
)
