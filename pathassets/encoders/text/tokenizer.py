"""Tokenizers: a file on this machine, and texts as numbers by it.

Belongs here: finding the file, reading it, begin and end, cutting off. Does not belong: networks.

Three kinds of file are read, all of them data: `tokenizer.json` of Hugging Face's tokenizers, BERT's `vocab.txt`, and sentencepiece's
models. A tokenizer of other words gives vectors that mean nothing and look like any others: what can be told apart by the
numbers of its tokens is refused.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pathassets.encoders import hub
from pathassets.encoders.card import EncoderCard
from pathassets.encoders.text.spec import TowerSpec
from pathassets.errors import Reason, TextTowerError

MAX_BYTES = 64 << 20
SENTENCEPIECE = (".spm", ".model")
# XLM-R's numbers of what sentencepiece numbers otherwise (fairseq's dictionary).
XLMR_SPECIALS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


class Tokenizer:
    """Texts to numbers of tokens, as a tower was trained to read them.

    Args:
        path: The file.
        spec: The tower.

    Raises:
        TextTowerError: `tokenizer_mismatch` when the file cannot be read, or is not this tower's; `text_tower_missing` when a
            library is not installed.
    """

    def __init__(self, path: Path, spec: TowerSpec) -> None:
        check_libraries(spec, path)
        self.path, self.spec = path, spec
        if not 0 < path.stat().st_size <= MAX_BYTES:
            raise _mismatch(f"{path} is empty, or larger than any tokenizer ({path.stat().st_size:,} bytes)", spec)
        try:
            self._cut, self._number, size = _read(path, spec)
        except Exception as error:  # the libraries raise whatever their readers meet
            line = (str(error).splitlines() or [""])[0][:200]
            raise _mismatch(
                f"{path} is no tokenizer that can be read ({type(error).__name__}: {line})", spec
            ) from error
        if size > spec.vocab:
            raise _mismatch(f"{path} has {size:,} tokens, and the text tower {spec.vocab:,}", spec)
        self._begin, self._end = self._special(spec.begin), self._special(spec.end)
        if spec.ids and tuple(self._begin + self._end) != spec.ids:
            raise _mismatch(
                f"{path} numbers begin and end of a text {self._begin + self._end}, the text tower {list(spec.ids)}",
                spec,
            )

    def __call__(self, text: str) -> list[int]:
        """Numbers of a text's tokens, begin and end among them, at most `context`: what goes beyond is cut off before the end."""
        room = self.spec.context - len(self._begin) - len(self._end)
        return [*self._begin, *self._cut(self._prepared(text))[:room], *self._end]

    def unknown_words(self, text: str) -> list[str]:
        """Words of which a part is no token, in their order."""
        unknown = {number for number in map(self._number, ("[UNK]", "<unk>")) if number is not None}
        return [word for word in text.split() if unknown & set(self._cut(self._prepared(word)))]

    def _prepared(self, text: str) -> str:
        """SigLIP reads texts without capitals and punctuation (Zhai 2023, arXiv:2303.15343, and its authors' code)."""
        if not self.spec.canonical:
            return text
        return re.sub(r"\s+", " ", text.lower().translate(str.maketrans("", "", string.punctuation))).strip()

    def _special(self, names: Sequence[str]) -> list[int]:
        found = [number for number in map(self._number, names) if number is not None]
        if names and not found:
            raise _mismatch(f"{self.path} has no token {names[0]!r}", self.spec)
        return found[:1]


def _read(path: Path, spec: TowerSpec) -> tuple[Callable[[str], list[int]], Callable[[str], int | None], int]:
    """How the file cuts a text up, the number of a token by its name (None where there is none), how many tokens there are."""
    if path.suffix in SENTENCEPIECE:
        return _sentencepiece(path, spec)
    from tokenizers import Tokenizer as Fast

    tokenizer: Any = _wordpiece(path) if path.suffix == ".txt" else Fast.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return (
        lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        tokenizer.token_to_id,
        int(tokenizer.get_vocab_size(with_added_tokens=True)),
    )


