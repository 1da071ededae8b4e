#!/usr/bin/env python3
"""Quantizes the members of a float bundle of ours with ai-edge-quantizer and puts a bundle together from them.

  aeq_bundle.py FLOAT.litertlm --like OURS.task --method METHOD -o PEER.task --taskpress BINARY [--calibration F.calib --text F]

FLOAT: `taskpress convert --quant f32 --score-signature`. OURS: the same model in the types that are wanted; exactly its int4 matrices become
int4, per row or in blocks as there. METHOD: min_max, mse, octav, gptq, oscar, hadamard (AEQ's DECOMPOSED_HADAMARD_ROTATION).
gptq and oscar are for FULLY_CONNECTED only: their tables are rounded by octav. They run the model on the windows of the calibration file,
cut from the text again and held to the file's hash of the tokens.

Needs the packages of requirements.txt. AEQ asks for tensor names that are unique in a file; ours are called alike in all signatures, so
they get the signature's key behind them. Prints one JSON line.
"""
import argparse
import contextlib
import hashlib
import json
import pathlib
import resource
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe_manager

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
from bundle_file import BundleFile  # noqa: E402

Algorithm = quantizer.AlgorithmName
METHODS = {"min_max": Algorithm.MIN_MAX_UNIFORM_QUANT, "mse": Algorithm.MSE, "octav": Algorithm.OCTAV, "gptq": Algorithm.GPTQ,
           "oscar": Algorithm.OSCAR, "hadamard": Algorithm.DECOMPOSED_HADAMARD_ROTATION}
CALIBRATED = ("gptq", "oscar")
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)
# AEQ's GPTQ sums products of a layer's outputs as well, [outputs, outputs]; with more of them than this it does not fit memory.
MOST_OUTPUTS = 16384
MATRIX_OPS = (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.EMBEDDING_LOOKUP)


def read_model(member):
    return flatbuffer_utils.read_model_from_bytearray(bytearray(member.view))


def matrix_ops(model, subgraph):
    """-> (operator, its weights' tensor) of every op that multiplies with a constant or looks one up"""
    for op in subgraph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) in MATRIX_OPS and model.buffers[subgraph.tensors[op.inputs[1]].buffer].data is not None:
            yield op, subgraph.tensors[op.inputs[1]]


def wanted_types(bundle):
    """-> {member: {weight: block size, 0 for one scale per row}} of the int4 matrices"""
    wanted = {}
    for name, member in BundleFile(bundle).models().items():
        model = read_model(member)
        wanted[name] = {tensor.name.decode(): tensor.quantization.details.blockSize if tensor.quantization.details else 0
                        for subgraph in model.subgraphs for _, tensor in matrix_ops(model, subgraph)
                        if tensor.type == schema.TensorType.INT4}
    return wanted


class PeerMember:
    """A member as AEQ needs it: names are unique, an int4 matrix's output says which rule of the recipe is for it, and FULLY_CONNECTED has
    three inputs where there is no bias, too."""

    def __init__(self, member, wanted):
        self.model = read_model(member)
        self.inputs = {}  # weight -> names of the tensors that it is multiplied with, one a subgraph that has it
        keys = {s.subgraphIndex: s.signatureKey.decode() for s in self.model.signatureDefs}
        for i, subgraph in enumerate(self.model.subgraphs):
            labels = {op.outputs[0]: (tensor.name.decode(), wanted[tensor.name.decode()]) for op, tensor in matrix_ops(self.model, subgraph)
                      if tensor.name.decode() in wanted}
            for t, tensor in enumerate(subgraph.tensors):
                weight, block = labels.get(t, (None, None))
                label = tensor.name.decode() if weight is None else f"{weight}/int4_{block}/out"
                # A cache goes in and comes out under one name.
                tensor.name = f"{label}@{keys[i]}{f'/{t}' if t in subgraph.outputs else ''}".encode()
            for op, tensor in matrix_ops(self.model, subgraph):
                self.inputs.setdefault(tensor.name.decode().split("@")[0], {})[keys[i]] = subgraph.tensors[op.inputs[0]].name.decode()
        self.operations = set()
        for subgraph in self.model.subgraphs:
            for op, _ in matrix_ops(self.model, subgraph):
                lookup = self.model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.EMBEDDING_LOOKUP
                self.operations.add(qtyping.TFLOperationName.EMBEDDING_LOOKUP if lookup else qtyping.TFLOperationName.FULLY_CONNECTED)
                if not lookup and len(op.inputs) == 2:
                    op.inputs = np.append(op.inputs, -1).astype(np.int32)
        self.outputs = {weight: subgraph.tensors[op.outputs[0]].shape[-1] for subgraph in self.model.subgraphs
                        for op, tensor in matrix_ops(self.model, subgraph) for weight in [tensor.name.decode().split("@")[0]]}
        self.bytes = bytes(flatbuffer_utils.convert_object_to_bytearray(inlined(self.model)))


