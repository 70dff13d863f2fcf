"""Text towers of the encoders that were trained with words: facts, tokenizers, networks, layouts of checkpoints.

Belongs here: everything between a text and its vector. Does not belong: image towers, comparing tiles with words (`core/similarity`).

Nothing is fetched, and no code of a model's authors is run: a tokenizer is a file on this machine, a tower is built here. The
libraries that this needs besides (`pip install 'pathassets[text]'`) are loaded when the first text comes.
"""

from pathassets.encoders.text.spec import TowerSpec, towers

__all__ = ["TowerSpec", "towers"]
