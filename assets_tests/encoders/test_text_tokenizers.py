"""Tokenizers: read from a file on this machine, to the number what transformers makes of it, and refused where they are another's."""

from __future__ import annotations

import hashlib

import pytest
import torch
import transformers
from safetensors.torch import save_file
from support import text_towers as words

from pathassets.encoders import get_card, load_encoder, words_are_here, words_digest
from pathassets.encoders.text import tokenizer as module
from pathassets.encoders.text.spec import towers
from pathassets.encoders.text.tokenizer import Tokenizer, find_tokenizer
from pathassets.errors import Reason, TextTowerError
from pathassets.testing.encoder_contract import small_kwargs

HARD = (*words.TEXTS, "HELLO  World\n\ttabs", "naïve Ångström", "a" * 300, "<|endoftext|> in the text", "👩🏽‍🔬")


def small(name, **sizes):
    return towers()[name].narrowed(sizes)


# -- What transformers makes of the same file ----------------------------------------------------------------------------------


def test_clip_is_cut_up_as_transformers_does(tmp_path):
    trained = words.byte_pairs(tmp_path / "t.json", "<|startoftext|>", "<|endoftext|>")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=trained)
    ours = Tokenizer(tmp_path / "t.json", small("plip", vocab=trained.get_vocab_size(), context=20))
    begin, end = trained.token_to_id("<|startoftext|>"), trained.token_to_id("<|endoftext|>")
    for text in HARD:
        middle = theirs(text, add_special_tokens=False, truncation=True, max_length=18)["input_ids"]
        assert ours(text) == [begin, *middle, end], text


def test_bert_is_cut_up_as_transformers_does(tmp_path):
    path = words.word_pieces(tmp_path / "vocab.txt")
    theirs = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words.BERT_WORDS)})
    ours = Tokenizer(path, small("pubmedbert", vocab=len(words.BERT_WORDS), context=12))
    for text in HARD:
        assert ours(text) == theirs(text, truncation=True, max_length=12)["input_ids"], text
    assert ours.unknown_words("mucosa glomerulus of 👩🏽‍🔬 tissue") == ["glomerulus", "👩🏽‍🔬"]


def test_a_json_of_bert_gives_the_same_numbers_as_its_list_of_words(tmp_path):
    path = words.word_pieces(tmp_path / "vocab.txt")
    theirs = transformers.BertTokenizer(vocab={word: number for number, word in enumerate(words.BERT_WORDS)})
    theirs.backend_tokenizer.enable_padding(length=64)
    theirs.backend_tokenizer.enable_truncation(3)
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    spec = small("pubmedbert", vocab=len(words.BERT_WORDS), context=12)
    one, other = Tokenizer(path, spec), Tokenizer(tmp_path / "tokenizer.json", spec)
    for text in HARD:
        assert one(text) == other(text), "padding and truncation that the file asks for are not the tower's"


def test_xlm_numbers_of_a_sentencepiece_model_are_transformers(tmp_path):
    import sentencepiece

    path = words.sentence_pieces(tmp_path / "tokenizer.spm")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    kept = [(pieces.id_to_piece(k), pieces.get_score(k)) for k in range(3, pieces.get_piece_size())]
    special = [(word, 0.0) for word in ("<s>", "<pad>", "</s>", "<unk>")]
    theirs = transformers.XLMRobertaTokenizer(vocab=[*special, *kept, ("<mask>", 0.0)])
    ours = Tokenizer(path, small("musk", vocab=100, context=30))
    for text in ("mucosa", "an H&E image of tumour", "", "lymphocytes  necrosis"):
        assert ours(text) == theirs(text)["input_ids"], text
    assert ours.unknown_words("mucosa ☃") == ["☃"]


def test_siglip_reads_without_capitals_and_punctuation(tmp_path):
    path = words.sentence_pieces(tmp_path / "spiece.model")
    ours = Tokenizer(path, small("siglip", vocab=70, context=30))
    assert ours("  Tumour,\nSTROMA! ") == ours("tumour stroma")
    assert ours("tumour stroma") != ours("stroma tumour")
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert ours("tumour stroma") == [*pieces.encode("tumour stroma"), pieces.piece_to_id("</s>")]