def inlined(model):
    for buffer in model.buffers:
        buffer.offset = buffer.size = 0
    return model


def recipe_of(method, wanted, peer):
    rules = recipe_manager.RecipeManager()

    def rule(regex, operation, block, name):
        granularity = {0: qtyping.QuantGranularity.CHANNELWISE}.get(block) or qtyping.QuantGranularity[f"BLOCKWISE_{block}"]
        rules.add_dynamic_config(regex=regex, operation_name=operation, num_bits=4, granularity=granularity, algorithm_key=METHODS[name])

    for block in sorted(set(wanted.values())):
        for operation in peer.operations:  # a rule for what is not there would ask for calibration
            lookup = operation == qtyping.TFLOperationName.EMBEDDING_LOOKUP
            rule(f"/int4_{block}/out@", operation, block, "octav" if lookup and method in CALIBRATED else method)
    wide = [weight for weight in wanted if method == "gptq" and peer.outputs[weight] > MOST_OUTPUTS]
    for weight in wide:
        rule(f"^{weight}/int4_", qtyping.TFLOperationName.FULLY_CONNECTED, wanted[weight], "octav")
    return rules, wide


# ---- calibration -----------------------------------------------------------------------------------------------------------------


def calibration_index(path):
    raw = pathlib.Path(path).read_bytes()
    offset, size = struct.unpack_from("<QQ", raw, 16)
    return json.loads(raw[offset:offset + size])


def cut_windows(bundle, text, index, window):
    """The windows of `taskpress calibrate`: texts one behind the other, each window begins with the start token."""
    import sentencepiece
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=BundleFile(bundle).tokenizer())
    lines = [json.loads(line) for line in pathlib.Path(text).read_text().splitlines() if line.strip()]
    tokens = [t for line in lines for t in tokenizer.encode(line["text"])]
    part = window - 1
    windows = [[tokenizer.bos_id()] + tokens[at:at + part] for at in range(0, len(tokens) - part + 1, part)][: index["tokens"] // window]
    found = hashlib.sha256(b"".join(np.array(w, np.int32).tobytes() for w in windows)).hexdigest()
    if found != index["token_hash"]:
        raise SystemExit(f"{text}: its windows are not those of the calibration file: {found}, expected {index['token_hash']}")
    return windows


class FloatModel:
    """Runs the score signature of the float members and hands out what went in."""

    def __init__(self, bundle, main, threads):
        from run_members import InterpreterMember
        members = {name: InterpreterMember(m.view, "interpreter", threads) for name, m in BundleFile(bundle).models().items() if name != "prefill_decode"}
        self.tables = {"embeddings": members["embedder"]}
        if "per_layer_embedder" in members:
            self.tables["per_layer_embeddings"] = members["per_layer_embedder"]
        self.main = InterpreterMember(main, "interpreter", threads)
        (self.key,) = [k for k in self.main.signatures if k.startswith("score_")]
        self.inputs = self.main.signatures[self.key][0]
        self.length = int(self.key.removeprefix("score_"))
        self.rows = {}

    def row(self, table, token):
        if (table, token) not in self.rows:
            key, (inputs, _) = next(iter(self.tables[table].signatures.items()))
            ((name, (shape, dtype)),) = inputs.items()
            (self.rows[table, token],) = self.tables[table].run(key, {name: np.full(shape, token, dtype)}).values()
        return self.rows[table, token]

    def samples(self, window):
        """-> the inputs of every chunk of a window, caches filled by the chunks before"""
        caches = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self.inputs.items() if "cache" in name}
        for begin in range(0, len(window), self.length):
            chunk = window[begin:begin + self.length]
            assert len(chunk) == self.length, "windows are whole chunks, or padding would be measured"
            mask = np.full(self.inputs["mask"][0], MASKED, np.float32)
            for i in range(self.length):
                mask[..., i, : begin + i + 1] = 0
            values = {"mask": mask, "input_pos": np.arange(begin, begin + self.length, dtype=np.int32), **caches}
            for table in self.tables:
                values[table] = np.concatenate([self.row(table, t) for t in chunk], axis=1)
            yield values
            outputs = self.main.run(self.key, values)
            caches = {name: outputs[name] for name in caches}


