"""The language model's weights as prefill and decode step read them.

How it works: projections of the same input are joined, so that a layer is four matrix products instead of
nine, and a LoRA adapter is added to the copy in fp32 before it is rounded to the model's type. The network
itself stays as it is; its picture tower is used as it stands, adapter included.

Guarantees:
- A network whose arithmetic this package does not know is refused with the reason (`refusal`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Tensor = Any
MODEL_TYPE = "qwen3_5"
ARCHITECTURE = "Qwen3_5ForConditionalGeneration"


@dataclass(frozen=True)
class Sizes:
    """Numbers of one decoder.

    Args:
        hidden, vocab: Width of the residual stream, number of logits.
        query_heads, kv_heads, head_dim, rotary: Of the full attention; `rotary` dimensions are turned.
        key_heads, value_heads, key_dim, value_dim, taps: Of the gated delta rule and its convolution.
        eps: Added under the root of every norm.
    """

    hidden: int
    vocab: int
    query_heads: int
    kv_heads: int
    head_dim: int
    rotary: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    taps: int
    eps: float

    @property
    def channels(self) -> int:
        """Return the channels of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class Mlp:
    """Norm weights are 1 + w in fp32; `gate_up` holds both projections, one behind the other."""

    norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class DeltaLayer:
    """A layer with the gated delta rule.

    `into` holds the projections qkv, z, b and a. `kernel` is (taps, channels). `decay` is -exp(A) in fp32."""

    norm: Tensor
    into: Tensor
    kernel: Tensor
    decay: Tensor
    bias: Tensor
    gate_norm: Tensor
    out: Tensor
    mlp: Mlp


@dataclass(frozen=True)
class AttentionLayer:
    """A layer with full attention. `into` holds the projections of queries with gates, keys and values."""

    norm: Tensor
    into: Tensor
    query_norm: Tensor
    key_norm: Tensor
    out: Tensor
    mlp: Mlp


@dataclass(frozen=True)
class Weights:
    """All of one decoder; `frequencies` are those of the rotary embedding, in fp32."""

    sizes: Sizes
    embed: Tensor
    layers: tuple[DeltaLayer | AttentionLayer, ...]
    norm: Tensor
    head: Tensor
    frequencies: Tensor


def base_of(model: Any) -> Any:
    """Return the transformers class below an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def refusal(model: Any) -> str | None:
    """Return why a network cannot be run by this package; None if it can."""
    base = base_of(model)
    config = getattr(base, "config", None)
    if getattr(config, "model_type", None) != MODEL_TYPE or type(base).__name__ != ARCHITECTURE:
        return f"it takes {ARCHITECTURE} and not {type(base).__name__}"
    text = base.config.get_text_config()
    rope = text.rope_parameters
    if text.hidden_act != "silu" or text.attention_bias or rope.get("rope_type", "default") != "default":
        return "it takes SiLU, projections without bias and the default rotary embedding"
    decoder = base.model.language_model
    if len({each.device for each in base.parameters()}) > 1:
        return "the model lies on several devices"
    for name, module in decoder.named_modules():
        if name.endswith(("_proj", ".in_proj_qkv", ".in_proj_z", ".in_proj_a", ".in_proj_b")):
            reason = _linear_refusal(module)
            if reason is not None:
                return f"layer {name}: {reason}"
    if type(decoder.embed_tokens).__name__ != "Embedding" or type(base.lm_head).__name__ != "Linear":
        return "the embedding or the head has an adapter"
    return None


def compute_type(model: Any) -> Any:
    """Return the type in which a network computes: that of autocast within it, else that of its weights."""
    import torch

    weight = base_of(model).model.language_model.embed_tokens.weight
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _linear_refusal(module: Any) -> str | None:
    """Return why a projection's weight cannot be read; None if it can."""
    inner = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    if type(inner).__name__ != "Linear" or not inner.weight.is_floating_point():
        return f"{type(inner).__name__} is no plain projection"
    if inner is not module:
        if not hasattr(module, "lora_A"):
            return f"{type(module).__name__} is no LoRA"
        if any(getattr(module, "use_dora", {}).values()) or any(getattr(module, "lora_bias", {}).values()):
            return "DoRA and LoRA with bias are not merged"
    return None


