#!/usr/bin/env python3
"""Runs Gemma 3 270M from its GGUF file in Hugging Face transformers and writes tests/data/gemma3-270m/goldens.{json,safetensors}.

  make_goldens.py gemma3-270m.gguf tests/data/gemma3-270m                        as the committed files were made
  make_goldens.py gemma3-270m.gguf OUT --full-logits FOLDER                      also every logit of every row, as FOLDER/{prompt}.npy
  make_goldens.py gemma3-270m.gguf OUT --against tests/data/gemma3-270m          also compares; exit 1 beyond --tolerance

The GGUF (Q4_K_M, 253,113,024 bytes) has the SHA-256 below, any other file is refused. transformers unpacks its blocks to float32;
arithmetic is float32, attention eager, one thread, no KV cache. Made with Python 3.11, torch 2.13.0 (CPU), transformers 5.23.0 and
gguf 0.19.0.

goldens.json    prompts: text, ids (<bos> first), rows (those that are kept), logsumexp of each of these rows over the whole vocabulary,
                GREEDY_LENGTH ids that follow greedily (an <eos> does not stop them), the smallest gap between the best two logits on the way
                windows: <bos> and up to WINDOW - 1 ids of the sample text, one after another; the sum of the negative log probabilities
                (natural logarithm, in float64 from float32 logits) of all ids but <bos>
goldens.safetensors, for prompt p, its kept rows in the order of "rows":
                p{p}.every64 [rows, 4096]: the logits of the ids 0, 64, 128, ...
                p{p}.top64_values, p{p}.top64_ids [rows, 64]: the largest logits, falling
"""
import argparse
import hashlib
import json
import pathlib
import sys

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
SAMPLE = pathlib.Path(__file__).resolve().parent.parent / "data" / "kjv-sample.txt"
LOGIT_STRIDE = 64
BEST = 64
GREEDY_LENGTH = 32
WINDOW = 512
MOST_WINDOWS = 16
EVERY_ROW = 3  # the prompt that keeps all its rows
LONG = 7
# The window of the local layers is 512: row 511 still sees <bos> in them, row 512 does not.
LONG_ROWS = [63, 255, 510, 511, 512, 513, 700, -1]

SHORT_PROMPTS = [
    "Water boils at",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "日本の首都は東京です。フランスの首都は",
    "Die Hauptstadt von Deutschland ist",
    "2 + 3 = 5\n4 + 7 = 11\n12 * 3 =",
    "I love pizza 🍕 and coffee ☕! My favourite emoji is 👩‍💻 because",
    "The",
]


def open_model(gguf):
    with open(gguf, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{gguf}: SHA-256 is {found}, the goldens are of {SHA256}")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager")
    return model.eval(), transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def text_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def logits_of(model, ids, rows=0):
    """[rows, vocabulary] of the last rows; 0 means all."""
    return model(torch.tensor([ids]), use_cache=False, logits_to_keep=rows).logits[0]


def greedy(model, ids):
    ids, new, smallest = list(ids), [], float("inf")
    for _ in range(GREEDY_LENGTH):
        best = logits_of(model, ids, rows=1)[0].topk(2)
        smallest = min(smallest, (best.values[0] - best.values[1]).item())
        new.append(best.indices[0].item())
        ids.append(new[-1])
    return new, smallest


def kept_rows(prompt, length):
    rows = {EVERY_ROW: list(range(length)), LONG: LONG_ROWS}.get(prompt, [-1])
    return [row % length for row in rows]


def prompt_goldens(model, tokenizer, prompt, text, full_logits):
    ids = [tokenizer.bos_token_id] + text_ids(tokenizer, text)
    logits = logits_of(model, ids)
    if full_logits:
        numpy.save(full_logits / f"{prompt}.npy", logits.numpy())
    rows = kept_rows(prompt, len(ids))
    kept = logits[rows]
    best = kept.topk(BEST)
    tensors = {f"p{prompt}.every64": kept[:, ::LOGIT_STRIDE].contiguous(), f"p{prompt}.top64_values": best.values,
               f"p{prompt}.top64_ids": best.indices.to(torch.int32)}
    new, smallest = greedy(model, ids)
    facts = {"text": text, "ids": ids, "rows": rows, "logsumexp": kept.double().logsumexp(-1).tolist(), "greedy": new,
             "greedy_min_margin": smallest}
    return tensors, facts


