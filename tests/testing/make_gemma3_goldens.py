#!/usr/bin/env python3
"""Makes tests/data/micro-gemma3: a Gemma 3 text checkpoint of random weights, and what Hugging Face transformers computes from it.

  python3 -m venv VENV && VENV/bin/pip install torch==2.13.0 transformers==5.23.0
  VENV/bin/python tests/testing/make_gemma3_goldens.py tests/data/micro-gemma3                   as the committed files were made
  VENV/bin/python tests/testing/make_gemma3_goldens.py OUT --against tests/data/micro-gemma3     also compares; exit 1 beyond --tolerance

Made with Python 3.11, torch 2.13.0 (CPU) and transformers 5.23.0. The weights come from torch's generator with the fixed seed below. For the
goldens the folder is loaded like any other checkpoint; arithmetic is float32 on the bf16 weights, attention eager, one thread, no KV cache.

config.json is spelled as Google's 1B model is, sizes aside. Seven layers hold one of full attention (the sixth), and every number that may be
confused with another differs from it: query_pre_attn_scalar is not head_dim, heads * head_dim is not hidden_size, the two RoPE bases differ and
only full attention is scaled. Norm weights are around 0 with a deviation of 0.3, so that the 1 which is added to them counts.

goldens.json         prompts: ids, <bos> first; the last one reaches far beyond the window
                     greedy: the GREEDY_LENGTH ids that follow each; greedy_min_margin: the smallest gap between the best two logits on the way
                     windows: ids sampled from the model itself, so that no model predicts them better than this one
                     windows_nll: of each window the sum of -ln(probability) of all its ids but the first
goldens.safetensors  p{i}.logits [rows, vocabulary]: every row of prompts up to FULL_ROWS ids, of others the last
                     p{i}.top_values, p{i}.top_ids [ids, BEST] of prompts longer than FULL_ROWS: the largest logits of every row, falling
"""
import argparse
import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
TOKENIZER_FOLDER = DATA / "micro-e4b"  # 2304 pieces; a tokenizer needs at least one for every row of the vocabulary
COPIED = ("tokenizer.model", "generation_config.json", "chat_template.jinja")
DROPPED = ("added_tokens_decoder", "extra_special_tokens", "processor_class",
           "image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token")
SEED = 3  # no greedy decision of the prompts is close, and their continuations are varied
PROMPT_LENGTHS = (1, 7, 33, 100)
FULL_ROWS = 8
BEST = 48  # as many as keep the folder below 500 KB
GREEDY_LENGTH = 32
WINDOWS = 2
WINDOW_LENGTH = 256

CONFIG = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 10],
    "final_logit_softcapping": None,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rope_theta": 1000000,
    "sliding_window": 8,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 2048,
}
# Logits have a deviation of about 2, most of it from the layers: a token's own embedding must not make it its own successor.
EMBEDDING_STD = 0.12
NORM_STD = 0.3
FINAL_NORM_MEAN = 3
# Before it: control pieces and bytes, which clients do not print as they are. Small rows keep them from being the best.
FIRST_TEXT_ID = 278


def random_weights():
    """Names and order of the published checkpoints. Matrices keep the size of what they multiply."""
    generator = torch.Generator().manual_seed(SEED)

    def normal(std, *shape, mean=0):
        return (torch.randn(shape, generator=generator) * std + mean).to(torch.bfloat16)

    def matrix(rows, columns):
        return normal(columns ** -0.5, rows, columns)

    hidden, ffn, head_dim = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    queries, keys = CONFIG["num_attention_heads"] * head_dim, CONFIG["num_key_value_heads"] * head_dim
    weights = {"embed_tokens.weight": normal(EMBEDDING_STD, CONFIG["vocab_size"], hidden)}
    weights["embed_tokens.weight"][:FIRST_TEXT_ID] /= 4
    for layer in range(CONFIG["num_hidden_layers"]):
        weights |= {f"layers.{layer}.{name}.weight": values for name, values in {
            "input_layernorm": normal(NORM_STD, hidden),
            "mlp.down_proj": matrix(hidden, ffn),
            "mlp.gate_proj": matrix(ffn, hidden),
            "mlp.up_proj": matrix(ffn, hidden),
            "post_attention_layernorm": normal(NORM_STD, hidden),
            "post_feedforward_layernorm": normal(NORM_STD, hidden),
            "pre_feedforward_layernorm": normal(NORM_STD, hidden),
            "self_attn.k_norm": normal(NORM_STD, head_dim),
            "self_attn.k_proj": matrix(keys, hidden),
            "self_attn.o_proj": matrix(hidden, queries),
            "self_attn.q_norm": normal(NORM_STD, head_dim),
            "self_attn.q_proj": matrix(queries, hidden),
            "self_attn.v_proj": matrix(keys, hidden),
        }.items()}
    weights["norm.weight"] = normal(NORM_STD, hidden, mean=FINAL_NORM_MEAN)
    return {"model." + name: values for name, values in weights.items()}


