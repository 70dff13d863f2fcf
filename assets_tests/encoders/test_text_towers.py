"""Text towers give what the libraries of their authors give, under the same random weights, from the file to the vector."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import transformers
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from support import text_towers as words
from torch.nn.functional import normalize

from pathassets.core.similarity import text_scores
from pathassets.encoders import get_card, list_cards, load_encoder, zoo
from pathassets.encoders.text.networks import build
from pathassets.encoders.text.spec import towers
from pathassets.encoders.text.tower import read_tower
from pathassets.errors import EncoderError, Reason, TextTowerError
from pathassets.testing import check_encoder, small_copy

SPEAKING = [card.name for card in list_cards() if card.tokenizer]
WIDTH, HEADS, LAYERS, CONTEXT = 64, 8, 2, 14


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()


def tower_of(name, path, tokenizer, **sizes):
    """The text tower of `name`, made small, from its files."""
    spec = zoo.encoders()[name].text.narrowed({"width": WIDTH, "heads": HEADS, "layers": LAYERS, **sizes})
    return read_tower(get_card(name), spec, tokenizer, path)


def saved(model, path):
    """A library's model as a file, with numbers that a fresh one has not (zeros, ones, tiny deviations)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 if parameter.ndim else torch.tensor(2.5))
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model.eval()


def padded(tower, texts, pad=0, length=CONTEXT):
    ids = [tower.tokenizer(text) for text in texts]
    assert max(map(len, ids)) == length, "one of the texts is cut off"
    return torch.tensor([row + [pad] * (length - len(row)) for row in ids])


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std(0).mean() > 1e-3, "vectors that are all alike would agree anyhow"
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


# -- PLIP and QuiltNet, whole: pictures, words, scale, probabilities ----------------------------------------------------------


def tiles(n=3, edge=64):
    return np.random.default_rng(3).integers(0, 256, (n, edge, edge, 3), dtype=np.uint8)


def same_as_theirs(encoder, images, image_vectors, text_vectors, probabilities):
    agree(torch.from_numpy(encoder.embed_text(words.TEXTS)), normalize(text_vectors, dim=1))
    agree(torch.from_numpy(encoder(images)), image_vectors)
    found = text_scores(encoder(images), encoder.embed_text(words.TEXTS), logit_scale=encoder.logit_scale)
    np.testing.assert_allclose(found.probability, probabilities.numpy(), atol=1e-5)


@torch.no_grad()
def test_plip_is_the_clip_of_transformers(tmp_path):
    tokenizer = words.byte_pairs(tmp_path / "tokenizer.json", "<|startoftext|>", "<|endoftext|>")
    vocab = tokenizer.get_vocab_size()
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS, "projection_dim": 512}
    text = {"vocab_size": vocab, "max_position_embeddings": CONTEXT, "num_hidden_layers": LAYERS}
    ends = {"bos_token_id": vocab - 2, "eos_token_id": vocab - 1, "pad_token_id": vocab - 1}
    config = transformers.CLIPConfig(
        text_config={**shape, **text, **ends},
        vision_config={**shape, "num_hidden_layers": 1, "image_size": 64, "patch_size": 32},
        projection_dim=512,
    )
    model = saved(transformers.CLIPModel(config), tmp_path / "model.safetensors")
    sizes = {"width": WIDTH, "heads": HEADS, "layers": LAYERS, "vocab": vocab, "context": CONTEXT}
    encoder = load_encoder(
        "plip", weights=tmp_path, device="cpu", precision="fp32", depth=1, img_size=64, embed_dim=WIDTH, num_heads=HEADS,
        text_kwargs=sizes,
    )  # fmt: skip
    images = torch.from_numpy(encoder.inputs(tiles()))
    ids = padded(encoder._reader(), words.TEXTS, pad=vocab - 1)
    theirs = model(input_ids=ids, pixel_values=images)
    assert encoder.logit_scale == pytest.approx(math.exp(2.5))
    assert encoder.logit_bias is None
    image_vectors = model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
    text_vectors = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    same_as_theirs(encoder, tiles(), image_vectors, text_vectors, theirs.logits_per_image.softmax(1))
    assert "text_projection.weight" in encoder.dropped