def test_a_text_without_words_is_its_begin_and_end(tmp_path):
    ours = Tokenizer(words.word_pieces(tmp_path / "vocab.txt"), small("pubmedbert", vocab=40))
    assert ours("") == ours("   ") == [2, 3]


def test_what_is_longer_than_the_context_loses_its_tail_and_keeps_its_end(tmp_path):
    ours = Tokenizer(words.word_pieces(tmp_path / "vocab.txt"), small("pubmedbert", vocab=40, context=8))
    assert ours("mucosa " * 100) == [2, *(5, 6, 7) * 2, 3]
    assert len(ours("tissue " * 6)) == len(ours("tissue " * 7)) == 8


# -- Files that are not this tower's --------------------------------------------------------------------------------------------


def refused(path, spec, reason=Reason.TOKENIZER_MISMATCH):
    with pytest.raises(TextTowerError) as caught:
        Tokenizer(path, spec)
    assert caught.value.reason is reason
    assert caught.value.remedy
    return caught.value.message


def test_more_words_than_the_tower_has_rows_for_are_refused(tmp_path):
    path = words.word_pieces(tmp_path / "vocab.txt")
    assert "has 30 tokens, and the text tower 29" in refused(path, small("pubmedbert", vocab=29))
    pieces = words.sentence_pieces(tmp_path / "s.spm")
    assert "tokens, and the text tower 20" in refused(pieces, small("musk", vocab=20))
    Tokenizer(path, small("pubmedbert", vocab=30))


def test_another_kind_of_tokenizer_is_told_by_begin_and_end(tmp_path):
    words.byte_pairs(tmp_path / "t.json", "<|startoftext|>", "<|endoftext|>")
    assert "has no token '[CLS]'" in refused(tmp_path / "t.json", towers()["pubmedbert"])
    assert "numbers begin and end of a text [320, 321], the text tower [49406, 49407]" in refused(
        tmp_path / "t.json", towers()["clip"]
    )
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n" + "\n".join(f"w{k}" for k in range(99)) + "\n[CLS]\n[SEP]\n")
    assert "the text tower [2, 3]" in refused(vocabulary, towers()["conceptclip"]), "ordinary BERT's words are others"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""), ("tokenizer.json", b"{}"), ("tokenizer.json", b"not json"), ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["q", "z"]]}}'),
        ("vocab.txt", b""), ("vocab.txt", b"\xff\xfe\n"), ("x.spm", b"junk" * 100), ("x.model", b"\x80\x04cos\nsystem\n"),
    ],
)  # fmt: skip
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    tower = towers()["musk" if name.startswith("x.") else "pubmedbert"]
    assert str(tmp_path / name) in refused(tmp_path / name, tower)


