#!/usr/bin/env python3
"""Loads a folder of `taskpress slice` into Hugging Face transformers and holds it against what Taskpress computes from the same slice.

  taskpress slice CHECKPOINT --slice SLICE.json -o FOLDER
  taskpress convert CHECKPOINT --slice SLICE.json --quant f32 --score-signature -o slice.litertlm
  taskpress score slice.litertlm --tokens @TOKENS.json --logits LOGITS.safetensors
  check_slice.py CHECKPOINT SLICE.json FOLDER LOGITS.safetensors TOKENS.json

Checked are: every tensor of the folder, bit for bit, and its text config, against the cut that make_goldens.py makes of the checkpoint
without Taskpress; that transformers finds all text weights in the folder as it is; and all logits, against those of the f32 bundle.
Needs only torch (CPU) and transformers; used with torch 2.13.0 and transformers 5.23.0. Prints one JSON line; exit 1 when something differs.
"""
import argparse
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file

import make_goldens


def load_all(folder):
    """name -> tensor over all shards of a folder, and the number of shards."""
    shards = sorted(folder.glob("*.safetensors"))
    weights = {}
    for shard in shards:
        weights.update(load_file(shard))
    return weights, len(shards)


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


def differences_of_tensors(expected, found):
    for name in sorted(expected.keys() ^ found.keys()):
        yield f"{name}: only in {'the checkpoint' if name in expected else 'the folder'}"
    for name in sorted(expected.keys() & found.keys()):
        ours, theirs = found[name], expected[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            yield f"{name}: {ours.dtype} {list(ours.shape)}, expected {theirs.dtype} {list(theirs.shape)}"
        elif not torch.equal(bits(ours), bits(theirs)):
            yield f"{name}: other bits"


def differences_of_configs(expected, found):
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield f"config.json: text_config.{key} is {found.get(key)}, expected {expected.get(key)}"


def expected_slice(checkpoint, slice_spec):
    """The whole folder as it should be: text weights cut, those of other modalities as they are."""
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    weights, _ = load_all(checkpoint)
    prefix = make_goldens.PREFIX
    text = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    small, kept = make_goldens.cut(config, text, slice_spec.get("skip", []), slice_spec["ffn"])
    others = {name: weight for name, weight in weights.items() if not name.startswith(prefix)}
    return small, {**{prefix + name: weight for name, weight in kept.items()}, **others}


def load_model(folder):
    """As a user would, and what is wrong with it."""
    transformers.logging.set_verbosity_error()  # the weights of other modalities are listed one by one otherwise
    model, info = transformers.Gemma3nForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = [f"transformers misses {key}" for key in sorted(info["missing_keys"])]
    problems += [f"transformers finds {key} of another shape" for key in sorted(map(str, info["mismatched_keys"]))]
    problems += [f"transformers does not know {key}" for key in sorted(info["unexpected_keys"]) if ".language_model." in key]
    return model.eval(), problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("slice", type=pathlib.Path, help='{"ffn": [width of each kept layer], "skip": [layers]}')
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("logits", type=pathlib.Path)
    parser.add_argument("tokens", type=pathlib.Path, help="a JSON list of ids")
    parser.add_argument("--tolerance", type=float, default=5e-5, help="largest absolute difference of a logit")
    parser.add_argument("--least-shards", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

    config, weights = expected_slice(args.checkpoint, json.loads(args.slice.read_text()))
    found, shards = load_all(args.folder)
    problems = list(differences_of_tensors(weights, found))
    problems += differences_of_configs(config, json.loads((args.folder / "config.json").read_text())["text_config"])
    if shards < args.least_shards:
        problems.append(f"{shards} shards, at least {args.least_shards} expected")
    model, wrong = load_model(args.folder)
    problems += wrong

    tokens = json.loads(args.tokens.read_text())
    # Ids beyond the per-layer table stand for images and sound; a text bundle's head ends before them.
    theirs = make_goldens.logits_of(model, tokens)[:, : config["vocab_size_per_layer_input"]]
    ours = load_file(args.logits)["logits"]
    if ours.shape != theirs.shape:
        problems.append(f"logits {list(ours.shape)}, transformers has {list(theirs.shape)}")
        worst, same = float("nan"), 0
    else:
        worst = (ours - theirs).abs().max().item()
        same = (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
        if not worst <= args.tolerance:
            problems.append(f"largest difference of a logit {worst}, at most {args.tolerance} allowed")
        if same != len(tokens):
            problems.append(f"the most likely token differs at {len(tokens) - same} of {len(tokens)} positions")
    print(json.dumps({"folder": args.folder.name, "layers": model.config.num_hidden_layers, "shards": shards, "tensors": len(found),
                      "logits": theirs.numel(), "largest_difference": worst, "largest_logit": theirs.abs().max().item(),
                      "same_argmax": f"{same} of {len(tokens)}", "problems": problems[:20]}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