@torch.no_grad()
def test_quiltnet_is_the_clip_of_open_clip(tmp_path):
    tokenizer = words.byte_pairs(tmp_path / "tokenizer.json", "<start_of_text>", "<end_of_text>")
    vocab = tokenizer.get_vocab_size()
    vision = CLIPVisionCfg(layers=1, width=WIDTH, head_width=WIDTH // HEADS, patch_size=32, image_size=64)
    text = CLIPTextCfg(context_length=CONTEXT, vocab_size=vocab, width=WIDTH, heads=HEADS, layers=LAYERS)
    model = saved(CLIP(512, vision, text), tmp_path / "model.safetensors")
    sizes = {"width": WIDTH, "heads": HEADS, "layers": LAYERS, "vocab": vocab, "context": CONTEXT}
    encoder = load_encoder(
        "quiltnet-b32", weights=tmp_path / "model.safetensors", device="cpu", precision="fp32", depth=1, img_size=64,
        embed_dim=WIDTH, num_heads=HEADS, text_kwargs=sizes,
    )  # fmt: skip
    images, ids = torch.from_numpy(encoder.inputs(tiles())), padded(encoder._reader(), words.TEXTS)
    logits = model.get_logits(images, ids)[0]
    same_as_theirs(encoder, tiles(), model.encode_image(images), model.encode_text(ids), logits.softmax(1))


# -- The others: words -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_omiclip_is_the_coca_of_open_clip(tmp_path):
    tokenizer = words.byte_pairs(tmp_path / "t.json", "<start_of_text>", "<end_of_text>")
    shape = {"vocab_size": tokenizer.get_vocab_size(), "width": WIDTH, "heads": HEADS, "layers": LAYERS}
    text = {"context_length": CONTEXT, **shape, "embed_cls": True, "output_tokens": True}
    vision = {"layers": 1, "width": WIDTH, "head_width": 8, "patch_size": 32, "image_size": 64, "output_tokens": True}
    model = open_clip.CoCa(768, {**shape, "context_length": CONTEXT}, text, {**vision, "attentional_pool": True})
    saved(model, tmp_path / "w.safetensors")
    sizes = {"vocab": shape["vocab_size"], "context": CONTEXT, "places": CONTEXT + 1}
    tower = tower_of("omiclip", tmp_path / "w.safetensors", tmp_path / "t.json", **sizes)
    ids = padded(tower, words.TEXTS)
    agree(tower.encode_text(words.TEXTS), model.encode_text(ids, normalize=False))
    assert tower.logit_scale == pytest.approx(math.exp(2.5))


@torch.no_grad()
def test_conch_is_what_its_formulas_say(tmp_path):
    vocab = words.conch_like(tmp_path / "t.json").get_vocab_size()
    state, attentions = words.conch(WIDTH, vocab, CONTEXT, 512, LAYERS, HEADS)
    save_file(state, tmp_path / "w.safetensors")
    sizes = {"vocab": vocab, "context": CONTEXT, "places": CONTEXT + 1}
    tower = tower_of("conch/projected", tmp_path / "w.safetensors", tmp_path / "t.json", **sizes)
    ids = padded(tower, words.TEXTS)
    assert (ids[:, 0] == 1).all(), "its own template must not add the beginning a second time"
    assert (ids[:, 1] != 1).all()
    agree(tower.encode_text(words.TEXTS), words.run_conch(state, attentions, ids, HEADS))
    assert tower.logit_scale == pytest.approx(math.exp(3.0))


@torch.no_grad()
def test_conch_is_the_coca_of_open_clip_too(tmp_path):
    """A second witness: the same mask, written by others."""
    vocab = words.conch_like(tmp_path / "t.json").get_vocab_size()
    theirs = open_clip.transformer.TextTransformer(CONTEXT, vocab, WIDTH, HEADS, LAYERS, output_dim=512, embed_cls=True)
    holder = torch.nn.Module()
    holder.text, holder.logit_scale = theirs, torch.nn.Parameter(torch.tensor(0.0))
    saved(holder, tmp_path / "w.safetensors")
    sizes = {"vocab": vocab, "context": CONTEXT, "places": CONTEXT + 1}
    tower = tower_of("conch/projected", tmp_path / "w.safetensors", tmp_path / "t.json", **sizes)
    agree(tower.encode_text(words.TEXTS), theirs(padded(tower, words.TEXTS)))


@torch.no_grad()
def test_musk_is_the_words_branch_of_beit3(tmp_path):
    pieces = words.sentence_pieces(tmp_path / "tokenizer.spm")
    state = words.musk(WIDTH, 90, 40, 1024, LAYERS)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "w.safetensors")
    sizes = {"vocab": 90, "context": CONTEXT, "places": 40}
    tower = tower_of("musk/projected", tmp_path / "w.safetensors", pieces, **sizes)
    ids = padded(tower, words.TEXTS, pad=1)
    theirs = words.run_musk(state, ids, ids == 1, HEADS, LAYERS)
    agree(tower.encode_text(words.TEXTS), theirs)
    assert tower.logit_scale == pytest.approx(math.exp(2.0))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "how", "out"),
    [
        ("biomedclip", {"proj_type": "mlp", "pooler_type": "cls_last_hidden_state_pooler"}, 512),
        ("quiltnet-b16-pmb", {"proj_type": "mlp", "pooler_type": "cls_last_hidden_state_pooler"}, 512),
        ("conceptclip", {"proj_type": "linear", "pooler_type": "cls_last_hidden_state_pooler"}, 1152),
    ],
)
def test_the_towers_of_bert_are_open_clips(tmp_path, name, how, out):
    config = transformers.BertConfig(
        vocab_size=len(words.BERT_WORDS), hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=40,
    )  # fmt: skip
    holder = torch.nn.Module()
    holder.text = HFTextEncoder("", out, config=config, **how)
    holder.logit_scale = torch.nn.Parameter(torch.tensor(0.0))
    if name == "conceptclip":
        holder.logit_bias = torch.nn.Parameter(torch.tensor(0.0))
        holder.text_proj = torch.nn.Linear(3, 3)  # of its tokens, not of its texts
        holder.text.transformer.pooler = None
    saved(holder, tmp_path / "w.safetensors")
    vocabulary = words.word_pieces(tmp_path / "vocab.txt")
    sizes = {"vocab": len(words.BERT_WORDS), "context": CONTEXT, "places": 40}
    tower = tower_of(name, tmp_path / "w.safetensors", vocabulary, **sizes)
    agree(tower.encode_text(words.TEXTS), holder.text(padded(tower, words.TEXTS)))
    assert tower.logit_bias == (2.5 if name == "conceptclip" else None)
    if name == "conceptclip":  # nothing is known of a pooler: it is not passed over
        state = {**holder.state_dict(), "text.transformer.pooler.dense.weight": torch.ones(WIDTH, WIDTH)}
        save_file(state, tmp_path / "w.safetensors")
        with pytest.raises(TextTowerError, match="not of this network"):
            tower_of(name, tmp_path / "w.safetensors", vocabulary, **sizes)


