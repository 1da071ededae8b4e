#!/usr/bin/env python3
"""Runs the text members of a bundle in ai-edge-litert the way LiteRT-LM drives them.

  run_members.py BUNDLE --list                                    signatures with shapes, one JSON object a line
  run_members.py BUNDLE --tokens 2,818,5279 --logits OUT.npy      teacher forced: logits of every position through `decode`
        [--chunks 64,8]    the first ids go through these prefill signatures, the rest through decode; logits of the rest
        [--engine interpreter|compiled|reference]                 XNNPACK interpreter, CompiledModel, stock kernels
        [--greedy N]       also continues N ids greedily and prints them

The stock kernels of `reference` quantize activations symmetrically, XNNPACK does not: compare quantized bundles with the other two.
"""
import argparse
import json
import sys

import numpy as np

from bundle_file import BundleFile

# What the client writes into masked slots on CPU.
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)
ENGINES = ("interpreter", "compiled", "reference")


class InterpreterMember:
    def __init__(self, data, engine, threads):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if engine == "reference" else OpResolverType.AUTO
        self._interpreter = Interpreter(model_content=bytes(data), num_threads=threads, experimental_op_resolver_type=resolver)
        self._runners = {key: self._interpreter.get_signature_runner(key) for key in self._interpreter.get_signature_list()}
        self.signatures = {key: (_details(r.get_input_details()), _details(r.get_output_details())) for key, r in self._runners.items()}

    def run(self, key, inputs):
        return self._runners[key](**inputs)


class CompiledMember:
    def __init__(self, data, _engine, _threads):
        from ai_edge_litert.compiled_model import CompiledModel
        self._model = CompiledModel.from_buffer(bytes(data))
        self.signatures, self._buffers = {}, {}
        for key in self._model.get_signature_list():
            inputs = _details(self._model.get_input_tensor_details(key))
            outputs = _details(self._model.get_output_tensor_details(key))
            self.signatures[key] = (inputs, outputs)
            self._buffers[key] = ({n: self._model.create_input_buffer_by_name(key, n) for n in inputs},
                                  {n: self._model.create_output_buffer_by_name(key, n) for n in outputs})

    def run(self, key, inputs):
        into, out_of = self._buffers[key]
        for name, value in inputs.items():
            into[name].write(np.ascontiguousarray(value))
        self._model.run_by_name(key, into, out_of)
        shapes = self.signatures[key][1]
        return {n: b.read(int(np.prod(shapes[n][0])), shapes[n][1].type).reshape(shapes[n][0]) for n, b in out_of.items()}


def _details(details):
    return {name: (tuple(int(d) for d in detail["shape"]), np.dtype(detail["dtype"])) for name, detail in details.items()}


def open_members(bundle, engine, threads):
    member = CompiledMember if engine == "compiled" else InterpreterMember
    return {name: member(m.view, engine, threads) for name, m in bundle.models().items()}


