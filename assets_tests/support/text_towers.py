"""Tokenizers of a few words, and text towers written a second time from their papers, in the names that checkpoints use."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

from support import reference_networks as ref

State = dict[str, Tensor]

TEXTS = (
    "mucosa",
    "an H&E image of adipose tissue",
    "Lymphocytes, and tumour cells; no necrosis!",
    "",
    "βeta-catenin ☃ 组织",
    "tumour stroma " * 40,
)
CORPUS = ["mucosa", "adipose tissue", "lymphocytes", "tumour stroma", "necrosis", "an H&E image of blood vessels"]


def byte_pairs(path: Path, begin: str, end: str, *, size: int = 320, clip: bool = True) -> Tokenizer:
    """A BPE tokenizer of bytes, trained on a few words; begin and end are its last tokens, as in CLIP."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>" if clip else None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>" if clip else None,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([begin, end])
    tokenizer.save(str(path))
    return tokenizer


def conch_like(path: Path) -> Tokenizer:
    """Padding, begin and end first, and a template that adds them, as CONCH's file has it."""
    from tokenizers import processors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<pad>", "<start_of_text>", "<end_of_text>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>", special_tokens=[("<start_of_text>", 1), ("<end_of_text>", 2)]
    )
    tokenizer.save(str(path))
    return tokenizer


BERT_WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mu", "##cos", "##a", "adipose", "tissue", "an", "h", "&", "e", "image", "of",
    "tumour", "stroma", "lymphocytes", ",", "and", "cells", ";", "no", "necrosis", "!", "beta", "-", "组", "织",
)  # fmt: skip


def word_pieces(path: Path) -> Path:
    """BERT's `vocab.txt` of a few words, its special tokens where PubMedBERT has them."""
    path.write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    return path


def sentence_pieces(path: Path, *, size: int = 64) -> Path:
    """A sentencepiece model of a few words."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=model, vocab_size=size, minloglevel=2, hard_vocab_limit=False
    )
    path.write_bytes(model.getvalue())
    return path


def edited(path: Path, to: Path, **changes: object) -> Path:
    """A tokenizer.json with other entries."""
    to.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return to


# -- CONCH: a batch of padded texts, a mask for the last row, torch's own attention -----------------------------------------


def conch(
    width: int, vocab: int, context: int, out: int, layers: int, heads: int
) -> tuple[State, list[torch.nn.Module]]:
    """Weights in CONCH's names, and torch's attention layers that have them; `context` leaves out the class token's place."""
    state: State = {
        "text.token_embedding.weight": ref.numbers(vocab, width),
        "text.positional_embedding": ref.numbers(context + 1, width),
        "text.cls_emb": ref.numbers(width),
        "text.text_projection": ref.numbers(width, out),
        "logit_scale": torch.tensor(3.0),
        "visual.proj_contrast": ref.numbers(4, 4),
        "text_decoder.text_projection": ref.numbers(4, 4),
    }
    ref.norms(state, "text.ln_final", width=width)
    attentions: list[torch.nn.Module] = []
    for layer in range(layers):
        name = f"text.transformer.resblocks.{layer}"
        attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        with torch.no_grad():
            for weight in attention.parameters():
                weight.copy_(ref.numbers(*weight.shape))
        state |= {f"{name}.attn.{key}": value for key, value in attention.state_dict().items()}
        ref.norms(state, f"{name}.ln_1", f"{name}.ln_2", width=width)
        ref.dense(state, f"{name}.mlp.c_fc", 4 * width, width)
        ref.dense(state, f"{name}.mlp.c_proj", width, 4 * width)
        attentions.append(attention)
    return state, attentions


def run_conch(state: State, attentions: list[torch.nn.Module], ids: Tensor, heads: int) -> Tensor:
    """Padded numbers of tokens (k, context), 0 where there is none, to (k, out)."""
    batch, length = ids.shape
    x = torch.cat([state["text.token_embedding.weight"][ids], state["text.cls_emb"].expand(batch, 1, -1)], 1)
    x = x + state["text.positional_embedding"]
    causal = torch.ones(length + 1, length + 1).tril().bool()
    seen = causal.expand(batch, -1, -1).clone()
    # The class token's row alone knows of padding, and takes each token's neighbour for the token.
    seen[:, -1] = torch.cat([torch.ones(batch, 1, dtype=torch.bool), ids != 0], 1)
    hidden = (~seen).repeat_interleave(heads, 0)
    for layer, attention in enumerate(attentions):
        name = f"text.transformer.resblocks.{layer}"
        y = ref.norm(state, f"{name}.ln_1", x, 1e-5)
        x = x + attention(y, y, y, attn_mask=hidden, need_weights=False)[0]
        y = functional.gelu(ref.linear(state, f"{name}.mlp.c_fc", ref.norm(state, f"{name}.ln_2", x, 1e-5)))
        x = x + ref.linear(state, f"{name}.mlp.c_proj", y)
    return ref.norm(state, "text.ln_final", x[:, -1], 1e-5) @ state["text.text_projection"]


# -- MUSK: the branch B of BEiT-3, padding masked -------------------------------------------------------------------------


def musk(width: int, vocab: int, places: int, out: int, layers: int) -> State:
    """Both branches in MUSK's names; `places` without the two that fairseq leaves free."""
    state: State = {}
    for layer in range(layers):
        one = ref.beit3(width, 16, 16)
        state |= {key.replace("layers.0.", f"layers.{layer}."): value for key, value in one.items()}
    state["beit3.text_embed.weight"] = ref.numbers(vocab, width)
    state["beit3.encoder.embed_positions.B.weight"] = ref.numbers(places + 2, width)
    state["language_head.weight"] = ref.numbers(out, width)
    state["logit_scale"] = torch.tensor(2.0)
    return state


def run_musk(state: State, ids: Tensor, padding: Tensor, heads: int, layers: int) -> Tensor:
    """Padded numbers of tokens (k, n) and where there is padding (k, n) to (k, out)."""
    x = state["beit3.text_embed.weight"][ids] + state["beit3.encoder.embed_positions.B.weight"][2 : 2 + ids.shape[1]]
    x = x * ~padding[..., None]
    unseen = torch.zeros(padding.shape).masked_fill(padding, float("-inf"))[:, None, None]
    for layer in range(layers):
        name = f"beit3.encoder.layers.{layer}"
        y = ref.norm(state, f"{name}.self_attn_layer_norm.B", x, 1e-5)
        q, k, v = (ref.linear(state, f"{name}.self_attn.{part}_proj.B", y) for part in "qkv")
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + unseen).softmax(-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        y = ref.norm(state, f"{name}.self_attn.inner_attn_ln.B", y, 1e-5)
        x = x + ref.linear(state, f"{name}.self_attn.out_proj.B", y)
        y = ref.norm(state, f"{name}.final_layer_norm.B", x, 1e-5)
        y = functional.gelu(ref.linear(state, f"{name}.ffn.B.fc1", y))
        x = x + ref.linear(state, f"{name}.ffn.B.fc2", ref.norm(state, f"{name}.ffn.B.ffn_layernorm", y, 1e-5))
    return ref.linear(state, "language_head", ref.norm(state, "beit3.encoder.layer_norm.B", x, 1e-5)[:, 0])