def merged(module: Any, dtype: Any) -> Tensor:
    """Return a projection's weight with its active adapters, added in fp32."""
    if not hasattr(module, "get_base_layer"):
        return module.weight.detach().to(dtype)
    weight = module.get_base_layer().weight.detach()
    if module.merged or module.disable_adapters:
        return weight.to(dtype)
    for name in module.active_adapters:
        if name in module.lora_A:
            weight = weight.float() + module.get_delta_weight(name).detach().float()
    return weight.to(dtype)


def read(model: Any, dtype: Any) -> Weights:
    """Return the weights of a network that `refusal` takes.

    Args:
        model: The network, with or without an adapter.
        dtype: Type of the matrix products.
    """
    import torch

    with torch.no_grad():
        base = base_of(model)
        decoder = base.model.language_model
        text = base.config.get_text_config()
        embed = decoder.embed_tokens.weight.detach().to(dtype)
        tied = base.lm_head.weight is decoder.embed_tokens.weight
        return Weights(
            sizes=_sizes(text, decoder),
            embed=embed,
            layers=tuple(_layer(each, dtype) for each in decoder.layers),
            norm=_zero_centred(decoder.norm),
            head=embed if tied else base.lm_head.weight.detach().to(dtype),
            frequencies=decoder.rotary_emb.inv_freq.detach().float(),
        )


def _sizes(text: Any, decoder: Any) -> Sizes:
    return Sizes(
        hidden=text.hidden_size,
        vocab=text.vocab_size,
        query_heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        rotary=2 * decoder.rotary_emb.inv_freq.numel(),
        key_heads=text.linear_num_key_heads,
        value_heads=text.linear_num_value_heads,
        key_dim=text.linear_key_head_dim,
        value_dim=text.linear_value_head_dim,
        taps=text.linear_conv_kernel_dim,
        eps=text.rms_norm_eps,
    )


def _layer(layer: Any, dtype: Any) -> DeltaLayer | AttentionLayer:
    mlp = Mlp(
        norm=_zero_centred(layer.post_attention_layernorm),
        gate_up=_joined((layer.mlp.gate_proj, layer.mlp.up_proj), dtype),
        down=merged(layer.mlp.down_proj, dtype),
    )
    norm = _zero_centred(layer.input_layernorm)
    if layer.block_type == "full_attention":
        part = layer.self_attn
        return AttentionLayer(
            norm=norm,
            into=_joined((part.q_proj, part.k_proj, part.v_proj), dtype),
            query_norm=_zero_centred(part.q_norm),
            key_norm=_zero_centred(part.k_norm),
            out=merged(part.o_proj, dtype),
            mlp=mlp,
        )
    part = layer.linear_attn
    return DeltaLayer(
        norm=norm,
        into=_joined((part.in_proj_qkv, part.in_proj_z, part.in_proj_b, part.in_proj_a), dtype),
        kernel=part.conv1d.weight.detach().squeeze(1).t().contiguous().to(dtype),
        decay=-part.A_log.detach().float().exp(),
        bias=part.dt_bias.detach().float(),
        gate_norm=part.norm.weight.detach().float(),
        out=merged(part.out_proj, dtype),
        mlp=mlp,
    )


def _joined(modules: tuple[Any, ...], dtype: Any) -> Tensor:
    import torch

    return torch.cat([merged(each, dtype) for each in modules])


def _zero_centred(norm: Any) -> Tensor:
    """Return the factor of a norm whose weight is learned around zero, in fp32."""
    return 1.0 + norm.weight.detach().float()
