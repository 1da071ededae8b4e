#!/usr/bin/env python3
"""A GGUF of Gemma 3n of any size with random weights, for llama.cpp to be measured on (versus.py --gguf).

  python -m venv build/gguf-venv && build/gguf-venv/bin/pip install gguf
  build/gguf-venv/bin/python tests/bench/make_gguf.py out/e2b/config.json -o out/e2b-q4_0.gguf [--type q4_0|q4_0-pure|bf16] [--seed 1]

Types are those that llama.cpp's own tools would choose for a bfloat16 checkpoint (convert_hf_to_gguf.py, then llama-quantize FILE q4_0):

  Q4_0   matrices of attention, feed-forward and the per-layer gate and projection
  Q6_K   token_embd and per_layer_token_embd: llama-quantize gives a table that is also the output the output's type, and the per-layer table
         counts as a token embedding (--type q4_0-pure: Q4_0 as well, as llama-quantize --pure)
  BF16   altup_*, laurel_*, per_layer_model_proj: llama-quantize leaves them as they are
  F32    norms, vectors and AltUp's coefficients: convert_hf_to_gguf.py

--type bf16 writes what convert_hf_to_gguf.py would; `llama-quantize --dry-run FILE q4_0` then shows the same choice. Blocks are random codes below a
constant scale that gives a matrix [out, in] the deviation 1/sqrt(in), so activations keep their size through the layers. Written in pieces of 16 M
values.
"""
import argparse
import json
import statistics

import gguf
import numpy as np

F32, BF16, Q4_0, Q6_K = (getattr(gguf.GGMLQuantizationType, name) for name in ("F32", "BF16", "Q4_0", "Q6_K"))
PIECE = 1 << 24  # values written at once


def metadata(writer, text):
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_key_length(text["head_dim"])
    writer.add_value_length(text["head_dim"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_sliding_window(text["sliding_window"])
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in text["layer_types"]])
    writer.add_shared_kv_layers(text["num_kv_shared_layers"])
    writer.add_final_logit_softcapping(text["final_logit_softcapping"])
    writer.add_altup_active_idx(text["altup_active_idx"])
    writer.add_altup_num_inputs(text["altup_num_inputs"])
    writer.add_embedding_length_per_layer_input(text["hidden_size_per_layer_input"])
    normal = statistics.NormalDist()
    writer.add_activation_sparsity_scale([normal.inv_cdf(s) if s > 0 else float("-inf") for s in text["activation_sparsity_pattern"]])