def test_a_file_that_is_larger_than_any_tokenizer_is_not_read(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(module.MAX_BYTES + 1)
    assert "larger than any tokenizer" in refused(tmp_path / "tokenizer.json", towers()["clip"])


def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    path = words.word_pieces(tmp_path / "vocab.txt")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    message = refused(path, towers()["pubmedbert"], Reason.TEXT_TOWER_MISSING)
    assert "tokenizers and transformers" in message
    with pytest.raises(TextTowerError) as caught:
        words_digest("biomedclip", tokenizer=path)
    assert "pathassets[text]" in caught.value.remedy
    encoder = load_encoder("biomedclip", random_weights=True, device="cpu", **small_kwargs("biomedclip"))
    assert encoder.dim == 512, "tiles need no library of words"


# -- Where it is looked for ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def put(folder, repository, name, data=b"words"):
    snapshot = folder / f"models--{repository.replace('/', '--')}" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    (snapshot / name).write_bytes(data)


def found(name, **where):
    spec = {"named": None, "beside": None, **where}
    from pathassets.encoders import zoo

    return find_tokenizer(get_card(name), zoo.encoders()[name].text, **spec)


def test_the_named_file_wins_then_the_one_beside_the_weights_then_the_cache(tmp_path, cache):
    put(cache, "vinid/plip", "tokenizer.json", b"of the hub")
    assert found("plip").read_bytes() == b"of the hub"
    weights = tmp_path / "mine" / "plip.bin"
    weights.parent.mkdir()
    weights.touch()
    assert found("plip", beside=weights).read_bytes() == b"of the hub"
    (weights.parent / "tokenizer.json").write_bytes(b"beside")
    assert found("plip", beside=weights).read_bytes() == b"beside"
    assert found("plip", beside=weights.parent).read_bytes() == b"beside"
    (tmp_path / "own.json").write_bytes(b"named")
    assert found("plip", beside=weights, named=tmp_path / "own.json").read_bytes() == b"named"
    assert found("plip", named=weights.parent).read_bytes() == b"beside"


def test_a_copy_of_another_repository_that_is_the_same_will_do(cache):
    put(cache, "openai/clip-vit-large-patch14", "tokenizer.json")
    assert found("omiclip").read_bytes() == b"words"
    with pytest.raises(TextTowerError):
        found("conch/projected")


def test_a_tokenizer_that_is_not_here_is_missing_and_never_fetched(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for fetch in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{fetch}", lambda *a, **k: pytest.fail("nobody asked for a download"))
    for name, how in (
        ("plip", "hf download openai/clip-vit-base-patch32 tokenizer.json"),
        ("keep", "hf download Astaxanthin/KEEP tokenizer.json"),
        ("musk/projected", "hf download xiangjx/musk tokenizer.spm"),
        ("conch/projected", "github.com/mahmoodlab/CONCH"),
    ):
        with pytest.raises(TextTowerError, match="not on this machine") as caught:
            words_digest(name)
        assert caught.value.reason is Reason.TOKENIZER_MISSING
        assert how in caught.value.remedy
        assert "terms = []" in caught.value.remedy
    with pytest.raises(TextTowerError, match=f"is not at {tmp_path / 'gone.json'}"):
        words_digest("plip", tokenizer=tmp_path / "gone.json")


def test_tiles_do_not_wait_for_words(cache):
    encoder = load_encoder("plip", random_weights=True, device="cpu", **small_kwargs("plip"))
    assert encoder.has_text
    with pytest.raises(TextTowerError) as caught:
        encoder.embed_text(["mucosa"])
    assert caught.value.reason is Reason.TOKENIZER_MISSING
    for ask in (lambda: encoder.logit_scale, lambda: encoder.logit_bias, lambda: encoder.unknown_words("a")):
        with pytest.raises(TextTowerError):
            ask()


def test_words_are_known_by_the_hash_of_their_tokenizer(tmp_path, cache):
    path = words.word_pieces(tmp_path / "vocab.txt")
    assert words_digest("biomedclip", tokenizer=path) == hashlib.sha256(path.read_bytes()).hexdigest()
    weights = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1)}, weights)
    assert words_digest("biomedclip", weights=weights) == words_digest("biomedclip", tokenizer=path)
    assert words_digest("demo-vlm") is None, "its words are in the network"
    assert words_are_here("demo-vlm")
    assert words_are_here("biomedclip", tokenizer=path)
    assert not words_are_here("biomedclip")
    with pytest.raises(TextTowerError, match="uni has no text tower"):
        words_digest("uni")
    with pytest.raises(TextTowerError, match="conch has no text tower: these vectors are taken before"):
        words_digest("conch")


def test_the_text_tower_is_read_once_whoever_asks(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from pathassets.encoders.text.tower import WhenAsked

    reads = []
    ask = WhenAsked(lambda: reads.append(1) or object())
    with ThreadPoolExecutor(8) as threads:
        towers_ = list(threads.map(lambda _: ask(), range(32)))
    assert len(reads) == 1
    assert len(set(map(id, towers_))) == 1
