#!/usr/bin/env python3
"""Exports a Gemma 3n checkpoint to ONNX with PyTorch's two exporters, to learn and to check what they write.

  export_onnx.py CHECKPOINT OUT.onnx [--exporter dynamo|torchscript] [--dtype float32|bfloat16|float16] [--part text|whole] [--unoptimized]

  python -m venv VENV && VENV/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu \
      torch==2.13.0+cpu transformers==5.23.0 onnx==1.23.2 onnxscript==0.7.2
  VENV/bin/python tests/testing/export_onnx.py tests/data/micro-e4b /tmp/micro.onnx --exporter dynamo
  build/dev/tests/compare_checkpoints /tmp/micro.onnx tests/data/micro-e4b

--part text exports the language model (names model.layers...), --part whole the multimodal model reading text only (names
model.language_model.layers...). --unoptimized leaves out the dynamo exporter's optimizer and the TorchScript exporter's constant folding, which
are what renames and transposes weights.

One function of the model is replaced: the threshold of sparse layers is computed by an inverse normal distribution (aten.erf_inv) that neither
exporter knows; here it is a constant. No weight is touched.
"""
import argparse
import pathlib
import statistics

import torch
import transformers
from safetensors.torch import load_file
from transformers.models.gemma3n import modeling_gemma3n

TEXT = "model.language_model."


def gaussian_topk(self, inputs):
    multiplier = statistics.NormalDist().inv_cdf(self.activation_sparsity)
    mean = inputs.mean(dim=-1, keepdim=True)
    deviation = inputs.std(dim=-1, keepdim=True, unbiased=False)
    return torch.nn.functional.relu(inputs - (mean + deviation * multiplier))


def load_model(folder, part, dtype):
    config = transformers.AutoConfig.from_pretrained(folder)
    if part == "text":
        config = config.text_config
    config._attn_implementation = "eager"
    model = (modeling_gemma3n.Gemma3nForCausalLM if part == "text" else modeling_gemma3n.Gemma3nForConditionalGeneration)(config)
    weights = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        weights.update(load_file(shard))
    if part == "text":
        weights = {"model." + k.removeprefix(TEXT): v for k, v in weights.items() if k.startswith(TEXT)}
    missing, _ = model.load_state_dict(weights, strict=False)  # keys and values of KV-shared layers are left over
    if set(missing) - {"lm_head.weight"} and part == "text":
        raise SystemExit(f"missing weights: {missing}")
    model.tie_weights()
    return model.eval().to(getattr(torch, dtype))


class Logits(torch.nn.Module):
    """What is exported: token ids in, logits out. The exporters see the wrapper's attribute name in front of every path."""

    def __init__(self, model):
        super().__init__()
        self.wrapped = model

    def forward(self, input_ids, attention_mask):
        return self.wrapped(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("--exporter", choices=["dynamo", "torchscript"], default="dynamo")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--part", choices=["text", "whole"], default="text")
    parser.add_argument("--unoptimized", action="store_true")
    options = parser.parse_args()

    modeling_gemma3n.Gemma3nTextMLP._gaussian_topk = gaussian_topk
    if options.part == "whole":  # text alone runs neither tower, and the vision tower's code (timm) need not be installed
        text = modeling_gemma3n.AutoModel.from_config
        modeling_gemma3n.AutoModel.from_config = lambda config, **rest: (
            text(config, **rest) if isinstance(config, modeling_gemma3n.Gemma3nTextConfig) else torch.nn.Identity())
    model = Logits(load_model(options.checkpoint, options.part, options.dtype))
    ids = torch.arange(2, 10)[None]
    arguments = (ids, torch.ones_like(ids))
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["logits"]}
    pathlib.Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        if options.exporter == "dynamo":
            torch.onnx.export(model, arguments, options.out, dynamo=True, external_data=True, optimize=not options.unoptimized, **names)
        else:
            torch.onnx.export(model, arguments, options.out, dynamo=False, opset_version=17,
                              do_constant_folding=not options.unoptimized, **names)


if __name__ == "__main__":
    main()