@torch.no_grad()
def test_keep_is_berts_pooler(tmp_path):
    config = transformers.BertConfig(
        vocab_size=len(words.BERT_WORDS), hidden_size=768, num_hidden_layers=1, num_attention_heads=HEADS,
        intermediate_size=3072, max_position_embeddings=40,
    )  # fmt: skip
    holder = torch.nn.Module()
    holder.text, holder.logit_scale = transformers.BertModel(config), torch.nn.Parameter(torch.tensor(0.0))
    saved(holder, tmp_path / "w.safetensors")
    sizes = {"width": 768, "layers": 1, "vocab": len(words.BERT_WORDS), "context": CONTEXT, "places": 40}
    tower = tower_of("keep", tmp_path / "w.safetensors", words.word_pieces(tmp_path / "vocab.txt"), **sizes)
    ids = padded(tower, words.TEXTS)
    agree(tower.encode_text(words.TEXTS), holder.text(ids, attention_mask=(ids != 0).long()).pooler_output)


@torch.no_grad()
def test_medsiglip_is_the_siglip_of_transformers(tmp_path):
    pieces = words.sentence_pieces(tmp_path / "spiece.model")
    shape = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
    }
    text = {"vocab_size": 70, "max_position_embeddings": CONTEXT, "projection_size": 1152}
    config = transformers.SiglipConfig(
        text_config={**shape, **text}, vision_config={**shape, "image_size": 28, "patch_size": 14}
    )
    model = saved(transformers.SiglipModel(config), tmp_path / "w.safetensors")
    sizes = {"vocab": 70, "context": CONTEXT}
    spec = zoo.encoders()["medsiglip"].text.narrowed({"width": WIDTH, "heads": HEADS, "layers": LAYERS, **sizes})
    tower = read_tower(get_card("medsiglip"), replace(spec, ratio=4.0), pieces, tmp_path / "w.safetensors")
    ids = padded(tower, words.TEXTS, pad=1)
    agree(tower.encode_text(words.TEXTS), model.text_model(input_ids=ids).pooler_output)
    found = (tower.logit_scale, tower.logit_bias)
    assert found == pytest.approx((float(model.logit_scale.exp()), float(model.logit_bias)))


