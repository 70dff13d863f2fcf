"""Text similarity with the encoders that read words: scores with the weights' own scale, and a reason where words cannot be read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import text_towers as words

from pathassets.config import CONFIG_FILE, Study
from pathassets.encoders import load_encoder, zoo, zoo_networks
from pathassets.slides.synthetic import synthetic_slide
from pathassets.steps.batch import run_batch
from pathassets.steps.cohort_provenance import terms_account
from pathassets.steps.nodes import chain
from pathassets.steps.provenance import Looking
from pathassets.steps.register import register
from pathassets.steps.session import Session

WIDTH, HEADS, CONTEXT = 64, 8, 16
SMALL = {"depth": 1, "img_size": 64, "embed_dim": WIDTH, "num_heads": HEADS}
CHOSEN = '[text]\nterms = ["adipose tissue", "tumour"]\n'


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "drawn.tiff"
    synthetic_slide(path, seed=4, width_px=2048, height_px=1536)
    return path


@pytest.fixture
def files(tmp_path):
    """A small CONCH as its authors publish it, pictures' and words' side in one file, and its tokenizer beside it."""
    torch.manual_seed(0)
    folder = tmp_path / "conch"
    folder.mkdir()
    vocab = words.conch_like(folder / "conch_byte_level_bpe_uncased.json").get_vocab_size()
    state, _ = words.conch(WIDTH, vocab, CONTEXT, 512, 1, HEADS)
    trunk = zoo_networks.build(zoo.encoders()["conch/projected"].entry, SMALL).trunk
    state |= {f"visual.trunk.{key}": value * 1.0 for key, value in trunk.state_dict().items()}
    pool, _ = words.ref.coca_pool("visual.attn_pool_contrast", 512, WIDTH, 1)
    words.ref.norms(state, "visual.ln_contrast", width=512)
    state["visual.proj_contrast"] = words.ref.numbers(512, 512)
    save_file({key: value.contiguous() for key, value in (state | pool).items()}, folder / "model.safetensors")
    return folder, vocab


def recipe(encoder, folder, vocab, more=""):
    sizes = f"{{width = {WIDTH}, heads = {HEADS}, layers = 1, vocab = {vocab}, context = {CONTEXT}, places = {CONTEXT + 1}}}"
    text = f", text_kwargs = {sizes}" if encoder == "conch/projected" else ""
    kwargs = f"depth = 1, img_size = 64, embed_dim = {WIDTH}, num_heads = {HEADS}"
    return (
        f'[[recipes]]\nencoder = "{encoder}"\nweights = "{folder / "model.safetensors"}"\ntiling = "coarse"\n{more}'
        f"encoder_kwargs = {{{kwargs}{text}}}\n"
    )


def run(home, slide, recipe, text=""):
    """The outcome of text similarity, and the session."""
    home.mkdir(exist_ok=True)
    settings = '[study]\ndevice = "cpu"\n[tilings.coarse]\ntile_px = 64\nmpp = 2.0\n'
    (home / CONFIG_FILE).write_text(f"{settings}{text}{recipe}")
    session = Session(Study(home))
    slide_id = register(session, [slide])[0].slide_id
    results = []
    run_batch(session, [slide_id], chain(session.study), results.append)
    by_step = {str(result.node.step): result for result in results}
    others = {step: result for step, result in by_step.items() if step != "text_similarity"}
    assert all(result.usable for result in others.values()), "tiles have nothing to do with it"
    return by_step["text_similarity"], session


def test_a_small_conch_scores_a_slide_from_its_file_alone(tmp_path, slide, files):
    folder, vocab = files
    result, session = run(tmp_path / "home", slide, recipe("conch/projected", folder, vocab), CHOSEN)
    assert result.outcome.status == "ok"
    scores = session.tables.scan("text_scores").collect()
    assert set(scores["term"]) == {"adipose tissue", "tumour"}
    terms = session.tables.scan("term_embeddings").collect()
    assert terms["logit_scale"].to_list() == pytest.approx([math.exp(3.0)] * 2)
    assert terms["logit_bias"].to_list() == [None, None]
    pair = scores.pivot("term", index="tile_id", values=["cosine", "probability"])
    odds = math.exp(3.0) * (pair["cosine_tumour"] - pair["cosine_adipose tissue"]).to_numpy()
    np.testing.assert_allclose(pair["probability_tumour"].to_numpy(), 1 / (1 + np.exp(-odds)), atol=1e-5)
    assert pair["probability_tumour"].std() > 0

    encoder = load_encoder("conch/projected", weights=folder, device="cpu", **session.study.recipes[0].encoder_kwargs)
    prompts = [template.replace("{}", "tumour") for template in encoder.templates]
    mean = encoder.embed_text(prompts).mean(0)
    stored = np.array(terms.filter(term="tumour")["vector"][0])
    np.testing.assert_allclose(stored, mean / np.linalg.norm(mean), atol=1e-5)


def test_another_tokenizer_makes_the_scores_again_and_nothing_else(tmp_path, slide, files):
    folder, vocab = files
    entry = recipe("conch/projected", folder, vocab, 'tokenizer = "own.json"\n')
    home = tmp_path / "home"
    home.mkdir()
    own, original = home / "own.json", folder / "conch_byte_level_bpe_uncased.json"
    own.write_bytes(original.read_bytes())
    first, session = run(home, slide, entry, CHOSEN)
    assert first.outcome.status == "ok"
    again, _ = run(home, slide, entry, CHOSEN)
    assert again.unchanged
    words.edited(original, own, normalizer=None)
    account = terms_account(Looking(session.study), session.study.recipes[0])
    assert [change.name for change in account.changes] == ["tokenizer_sha256"]
    before = session.tables.scan("embeddings").collect()
    other, session = run(home, slide, entry, CHOSEN)
    assert not other.unchanged
    assert other.outcome.digest != first.outcome.digest
    assert session.tables.scan("embeddings").collect().equals(before)


def test_where_the_tokenizer_lies_is_no_part_of_what_scores_are(tmp_path, slide, files):
    folder, vocab = files
    beside, _ = run(tmp_path / "home", slide, recipe("conch/projected", folder, vocab), CHOSEN)
    moved = tmp_path / "elsewhere.json"
    (folder / "conch_byte_level_bpe_uncased.json").rename(moved)
    named = recipe("conch/projected", folder, vocab, f'tokenizer = "{moved}"\n')
    result, _ = run(tmp_path / "home", slide, named, CHOSEN)
    assert result.unchanged
    assert result.outcome.digest == beside.outcome.digest


def test_chosen_terms_without_a_tokenizer_fail_with_the_remedy_and_are_made_when_it_comes(tmp_path, slide, files):
    folder, vocab = files
    tokenizer = folder / "conch_byte_level_bpe_uncased.json"
    content = tokenizer.read_bytes()
    tokenizer.unlink()
    entry = recipe("conch/projected", folder, vocab)
    result, session = run(tmp_path / "home", slide, entry, CHOSEN)
    outcome = session.tables.scan("outcomes").collect().filter(step="text_similarity").row(0, named=True)
    assert (outcome["status"], outcome["reason"]) == ("failed", "tokenizer_missing")
    assert "mahmoodlab/CONCH" in outcome["remedy"]
    tokenizer.write_bytes(content)
    result, _ = run(tmp_path / "home", slide, entry, CHOSEN)
    assert result.outcome.status == "ok"


def test_terms_that_nobody_chose_leave_a_flag_and_are_made_when_the_tokenizer_comes(tmp_path, slide, files):
    folder, vocab = files
    tokenizer = folder / "conch_byte_level_bpe_uncased.json"
    content = tokenizer.read_bytes()
    tokenizer.unlink()
    entry = recipe("conch/projected", folder, vocab)
    result, session = run(tmp_path / "home", slide, entry)
    assert (result.outcome.status, result.outcome.reason) == ("flagged", "tokenizer_missing")
    assert "terms = []" in result.outcome.remedy
    assert session.tables.scan("text_scores").collect().is_empty()
    again, _ = run(tmp_path / "home", slide, entry)
    assert again.unchanged, "nothing has changed that would let words be read"
    tokenizer.write_bytes(content)
    result, session = run(tmp_path / "home", slide, entry)
    assert result.outcome.status == "ok"
    assert len(session.tables.scan("text_scores").collect()) > 0


@pytest.mark.parametrize(("text", "status"), [(CHOSEN, "failed"), ("", "flagged")])
def test_vectors_outside_the_words_space_are_refused_by_name_of_the_encoder_to_take(
    tmp_path, slide, files, text, status
):
    folder, vocab = files
    result, _ = run(tmp_path / "home", slide, recipe("conch", folder, vocab), text)
    assert (result.outcome.status, result.outcome.reason) == (status, "text_tower_missing")
    assert "before the projection to the space of words" in result.outcome.message
    assert "conch/projected" in result.outcome.remedy


def test_a_file_of_pictures_alone_is_refused_with_what_is_missing(tmp_path, slide, files):
    from safetensors.torch import load_file

    folder, vocab = files
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if key.startswith("visual.")}, folder / "model.safetensors")
    result, _ = run(tmp_path / "home", slide, recipe("conch/projected", folder, vocab), CHOSEN)
    assert (result.outcome.status, result.outcome.reason) == ("failed", "weights_mismatch")
    assert "missing" in result.outcome.message


def test_encoders_that_never_saw_words_are_not_asked_for_them(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[[recipes]]\nencoder = "uni"\n[[recipes]]\nencoder = "conch"\n')
    asked = {node.recipe.encoder for node in chain(Study(tmp_path)) if str(node.step) == "text_similarity"}
    assert asked == {"conch"}
    (tmp_path / CONFIG_FILE).write_text('[text]\nterms = []\n[[recipes]]\nencoder = "conch"\n')
    assert not [node for node in chain(Study(tmp_path)) if str(node.step) == "text_similarity"]


def test_the_tokenizers_path_is_read_from_the_studys_folder(tmp_path):
    (tmp_path / CONFIG_FILE).write_text('[[recipes]]\nencoder = "plip"\ntokenizer = "words/tokenizer.json"\n')
    assert Study(tmp_path).recipes[0].tokenizer == str(tmp_path / "words/tokenizer.json")