def _wordpiece(path: Path) -> Any:
    """BERT's own cutting, uncased (Devlin 2018, arXiv:1810.04805), from its list of tokens."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers

    tokenizer: Any = Fast(models.WordPiece.from_file(str(path), unk_token="[UNK]"))  # noqa: S106 (a token of text)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _sentencepiece(path: Path, spec: TowerSpec) -> tuple[Callable[[str], list[int]], Callable[[str], int | None], int]:
    from sentencepiece import SentencePieceProcessor

    pieces: Any = SentencePieceProcessor(model_file=str(path))
    specials = XLMR_SPECIALS if spec.offset else {}
    numbers = {piece: pieces.piece_to_id(piece) for piece in ("<s>", "</s>", "<pad>")}
    unknown = pieces.unk_id()

    def cut(text: str) -> list[int]:
        found = pieces.encode(text)
        return [specials["<unk>"] if specials and piece == unknown else piece + spec.offset for piece in found]

    def number(name: str) -> int | None:
        if name in specials:
            return specials[name]
        if name == "<unk>":
            return int(unknown)
        return numbers[name] if numbers.get(name, unknown) != unknown else None

    return cut, number, pieces.get_piece_size() + spec.offset


def find_tokenizer(card: EncoderCard, spec: TowerSpec, *, named: str | Path | None, beside: Path | None) -> Path:
    """The tokenizer's file: the one that is named, one beside the weights, or one in the hub's cache. Nothing is fetched.

    Args:
        card: The encoder.
        spec: Its tower.
        named: A file, or a folder that holds one.
        beside: The user's own file of weights, or its folder.

    Raises:
        TextTowerError: `tokenizer_missing`, with what to do.
    """
    if named is not None:
        path = Path(named).expanduser()
        found = _in_folder(path, spec) if path.is_dir() else path if path.is_file() else None
        if found is None:
            raise _missing(f"the tokenizer of {card.name} is not at {path}", "Correct the path in `tokenizer`.")
        return found
    found = _in_folder(beside if beside.is_dir() else beside.parent, spec) if beside is not None else None
    found = found or _in_cache(card, spec)
    if found is None:
        raise _missing(f"the tokenizer of {card.name} is not on this machine", remedy(card, spec))
    return found


def _in_folder(folder: Path, spec: TowerSpec) -> Path | None:
    return next((folder / name for name in spec.files if (folder / name).is_file()), None)


def _in_cache(card: EncoderCard, spec: TowerSpec) -> Path | None:
    repositories = ([card.hub_id] if card.hub_id else []) + list(spec.hubs)
    wanted = ((repository, name) for repository in repositories for name in spec.files)
    return next((path for path in (hub.cached_file(*pair) for pair in wanted) if path is not None), None)


def remedy(card: EncoderCard, spec: TowerSpec) -> str:
    """How a user brings the tokenizer."""
    fetch = f"`hf download {spec.hubs[0] if spec.hubs else card.hub_id} {spec.files[0]}`"
    if spec.name == "conch":
        fetch = "Take it from conch/open_clip_custom/tokenizers at https://github.com/mahmoodlab/CONCH"
    return (
        f'{fetch}; put {" or ".join(spec.files)} beside the weights, or name it with `tokenizer = "FILE"` in the recipe. '
        "Without words: `terms = []` in [text]."
    )


def check_libraries(spec: TowerSpec, tokenizer: Path) -> None:
    """Asks for what reading words needs besides, without loading it.

    Raises:
        TextTowerError: `text_tower_missing` when a library is not installed.
    """
    reader = "sentencepiece" if tokenizer.suffix in SENTENCEPIECE else "tokenizers"
    absent = [name for name in (reader, *spec.libraries) if find_spec(name) is None]
    if absent:
        raise TextTowerError(
            f"reading words with {tokenizer.name} needs {' and '.join(absent)}, which this environment lacks",
            reason=Reason.TEXT_TOWER_MISSING,
            remedy="pip install 'pathassets[text]'; without words: `terms = []` in [text].",
        )


def _missing(message: str, how: str) -> TextTowerError:
    return TextTowerError(message, reason=Reason.TOKENIZER_MISSING, remedy=how)


def _mismatch(message: str, spec: TowerSpec) -> TextTowerError:
    return TextTowerError(
        message,
        reason=Reason.TOKENIZER_MISMATCH,
        remedy=f"Take the tokenizer that the weights were trained with ({' or '.join(spec.files)}).",
    )