def tokenizer(writer, count):
    """Special pieces where Gemma has them, bytes, and made-up words."""
    kinds = gguf.TokenType
    pieces = [("<pad>", kinds.CONTROL), ("<eos>", kinds.CONTROL), ("<bos>", kinds.CONTROL), ("<unk>", kinds.UNKNOWN)]
    pieces += [(f"<unused{i}>", kinds.USER_DEFINED) for i in range(101)] + [("<start_of_turn>", kinds.CONTROL), ("<end_of_turn>", kinds.CONTROL)]
    pieces += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    pieces += [(f"w{i}", kinds.NORMAL) for i in range(count - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([-float(i) for i in range(count)])
    writer.add_token_types([kind for _, kind in pieces])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def tensors(text):
    """-> (name, shape as in the checkpoint, kind); kind is table, matrix, float (kept in 16 bits), coefs or norm."""
    hidden, per_layer, streams = text["hidden_size"], text["hidden_size_per_layer_input"], text["altup_num_inputs"]
    layers, vocabulary, rank, head = text["num_hidden_layers"], text["vocab_size"], text["laurel_rank"], text["head_dim"]
    queries, keys = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    yield "token_embd", [vocabulary, hidden], "table"
    yield "per_layer_token_embd", [vocabulary, layers * per_layer], "table"  # padded to vocab_size, as convert_hf_to_gguf.py does
    yield "per_layer_model_proj", [layers * per_layer, hidden], "float"
    yield "per_layer_proj_norm", [per_layer], "norm"
    yield "altup_proj", [streams - 1, hidden, hidden], "float"
    yield "altup_unembd_proj", [streams - 1, hidden, hidden], "float"
    yield "output_norm", [hidden], "norm"
    for layer in range(layers):
        ffn = text["intermediate_size"]
        ffn = ffn[layer] if isinstance(ffn, list) else ffn
        for name, shape, kind in (
                ("attn_q", [queries, hidden], "matrix"), ("attn_k", [keys, hidden], "matrix"), ("attn_v", [keys, hidden], "matrix"),
                ("attn_output", [hidden, queries], "matrix"), ("attn_q_norm", [head], "norm"), ("attn_k_norm", [head], "norm"),
                ("ffn_gate", [ffn, hidden], "matrix"), ("ffn_up", [ffn, hidden], "matrix"), ("ffn_down", [hidden, ffn], "matrix"),
                ("inp_gate", [per_layer, hidden], "matrix"), ("proj", [hidden, per_layer], "matrix"),
                ("laurel_l", [rank, hidden], "float"), ("laurel_r", [hidden, rank], "float"), ("altup_router", [streams, hidden], "float"),
                ("altup_predict_coef", [streams * streams, streams], "coefs"), ("altup_correct_coef", [streams, streams], "coefs"),
                ("altup_correct_scale", [hidden], "norm"), ("altup_router_norm", [hidden], "norm"), ("attn_norm", [hidden], "norm"),
                ("post_attention_norm", [hidden], "norm"), ("ffn_norm", [hidden], "norm"), ("post_ffw_norm", [hidden], "norm"),
                ("laurel_post_norm", [hidden], "norm"), ("post_norm", [hidden], "norm")):
            yield f"blk.{layer}.{name}", shape, kind


def type_of(kind, wanted):
    if kind in ("coefs", "norm"):
        return F32
    if kind == "float" or wanted == "bf16":
        return BF16
    return Q6_K if kind == "table" and wanted == "q4_0" else Q4_0


def mean_and_deviation(name, shape, kind):
    """As tests/testing/checkpoint_generator.cc."""
    if name.endswith(("attn_q_norm", "attn_k_norm")):
        gain = shape[0] ** -0.25  # scores are q.k without 1/sqrt(head_dim)
        return gain, 0.1 * gain
    if kind == "norm":
        return 1, 0.1
    if kind == "coefs":
        return 0, 0.1
    if name.endswith("altup_router"):  # its input is divided by the width
        return 0, 0.35 * shape[-1] ** 0.5
    if name == "per_layer_token_embd":
        return 0, 1 / 16  # rows of 256 values, scaled by sqrt(256) in the model
    return 0, shape[-1] ** -0.5


def values(rng, kind, count, mean, deviation):
    """The bytes of `count` values."""
    if kind == Q4_0:  # 32 values: scale f16, 16 bytes of codes 0 to 15; value = scale * (code - 8)
        blocks = np.frombuffer(rng.bytes(count // 32 * 18), np.uint8).reshape(-1, 18).copy()
        scales = np.where(blocks[:, 0] & 1, 1, -1) * deviation / 4.64  # the sign evens out the codes' mean of -0.5
        blocks[:, :2] = scales.astype("<f2").reshape(-1, 1).view(np.uint8)
        return blocks
    if kind == Q6_K:  # 256 values: 192 bytes of codes, 16 scales i8, scale f16; value = scale * scale * (code - 32)
        blocks = np.frombuffer(rng.bytes(count // 256 * 210), np.uint8).reshape(-1, 210).copy()
        blocks[:, 192:208] = np.where(blocks[:, 192:208] & 1, 16, -16).astype(np.int8).view(np.uint8)
        blocks[:, 208:] = np.full((len(blocks), 1), deviation / (16 * 18.5), "<f2").view(np.uint8)
        return blocks
    floats = (mean + deviation * rng.standard_normal(count, np.float32)).astype("<f4")
    return floats if kind == F32 else (floats.view("<u4") >> 16).astype("<u2")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config.json of a Gemma 3n checkpoint")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--type", choices=["q4_0", "q4_0-pure", "bf16"], default="q4_0")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(args.config) as file:
        config = json.load(file)
    text = config.get("text_config", config)
    writer = gguf.GGUFWriter(args.output, "gemma3n")
    metadata(writer, text)
    tokenizer(writer, text["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if args.type == "bf16" else gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    plan = [(f"{name}.weight", name, shape, type_of(kind, args.type), kind) for name, shape, kind in tensors(text)]
    for full_name, _, shape, dtype, _ in plan:
        block, size = gguf.GGML_QUANT_SIZES[dtype]
        if shape[-1] % block:
            parser.error(f"{full_name}: {dtype.name} needs rows of a multiple of {block} values, not {shape[-1]}")
        writer.add_tensor_info(full_name, shape, np.float32, int(np.prod(shape)) // block * size, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    rng = np.random.default_rng(args.seed)
    writer.write_padding(file, file.tell())
    for _, name, shape, dtype, kind in plan:
        start, count = file.tell(), int(np.prod(shape))
        for done in range(0, count, PIECE):
            file.write(values(rng, dtype, min(PIECE, count - done), *mean_and_deviation(name, shape, kind)).tobytes())
        writer.write_padding(file, file.tell() - start)
    writer.close()


if __name__ == "__main__":
    main()