# -- What all of them keep ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEAKING)
def test_the_whole_tower_has_the_size_of_its_sources_and_the_length_of_the_tiles_vectors(name):
    """On torch's meta device: shapes and numbers of parameters, no memory."""
    spec, card = zoo.encoders()[name].text, get_card(name)
    with torch.device("meta"):
        network = build(spec, card.dim)
        for n in (2, spec.context):
            assert network(torch.zeros(n, dtype=torch.long)).shape == (card.dim,)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(spec.params, abs=0.006)


def test_both_sides_of_musk_are_all_of_musk():
    """675.19 million: pictures, words, two heads, and what neither needs: a mask token and fairseq's free places."""
    with torch.device("meta"):
        pictures, said = zoo.encoders()["musk/projected"].build(), build(zoo.encoders()["musk/projected"].text, 1024)
    total = sum(p.numel() for p in (*pictures.parameters(), *said.parameters())) + 1024 + 2 * 2 * 1024
    assert total / 1e6 == pytest.approx(675.19, abs=0.006)


def test_every_encoder_trained_with_words_reads_them_or_says_why_not():
    silent = [card for card in list_cards() if card.vision_language and not card.has_text]
    assert {card.name for card in silent} == {"conch", "conch/224", "conch-v1.5", "musk", "musk/multiscale"}
    for card in silent:
        assert card.text
        assert get_card(card.text_encoder).has_text
        encoder = small_copy(card.name)
        with pytest.raises(TextTowerError, match=r"space of words|TITAN") as caught:
            encoder.embed_text(["mucosa"])
        assert caught.value.reason is Reason.TEXT_TOWER_MISSING
        assert card.text_encoder in caught.value.remedy
    assert len(SPEAKING) >= 11
    assert set(towers()) == {zoo.encoders()[name].text.name for name in SPEAKING}