def write_checkpoint(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(random_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    for name in COPIED:
        shutil.copyfile(TOKENIZER_FOLDER / name, folder / name)
    # Without the list of the added tokens, which is long and which tokenizer.model has as well, and without the tokens of pictures and sounds.
    tokenizer = json.loads((TOKENIZER_FOLDER / "tokenizer_config.json").read_text())
    tokenizer = {key: value for key, value in tokenizer.items() if key not in DROPPED}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")


def open_model(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:
        sys.exit(f"not the weights of this model: {info}")
    rope = model.config.rope_parameters
    full = [layer for layer, kind in enumerate(model.config.layer_types) if kind == "full_attention"]
    if full != [5] or rope["full_attention"] != {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000} \
            or rope["sliding_attention"] != {"rope_type": "default", "rope_theta": 10000}:
        sys.exit(f"config.json is not understood as it is meant: {model.config}")
    return model.eval()


def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def greedy(model, ids):
    ids, new, smallest = list(ids), [], float("inf")
    for _ in range(GREEDY_LENGTH):
        best = logits_of(model, ids)[-1].topk(2)
        smallest = min(smallest, (best.values[0] - best.values[1]).item())
        new.append(best.indices[0].item())
        ids.append(new[-1])
    return new, smallest


def sample(model, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = [CONFIG["bos_token_id"]]
    while len(ids) < WINDOW_LENGTH:
        ids.append(torch.multinomial(logits_of(model, ids)[-1].double().softmax(-1), 1, generator=generator).item())
    return ids


def negative_log_likelihood(model, ids):
    log_probs = logits_of(model, ids[:-1]).double().log_softmax(-1)
    return -log_probs.gather(1, torch.tensor(ids[1:])[:, None]).sum().item()


def make_goldens(model, prompts):
    tensors, margins = {}, []
    document = {"transformers": transformers.__version__, "torch": torch.__version__, "prompts": prompts, "greedy": []}
    for p, ids in enumerate(prompts):
        logits = logits_of(model, ids)
        tensors[f"p{p}.logits"] = logits if len(ids) <= FULL_ROWS else logits[-1:]
        if len(ids) > FULL_ROWS:
            best = logits.topk(BEST)
            tensors |= {f"p{p}.top_values": best.values, f"p{p}.top_ids": best.indices.to(torch.int32)}
        new, smallest = greedy(model, ids)
        document["greedy"].append(new)
        margins.append(smallest)
        print(f"prompt {p}: {len(ids)} ids, logits {logits.min():.2f} to {logits.max():.2f}, deviation {logits.std():.2f}; "
              f"{len(set(new))} different ids follow, smallest gap {smallest:.4f}")
    windows = [sample(model, seed) for seed in range(WINDOWS)]
    nll = [negative_log_likelihood(model, ids) for ids in windows]
    predicted = WINDOWS * (WINDOW_LENGTH - 1)
    print(f"windows: perplexity {torch.tensor(sum(nll) / predicted).exp():.3f}")
    document |= {"greedy_min_margin": margins, "windows": windows, "windows_nll": nll}
    return {name: values.contiguous().clone() for name, values in tensors.items()}, document


def compare(folder, against):
    """The largest absolute difference of any golden number, and what else is not the same."""
    new, old = (load_file(f / "goldens.safetensors") for f in (folder, against))
    worst = max((new[name] - old[name]).abs().max().item() for name in old if not name.endswith("_ids"))
    new, old = (json.loads((f / "goldens.json").read_text()) for f in (folder, against))
    worst = max([worst] + [abs(a - b) / WINDOW_LENGTH for a, b in zip(new["windows_nll"], old["windows_nll"], strict=True)])
    others = [key for key in ("prompts", "greedy", "windows") if new[key] != old[key]]
    others += [f.name for f in sorted(against.iterdir()) if "goldens" not in f.name and f.read_bytes() != (folder / f.name).read_bytes()]
    return worst, others


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)

    write_checkpoint(args.out)
    text = json.loads((DATA / "goldens" / "inputs.json").read_text())["prompts"][-1]  # of the same tokenizer
    tensors, document = make_goldens(open_model(args.out), [text[:length] for length in PROMPT_LENGTHS])
    save_file(tensors, args.out / "goldens.safetensors")
    lines = [f'"{key}": {json.dumps(value)}' for key, value in document.items()]
    (args.out / "goldens.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if not args.against:
        return 0
    worst, others = compare(args.out, args.against)
    print(f"largest difference {worst:.3g}; not the same: {', '.join(others) or 'nothing'}")
    return 1 if others or worst > args.tolerance else 0


if __name__ == "__main__":
    sys.exit(main())