def calibrate(peer, rules, bundle, windows, threads):
    """AEQ's own calibration on the score signature; the other signatures multiply the same weights with the same tensors."""
    model = FloatModel(bundle, peer.bytes, threads)
    samples = [s for window in windows for s in model.samples(window)]
    run = calibrator.Calibrator(peer.bytes, num_threads=threads)
    run.calibrate({model.key: samples}, rules)
    found = run.get_model_qsvs()
    for names in peer.inputs.values():
        for name in names.values():
            if names.get(model.key) in found:
                found[name] = found[names[model.key]]
    return found


# ---- the bundle ------------------------------------------------------------------------------------------------------------------


def quantize(member, wanted, args):
    peer = PeerMember(member, wanted)
    rules, wide = recipe_of(args.method, wanted, peer)
    work = quantizer.Quantizer(peer.bytes, rules.get_quantization_recipe())
    found = None
    if args.method in CALIBRATED and member.name == "prefill_decode":
        found = calibrate(peer, rules, args.bundle, cut_windows(args.bundle, args.text, calibration_index(args.calibration), args.window),
                          args.threads)
    elif args.method in CALIBRATED:
        found = {}
    return bytes(work.quantize(found, enable_progress_bar=False, enable_progress_report=False).quantized_model), wide


def check(data, wanted, method):
    """Every wanted matrix is int4 now, and no other one."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    done = {tensor.name.decode().split("@")[0] for subgraph in model.subgraphs for _, tensor in matrix_ops(model, subgraph)
            if tensor.type == schema.TensorType.INT4}
    if done != set(wanted):
        raise SystemExit(f"{method}: int4 are {sorted(done - set(wanted))} beside what was asked for, and not {sorted(set(wanted) - done)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", metavar="FLOAT.litertlm")
    parser.add_argument("--like", required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--taskpress", required=True)
    parser.add_argument("--calibration")
    parser.add_argument("--text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=256)
    args = parser.parse_args()
    if args.method in CALIBRATED and not (args.calibration and args.text):
        parser.error(f"{args.method} needs --calibration and --text")
    start = time.monotonic()
    wanted, replaced, wide = wanted_types(args.like), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, member in BundleFile(args.bundle).models().items():
            if not wanted.get(name):
                continue
            with contextlib.redirect_stdout(sys.stderr):
                data, clipped = quantize(member, wanted[name], args)
            check(data, wanted[name], args.method)
            path = pathlib.Path(folder) / f"{name}.tflite"
            path.write_bytes(data)
            replaced += ["--replace", f"{name}={path}"]
            wide += clipped
        seconds = time.monotonic() - start
        subprocess.run([args.taskpress, "repack", args.bundle, "-o", args.output, *replaced, "--force", "--progress", "none"], check=True,
                       stdout=sys.stderr)
    print(json.dumps({"method": args.method, "matrices": sum(map(len, wanted.values())), "octav_instead": wide, "seconds": round(seconds, 1),
                      "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