@pytest.mark.parametrize("name", SPEAKING)
def test_small_copies_read_words(name):
    encoder = small_copy(name, precision="fp32")
    check_encoder(encoder)
    texts = ["mucosa", "", "an image of adipose tissue", "mucosa " * 300]
    vectors = encoder.embed_text(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(encoder.embed_text(texts[::-1])[::-1], vectors, "a text knows nothing of its company")
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-4
    assert encoder.embed_text([]).shape == (0, encoder.dim)
    assert encoder.unknown_words("mucosa glomerulus") == ["glomerulus"]
    tile = np.zeros((2, 64, 64, 3), np.uint8)
    scores = text_scores(encoder(tile), vectors, logit_scale=encoder.logit_scale)
    np.testing.assert_allclose(scores.probability.sum(1), 1, rtol=1e-5)


def test_untrained_towers_are_the_same_everywhere_and_differ_between_encoders():
    one, two, other = small_copy("plip"), small_copy("plip"), small_copy("quiltnet-b32")
    state = torch.random.get_rng_state()
    np.testing.assert_array_equal(one.embed_text(["mucosa"]), two.embed_text(["mucosa"]))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.abs(one.embed_text(["mucosa"]) - other.embed_text(["mucosa"])).max() > 1e-3


# -- Files that do not fit -----------------------------------------------------------------------------------------------------


@pytest.fixture
def conch_files(tmp_path):
    vocab = words.conch_like(tmp_path / "t.json").get_vocab_size()
    state, _ = words.conch(WIDTH, vocab, CONTEXT, 512, LAYERS, HEADS)
    return tmp_path, state, {"vocab": vocab, "context": CONTEXT, "places": CONTEXT + 1}


def refused(files, **changes):
    folder, state, sizes = files
    whole = {key: value for key, value in {**state, **changes}.items() if value is not None}
    save_file({key: value.contiguous() for key, value in whole.items()}, folder / "w.safetensors")
    with pytest.raises(TextTowerError) as caught:
        tower_of("conch/projected", folder / "w.safetensors", folder / "t.json", **sizes)
    assert caught.value.reason is Reason.WEIGHTS_MISMATCH
    return caught.value.message


def test_what_does_not_fit_is_named(conch_files):
    assert "1 missing (norm.weight)" in refused(conch_files, **{"text.ln_final.weight": None})
    assert "1 missing (logit_scale)" in refused(conch_files, logit_scale=None)
    extra = {"text.transformer.resblocks.2.ln_1.weight": torch.ones(WIDTH)}
    assert "1 not of this network (blocks.2.norm1.weight)" in refused(conch_files, **extra)
    shape = {"text.cls_emb": torch.ones(3)}
    assert "1 of another shape (cls (3,) instead of (64,))" in refused(conch_files, **shape)


def test_a_file_of_pictures_alone_is_refused_when_words_are_asked_for(conch_files):
    folder, _, sizes = conch_files
    save_file({"visual.trunk.cls_token": torch.ones(1, 1, 4)}, folder / "w.safetensors")
    with pytest.raises(TextTowerError, match="missing") as caught:
        tower_of("conch/projected", folder / "w.safetensors", folder / "t.json", **sizes)
    assert "words' side" in caught.value.remedy


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf")])
def test_a_scale_that_is_none_is_refused(conch_files, scale):
    assert "logit scale" in refused(conch_files, logit_scale=torch.tensor(scale))


def test_a_scale_in_a_row_of_one_is_read(conch_files):
    folder, state, sizes = conch_files
    save_file({**state, "logit_scale": torch.tensor([1.5])}, folder / "w.safetensors")
    tower = tower_of("conch/projected", folder / "w.safetensors", folder / "t.json", **sizes)
    assert tower.logit_scale == pytest.approx(math.exp(1.5))


@pytest.mark.parametrize("wrong", [{"depth": 2}, {"width": 0}, {"layers": "two"}, {"pool": "end"}])
def test_sizes_of_the_text_tower_are_checked(wrong):
    with pytest.raises(EncoderError, match="text_kwargs") as caught:
        load_encoder("plip", random_weights=True, device="cpu", text_kwargs=wrong)
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_inner_layers_read_no_words():
    encoder = load_encoder("plip", random_weights=True, device="cpu", layers=["blocks.0"], depth=1, img_size=64)
    assert not encoder.has_text
    with pytest.raises(TextTowerError, match="no text tower"):
        encoder.embed_text(["mucosa"])
