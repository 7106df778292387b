"""Tiny random models of many architectures, built in the test."""

import torch
import transformers as tf


VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {**SIZES, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
SPECIAL = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 4, "sep_token_id": 5}
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}

CONFIGS = {
    "qwen2-tied": lambda: tf.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2-untied": lambda: tf.Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": lambda: tf.Qwen3Config(**HEADS, tie_word_embeddings=True),
    "llama": lambda: tf.LlamaConfig(**SIZES),
    "mistral-sliding": lambda: tf.MistralConfig(**HEADS, sliding_window=8),
    "gemma2": lambda: tf.Gemma2Config(**HEADS, sliding_window=8, query_pre_attn_scalar=8),
    "gemma3": lambda: tf.Gemma3TextConfig(**HEADS, sliding_window=8, query_pre_attn_scalar=8),
    "phi2": lambda: tf.PhiConfig(**SIZES),
    "phi3": lambda: tf.Phi3Config(**SIZES),
    "gpt2": lambda: tf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "mixtral": lambda: tf.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen3-moe": lambda: tf.Qwen3MoeConfig(**HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "olmo2": lambda: tf.Olmo2Config(**SIZES),
    "cohere-logit-scale": lambda: tf.CohereConfig(**SIZES),
    "granite-multipliers": lambda: tf.GraniteConfig(
        **SIZES, logits_scaling=4.0, embedding_multiplier=2.0, residual_multiplier=0.5
    ),
    "opt-projections": lambda: tf.OPTConfig(
        **SMALL, ffn_dim=48, num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=16
    ),
    "gpt-neox": lambda: tf.GPTNeoXConfig(
        **SMALL, intermediate_size=48, num_attention_heads=4, max_position_embeddings=64
    ),
    "bloom-alibi": lambda: tf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: tf.MambaConfig(**SMALL, state_size=4),
    "deepseek-v3-latent-attention": lambda: tf.DeepseekV3Config(
        **SIZES,
        **EXPERTS,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=4,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    ),
    "qwen2-moe-shared-expert": lambda: tf.Qwen2MoeConfig(
        **SIZES, **EXPERTS, num_experts=4, shared_expert_intermediate_size=16
    ),
    "gemma3n-in-place": lambda: tf.Gemma3nTextConfig(
        **HEADS,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY,
        laurel_rank=4,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=8,
        activation_sparsity_pattern=[0.0, 0.0],
    ),
    "mamba2-gated-norm": lambda: tf.Mamba2Config(
        **SMALL, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8
    ),
    "modernbert-head-called-decoder": lambda: tf.ModernBertDecoderConfig(
        **SMALL, intermediate_size=48, num_attention_heads=4, local_attention=8, **SPECIAL
    ),
    "llama4-backbone-not-declared": lambda: tf.Llama4TextConfig(
        **HEADS, intermediate_size_mlp=48, num_local_experts=4, num_experts_per_tok=1, moe_layers=[1]
    ),
    "falcon": lambda: tf.FalconConfig(**SMALL, num_attention_heads=4),
}


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """A random model whose every parameter, norms and biases included, is away from its initial constant."""
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()