def window_goldens(model, tokenizer, sample):
    ids, step, windows = text_ids(tokenizer, sample), WINDOW - 1, []
    for first in range(0, len(ids), step)[:MOST_WINDOWS]:
        window = [tokenizer.bos_token_id] + ids[first : first + step]
        log_probs = logits_of(model, window[:-1]).double().log_softmax(-1)
        nll = -log_probs.gather(1, torch.tensor(window[1:])[:, None]).sum().item()
        windows.append({"ids": window, "tokens": len(window) - 1, "nll": nll})
    return windows


def compare(tensors, document, against):
    """The largest absolute difference of any number, and what else is not the same."""
    old_document = json.loads((against / "goldens.json").read_text())
    old_tensors = load_file(against / "goldens.safetensors")
    worst, others = (0.0, "nothing"), []
    for name, new in tensors.items():
        if new.dtype == torch.float32:  # ids of the best may swap where their logits are closer than the arithmetic
            worst = max(worst, ((new - old_tensors[name]).abs().max().item(), name))
    for p, (new, old) in enumerate(zip(document["prompts"], old_document["prompts"], strict=True)):
        worst = max([worst] + [(abs(a - b), f"p{p} logsumexp") for a, b in zip(new["logsumexp"], old["logsumexp"], strict=True)])
        others += [f"p{p} {key}" for key in ("ids", "rows", "greedy") if new[key] != old[key]]
    for w, (new, old) in enumerate(zip(document["windows"], old_document["windows"], strict=True)):
        worst = max(worst, (abs(new["nll"] - old["nll"]) / new["tokens"], f"window {w} nll per token"))
        others += [f"window {w} ids"] if new["ids"] != old["ids"] else []
    return worst, others


def write_json(file, document):
    """One line for each prompt and window."""
    lines = {key: "[\n" + ",\n".join(json.dumps(one) for one in value) + "\n]" if isinstance(value, list) else json.dumps(value)
             for key, value in document.items()}
    file.write_text("{\n" + ",\n".join(f'"{key}": {text}' for key, text in lines.items()) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--full-logits", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for folder in filter(None, (args.out, args.full_logits)):
        folder.mkdir(parents=True, exist_ok=True)

    model, tokenizer = open_model(args.gguf)
    sample = SAMPLE.read_text(encoding="utf-8")
    tensors, prompts = {}, []
    for prompt, text in enumerate(SHORT_PROMPTS + [sample.splitlines()[0]]):
        new, facts = prompt_goldens(model, tokenizer, prompt, text, args.full_logits)
        tensors.update(new)
        prompts.append(facts)
        print(f"prompt {prompt}: {len(facts['ids'])} ids, {tokenizer.decode(facts['greedy'])!r}", flush=True)
    windows = window_goldens(model, tokenizer, sample)
    tokens, nll = sum(w["tokens"] for w in windows), sum(w["nll"] for w in windows)
    document = {"gguf_sha256": SHA256, "transformers": transformers.__version__, "torch": torch.__version__, "prompts": prompts,
                "windows": windows, "tokens": tokens, "nll": nll, "perplexity": float(numpy.exp(nll / tokens))}
    print(f"perplexity {document['perplexity']:.6f} over {tokens} tokens in {len(windows)} windows")

    failed = False
    if args.against:
        worst, others = compare(tensors, document, args.against)
        failed = bool(others) or worst[0] > args.tolerance
        print(f"largest difference {worst[0]:.3g} in {worst[1]}; not the same: {', '.join(others) or 'nothing'}")
    save_file(tensors, args.out / "goldens.safetensors")
    write_json(args.out / "goldens.json", document)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
