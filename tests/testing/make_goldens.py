#!/usr/bin/env python3
"""Runs the micro checkpoint in Hugging Face transformers and writes the text goldens of tests/data/goldens.

  make_goldens.py CHECKPOINT INPUTS.json OUT           writes goldens.json, slices.json and text-{e4b,e2b,mixed}.safetensors
  make_goldens.py CHECKPOINT INPUTS.json OUT --against GOLDENS
                                                       also compares with goldens made before; exit 1 beyond --tolerance

Needs only torch (CPU) and transformers; made with torch 2.13.0 and transformers 5.23.0. Arithmetic is float32 on the bf16 weights.
Sub-models are cut from the checkpoint here and loaded like any other model, so that the slicing code under test has no part in it.
"""
import argparse
import hashlib
import json
import pathlib
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

PREFIX = "model.language_model."
FULL_ROWS = 33  # prompts up to window + 1 ids keep every row of logits, longer ones the last
TRACED_PROMPT = 5
GREEDY_LENGTH = 32


def load_text_weights(folder):
    weights = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        weights.update({k.removeprefix(PREFIX): v for k, v in load_file(shard).items() if k.startswith(PREFIX)})
    return weights


def cut(config, weights, drop, ffn):
    """The MatFormer rules: dropped layers go, FFN matrices lose their last units, per-layer tables lose the blocks of dropped layers."""
    layers = config["num_hidden_layers"]
    width = config["hidden_size_per_layer_input"]
    keep = [i for i in range(layers) if i not in drop]
    first_shared = layers - config["num_kv_shared_layers"]
    small = dict(config)
    small["num_hidden_layers"] = len(keep)
    small["intermediate_size"] = list(ffn)
    small["num_kv_shared_layers"] = config["num_kv_shared_layers"] - sum(i >= first_shared for i in drop)
    for key in ("layer_types", "activation_sparsity_pattern"):
        small[key] = [config[key][i] for i in keep]

    out = {}
    for name, w in weights.items():
        if name.startswith("layers."):
            _, old, rest = name.split(".", 2)
            if int(old) not in keep:
                continue
            new = keep.index(int(old))
            if rest in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
                w = w[: ffn[new]]
            elif rest == "mlp.down_proj.weight":
                w = w[:, : ffn[new]]
            name = f"layers.{new}.{rest}"
        elif name == "embed_tokens_per_layer.weight":  # [rows, layers * width]
            w = w.view(-1, layers, width)[:, keep].flatten(1)
        elif name == "per_layer_model_projection.weight":  # [layers * width, hidden]
            w = w.view(layers, width, -1)[keep].flatten(0, 1)
        out[name] = w.contiguous()
    return small, out


def fingerprints(weights):
    """What a slice must hold, byte for byte: shape and the first 16 digits of SHA-256 of every tensor."""
    def digest(w):
        return hashlib.sha256(w.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return {PREFIX + name: [list(w.shape), digest(w)] for name, w in sorted(weights.items())}


def open_model(config, weights):
    with tempfile.TemporaryDirectory() as folder:
        text = {k: v for k, v in config.items() if k not in ("torch_dtype", "dtype")}
        text.update(architectures=["Gemma3nForCausalLM"], model_type="gemma3n_text", dtype="bfloat16")
        pathlib.Path(folder, "config.json").write_text(json.dumps(text))
        save_file({"model." + k: v for k, v in weights.items()}, pathlib.Path(folder, "model.safetensors"), metadata={"format": "pt"})
        model, info = transformers.Gemma3nForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if info["missing_keys"]:
        sys.exit(f"weights missing: {sorted(info['missing_keys'])[:5]}")
    return model.eval()


class Trace:
    """Keeps what the named inner tensors are while the model runs."""

    def __init__(self, model):
        self.seen = {}
        inner = model.model
        self.handles = [layer.register_forward_hook(self._keep(f"layer{i}")) for i, layer in enumerate(inner.layers)]
        self.handles.append(inner.embed_tokens.register_forward_hook(self._keep("embedding")))
        self.handles.append(inner.norm.register_forward_hook(self._keep("final_hidden")))
        self._project = inner.project_per_layer_inputs
        inner.project_per_layer_inputs = self._per_layer_inputs
        self.inner = inner

    def _keep(self, name):
        def hook(_module, _inputs, output):
            self.seen[name] = output[0] if isinstance(output, tuple) else output
        return hook

    def _per_layer_inputs(self, *args, **kwargs):
        self.seen["per_layer_inputs"] = self._project(*args, **kwargs)
        return self.seen["per_layer_inputs"]

    def close(self):
        for handle in self.handles:
            handle.remove()
        del self.inner.project_per_layer_inputs  # the method of the class shows again

    def tensors(self, last):
        """embedding, final_hidden [T, H]; per_layer_inputs [T, L, P]; layer* [streams, T, H]."""
        out = {k: self.seen[k][0] for k in ("embedding", "per_layer_inputs", "final_hidden")}
        for i in (0, 4, last):
            out[f"layer{i}"] = self.seen[f"layer{i}"][:, 0]
        return out


def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model, ids, length):
    ids, new, smallest = list(ids), [], float("inf")
    for _ in range(length):
        best = logits_of(model, ids)[-1].topk(2)
        smallest = min(smallest, (best.values[0] - best.values[1]).item())
        new.append(best.indices[0].item())
        ids.append(new[-1])
    return new, smallest