class TextModel:
    """Embedder, per-layer embedder and main graph over one set of caches."""

    def __init__(self, path, engine="interpreter", threads=1):
        members = open_members(BundleFile(path), engine, threads)
        self._main = members["prefill_decode"]
        self._tables = {"embeddings": members["embedder"]}
        if "per_layer_embedder" in members:
            self._tables["per_layer_embeddings"] = members["per_layer_embedder"]
        inputs, outputs = self._main.signatures["decode"]
        self._mask = next(n for n in ("mask", "attn_mask") if n in inputs)
        self._positions = next(n for n in ("input_pos", "positions") if n in inputs)
        self._cache_specs = {n: spec for n, spec in inputs.items() if "cache" in n}
        self.context = inputs[self._mask][0][-1]
        self.vocabulary = outputs["logits"][0][-1]
        # The length of a prefill signature is that of its positions; the number in its key means nothing.
        self.prefills = {self._main.signatures[k][0][self._positions][0][-1]: k for k in self._main.signatures if k.startswith("prefill")}
        self._rows = {}
        self.reset()

    def reset(self):
        self._caches = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self._cache_specs.items()}
        self._filled = 0

    def _row(self, table, token):
        if (table, token) not in self._rows:
            member = self._tables[table]
            key, (inputs, _) = next(iter(member.signatures.items()))
            ((name, (shape, dtype)),) = inputs.items()
            (self._rows[table, token],) = member.run(key, {name: np.full(shape, token, dtype)}).values()
        return self._rows[table, token]

    def _step(self, key, tokens, length):
        """Slots beyond the tokens are padding: token 0 at position 0, seeing nothing."""
        inputs, _ = self._main.signatures[key]
        mask_shape, mask_type = inputs[self._mask]  # [1, 1, length, context]
        hidden, visible = (False, True) if mask_type == np.bool_ else (MASKED, 0)
        mask = np.full(mask_shape, hidden, mask_type)
        position_shape, position_type = inputs[self._positions]
        positions = np.zeros(length, position_type)
        for i in range(len(tokens)):
            mask[..., i, : self._filled + i + 1] = visible
            positions[i] = self._filled + i
        values = {self._mask: mask, self._positions: positions.reshape(position_shape), **self._caches}
        padded = list(tokens) + [0] * (length - len(tokens))
        for table in self._tables:
            values[table] = np.concatenate([self._row(table, t) for t in padded], axis=1)
        outputs = self._main.run(key, values)
        self._caches = {name: outputs[name] for name in self._caches}
        self._filled += len(tokens)
        return outputs

    def prefill(self, tokens, length):
        self._step(self.prefills[length], tokens, length)

    def decode(self, token):
        """-> logits [vocabulary]"""
        return self._step("decode", [token], 1)["logits"].reshape(-1)

    def teacher_forced(self, tokens, chunks=()):
        """-> logits [tokens after the prefilled ones, vocabulary]; the last token always goes through decode, as in the client."""
        self.reset()
        for length in chunks:
            part = tokens[self._filled:-1][:length]
            if part:
                self.prefill(part, length)
        return np.stack([self.decode(t) for t in tokens[self._filled:]])

    def continue_greedily(self, logits, count):
        tokens = []
        while len(tokens) < count:
            tokens.append(int(logits.argmax()))
            if len(tokens) < count:
                logits = self.decode(tokens[-1])
        return tokens


def list_signatures(path, engine):
    for name, member in open_members(BundleFile(path), engine, 1).items():
        for key, (inputs, outputs) in member.signatures.items():
            def show(spec):
                return {n: f"{dtype}{list(shape)}" for n, (shape, dtype) in spec.items()}
            print(json.dumps({"member": name, "signature": key, "inputs": show(inputs), "outputs": show(outputs)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--tokens")
    parser.add_argument("--chunks", default="")
    parser.add_argument("--greedy", type=int, default=0)
    parser.add_argument("--logits")
    parser.add_argument("--engine", choices=ENGINES, default="interpreter")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.list:
        list_signatures(args.bundle, args.engine)
        return 0
    if not args.tokens:
        parser.error("give --tokens or --list")
    model = TextModel(args.bundle, args.engine, args.threads)
    tokens = [int(t) for t in args.tokens.split(",")]
    logits = model.teacher_forced(tokens, [int(c) for c in args.chunks.split(",") if c])
    if args.logits:
        np.save(args.logits, logits)
    print(json.dumps({"bundle": args.bundle, "engine": args.engine, "context": model.context, "prefill_lengths": sorted(model.prefills),
                      "tokens": len(tokens), "rows": len(logits), "finite": bool(np.isfinite(logits).all()),
                      "greedy": model.continue_greedily(logits[-1], args.greedy)}))
    return 0 if np.isfinite(logits).all() else 1


if __name__ == "__main__":
    sys.exit(main())
