"""Layouts of published checkpoints: which of their tensors are the text tower's, and how they are named here.

Belongs here: one `TextLayout` for each way of naming. Does not belong: the pictures' side of the same files (`keymaps`).
What belongs to the words must all find a place, and what is not theirs is nobody's concern here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pathassets.encoders.keymaps import HF_CLIP_BLOCK, WRAPPED, Rules, State, fused, renamed

SCALES = ("logit_scale", "logit_bias")


@dataclass(frozen=True)
class TextLayout:
    """How the words' side of a checkpoint is read.

    Attributes:
        ours: Names of the words' side, from their beginning.
        rules: Regular expressions and what replaces them, applied in order.
        unused: Names of the words' side (as they are in the file) for which there is no use.
        after: Changes tensors when names are ours.
    """

    ours: str
    rules: Rules
    unused: str = r"$^"
    after: Callable[[State], State] = dict


def translate(state: State, layout: str, *, bias: bool) -> State:
    """The words' tensors of a checkpoint under the names of `networks`.

    Args:
        state: The file's tensors, of pictures and words.
        layout: A name in `LAYOUTS`.
        bias: Whether the tower has a bias beside its scale.
    """
    how = LAYOUTS[layout]
    bare = {re.sub(WRAPPED, "", key): value for key, value in state.items()}
    scales = {name: bare[name].reshape(()) for name in SCALES if name in bare and (bias or name != "logit_bias")}
    words = {name: value for name, value in bare.items() if re.match(how.ours, name) and not re.match(how.unused, name)}
    return how.after(fused({renamed(how.rules, name): value for name, value in words.items()})) | scales


def _projected(state: State) -> State:
    """OpenAI's projections are saved the other way round."""
    found = dict(state)
    if "head.transposed" in found:
        found["head.weight"] = found.pop("head.transposed").T.contiguous()
    return found


def _without_padding(state: State) -> State:
    """The first two positions are fairseq's padding."""
    return {name: value[2:] if name == "positions" else value for name, value in state.items()}


_HF_BLOCKS: Rules = (
    (r"^text_model\.embeddings\.token_embedding\.", "tokens."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positions"),
    (r"^text_model\.encoder\.layers\.", "blocks."),
    *HF_CLIP_BLOCK,
    (r"^text_model\.final_layer_norm\.", "norm."),
)
_HF_UNUSED = r"^text_model\.embeddings\.position_ids$"
_BERT: Rules = ((r"^text\.proj\.", "head."), (r"^text\.(transformer\.)?", "bert."))
_BERT_UNUSED = r"^text\.(transformer\.)?embeddings\.position_ids$"

LAYOUTS: dict[str, TextLayout] = {
    "hf-clip": TextLayout(r"^text_(model\.|projection\.)", (*_HF_BLOCKS, (r"^text_projection\.", "head.")), _HF_UNUSED),
    "hf-siglip": TextLayout(r"^text_model\.", (*_HF_BLOCKS, (r"^text_model\.head\.", "head.")), _HF_UNUSED),
    "open-clip": TextLayout(
        r"^(text\.|token_embedding\.|positional_embedding$|transformer\.|ln_final\.|text_projection$)",
        (
            (r"^text\.", ""),
            (r"^token_embedding\.", "tokens."),
            (r"^positional_embedding$", "positions"),
            (r"^cls_emb$", "cls"),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"\.attn\.in_proj_", ".attn.qkv."),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
            (r"^ln_final\.", "norm."),
            (r"^text_projection$", "head.transposed"),
        ),
        r"^(text\.)?attn_mask$",
        _projected,
    ),
    "beit3": TextLayout(
        r"^(beit3\.text_embed\.|beit3\.encoder\..*\.B\.|language_head\.)",
        (
            (r"^beit3\.text_embed\.", "tokens."),
            (r"^beit3\.encoder\.embed_positions\.B\.weight$", "positions"),
            (r"^beit3\.encoder\.layers\.", "blocks."),
            (r"^beit3\.encoder\.layer_norm\.B\.", "norm."),
            (r"^language_head\.", "head."),
            (r"\.B\.", "."),
            (r"\.self_attn_layer_norm\.", ".norm1."),
            (r"\.final_layer_norm\.", ".norm2."),
            (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
            (r"\.self_attn\.(q|k|v)_proj\.", r".attn.\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
            (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
            (r"\.ffn\.", ".mlp."),
        ),
        after=_without_padding,
    ),
    "bert": TextLayout(r"^text\.", _BERT, rf"{_BERT_UNUSED}|^text\.transformer\.pooler\."),
    # A pooler in the file would say that its vectors are the pooler's, which is not what is known of it.
    "bert-plain": TextLayout(r"^text\.", _BERT, _BERT_UNUSED),
}