def goldens_of(model, inputs):
    tensors, facts = {}, {"greedy": [], "greedy_min_margin": []}
    for p, ids in enumerate(inputs["prompts"]):
        trace = Trace(model) if p == TRACED_PROMPT else None
        logits = logits_of(model, ids)
        if trace:
            trace.close()
            tensors.update({f"p{p}.{k}": v for k, v in trace.tensors(model.config.num_hidden_layers - 1).items()})
        best = logits.topk(64)
        tensors[f"p{p}.logits"] = logits if len(ids) <= FULL_ROWS else logits[-1:]
        tensors[f"p{p}.top64_values"] = best.values
        tensors[f"p{p}.top64_ids"] = best.indices.to(torch.int32)
        new, smallest = greedy(model, ids, GREEDY_LENGTH)
        facts["greedy"].append(new)
        facts["greedy_min_margin"].append(smallest)
    rows = []
    for ids in inputs["windows"]:
        log_probs = logits_of(model, ids[:-1]).log_softmax(-1)
        rows.append(-log_probs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0])
    tensors["windows.nll"] = torch.stack(rows)
    facts["ppl"] = tensors["windows.nll"].double().mean().exp().item()
    facts["layers"] = model.config.num_hidden_layers
    return {k: v.detach().contiguous().clone() for k, v in tensors.items()}, facts


def compare(tensors, facts, old_tensors, old_facts):
    """The largest absolute difference of any float tensor, and what else is not the same."""
    worst, differences = (0.0, "nothing"), []
    if tensors.keys() != old_tensors.keys():
        differences.append(f"tensor names: {sorted(tensors.keys() ^ old_tensors.keys())}")
    for name in tensors.keys() & old_tensors.keys():
        if tensors[name].shape != old_tensors[name].shape:
            differences.append(f"{name}: shapes {list(tensors[name].shape)} and {list(old_tensors[name].shape)}")
        elif tensors[name].dtype == torch.float32:
            worst = max(worst, ((tensors[name] - old_tensors[name]).abs().max().item(), name))
        # Ids of the 64 best may swap where values are closer than the arithmetic; top64_values decides.
    if facts["greedy"] != old_facts["greedy"]:
        differences.append("greedy continuations")
    worst = max(worst, (abs(facts["ppl"] - old_facts["ppl"]), "perplexity"))
    return worst, differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)

    inputs = json.loads(args.inputs.read_text())
    config = json.loads((args.checkpoint / "config.json").read_text())["text_config"]
    weights = load_text_weights(args.checkpoint)
    sizes = {"e4b": {"drop": [], "ffn": config["intermediate_size"]}, **inputs["slices"]}
    document = {"transformers": transformers.__version__, "torch": torch.__version__,
                "full_rows": "prompts up to window+1 tokens: every row; longer: last row", "models": {}}
    slices, failed = {}, False
    for name, size in sizes.items():
        small, kept = cut(config, weights, size["drop"], size["ffn"])
        tensors, facts = goldens_of(open_model(small, kept), inputs)
        save_file(tensors, args.out / f"text-{name}.safetensors")
        document["models"][name] = facts
        if name in inputs["slices"]:
            slices[name] = {**size, "config": small, "tensors": fingerprints(kept)}
        if args.against:
            old = json.loads((args.against / "goldens.json").read_text())["models"][name]
            worst, differences = compare(tensors, facts, load_file(args.against / f"text-{name}.safetensors"), old)
            if name in slices and slices[name]["tensors"] != json.loads((args.against / "slices.json").read_text())[name]["tensors"]:
                differences.append("slices.json: tensors")
            failed |= bool(differences) or worst[0] > args.tolerance
            print(json.dumps({"size": name, "largest_difference": worst[0], "in": worst[1], "other_differences": differences,
                              "greedy_ids_compared": sum(map(len, facts["greedy"])), "perplexity": facts["ppl"]}), flush=True)
    (args.out / "goldens.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "slices.json").write_text(json.dumps(slices) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
