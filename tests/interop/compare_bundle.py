#!/usr/bin/env python3
"""Converts a micro checkpoint with taskpress and holds our runtime against the real clients; one case a call, one JSON line.

  compare_bundle.py --case CASE-QUANT --taskpress BINARY --checkpoint FOLDER --inputs JSON --goldens SAFETENSORS --scratch FOLDER

  JSON has "prompts" and "windows", lists of ids; SAFETENSORS what transformers makes of the prompts: p{i}.logits [rows, vocabulary] of the
  last rows and p{i}.top*_values, p{i}.top*_ids [ids, best] of every row.

  QUANT: f32, f16, int8 (dynamic_int8), int8_two_terms, int4 (dynamic_int4), block32, block128
  (dynamic_int4_block32, 128). CASE:
  convert    writes m.task and m.litertlm into SCRATCH/QUANT; every other case reads them
  members    `taskpress score` against the members run by the ai-edge-litert interpreter, teacher forced
  compiled   the same against its CompiledModel
  chunks     the same where the client's prefill signatures fill the caches (f32 only: few rows remain to compare)
  goldens    the members against Hugging Face transformers (f32 only)
  task, litertlm
             `taskpress run` against greedy LiteRT-LM on that container

Quantized bundles: activations are rounded to int8 on the way, a value on the edge falls to the other side when the sum before it was
added up in another order, and everything after it moves a little. So they are held to agreement of the best token and not to numbers.
Exit code 1: not equal enough, or it did not run.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

RECIPES = {"f32": "f32", "f16": "f16", "int8": "dynamic_int8", "int8_two_terms": "dynamic_int8_two_terms", "int4": "dynamic_int4",
           "block32": "dynamic_int4_block32", "block128": "dynamic_int4_block128"}
FLOATS = ("f32", "f16")  # weights; activations are f32 with both
CONTEXT = 256
PREFILLS = (64, 8)
FLOAT_ERROR = 1e-3  # of logits up to 30
TOP1_AGREEMENT = 0.99
DECIDED = 0.05  # a best logit this far above the second is not turned by rounding
GENERATED = 32
SCORED_LENGTHS = (7, 33, 100, 128, 200)  # ids of the prompts that are scored: the sliding window of the checkpoints is 8 or 32
SCORED_WINDOWS = 2  # 256 ids each, for quantized bundles, where agreement is a statistic


class Failed(Exception):
    pass


def read_safetensors(path):
    raw = pathlib.Path(path).read_bytes()
    header_size = int.from_bytes(raw[:8], "little")
    dtypes = {"F32": np.float32, "I32": np.int32}
    tensors = {}
    for name, entry in json.loads(raw[8:8 + header_size]).items():
        if name != "__metadata__" and entry["dtype"] in dtypes:
            begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


class Comparison:
    def __init__(self, args, quant):
        self.args, self.quant = args, quant
        self.folder = args.scratch / quant
        self.inputs = json.loads(args.inputs.read_text())

    def bundle(self, container="task"):
        return self.folder / f"m.{container}"

    def taskpress(self, *arguments):
        command = [str(a) for a in (self.args.taskpress, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def kernels(self):
        """Quantized bundles run operator by operator, in the client's order of additions: fused attention has another one, and every rounding of
        an activation that it turns changes what follows. Our own tests hold fused steps to the operators."""
        return () if self.quant in FLOATS else ("--kernels", "xnnpack")

    def score(self, tokens):
        """-> our logits [tokens, vocabulary]"""
        out = self.folder / f"{self.args.case}.logits.safetensors"
        out.unlink(missing_ok=True)
        self.taskpress("score", self.bundle(), *self.kernels(), "--tokens", ",".join(map(str, tokens)), "--logits", out)
        logits = read_safetensors(out)["logits"]
        if len(logits) != len(tokens) or not np.isfinite(logits).all():
            raise Failed(f"score gave {list(logits.shape)} logits for {len(tokens)} tokens, finite: {np.isfinite(logits).all()}")
        return logits

    def scored_prompts(self):
        return [p for p, ids in enumerate(self.inputs["prompts"]) if len(ids) in SCORED_LENGTHS]

    def scored_sequences(self):
        sequences = [self.inputs["prompts"][p] for p in self.scored_prompts()]
        return sequences if self.quant in FLOATS else sequences + self.inputs["windows"][:SCORED_WINDOWS]

    # ---- cases -------------------------------------------------------------------------------------------------------------------

    def convert(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        out = self.taskpress("convert", self.args.checkpoint, "-o", self.bundle("task"), "-o", self.bundle("litertlm"), "--quant",
                             RECIPES[self.quant], "--context", CONTEXT, "--prefill", ",".join(map(str, PREFILLS)), "--force",
                             "--progress", "none", "--json")
        return True, {"bytes": [o["bytes"] for o in json.loads(out)["outputs"]]}

    def members(self, engine="interpreter", chunks=()):
        from run_members import TextModel
        model = TextModel(self.bundle(), engine)
        if model.context != CONTEXT or sorted(model.prefills) != sorted(PREFILLS):
            raise Failed(f"asked for context {CONTEXT} and prefills {PREFILLS}, the members have {model.context}, {sorted(model.prefills)}")
        pairs = []
        for tokens in self.scored_sequences():
            theirs = model.teacher_forced(tokens, chunks)
            pairs.append((self.score(tokens)[-len(theirs):], theirs))
        return self.judge(pairs)

    def compiled(self):
        return self.members("compiled")

    def chunks(self):
        # 200 ids: 64 + 64 + 64 + 7 of 8, then one through decode. 100 ids: 64, then 35 of 64.
        return self.members(chunks=(64, 64, 64, 8))

    def judge(self, pairs):
        """pairs: (ours, theirs), logits [rows, vocabulary] of each sequence."""
        error = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
        rms = float(np.sqrt(np.mean(np.concatenate([(ours - theirs).ravel() ** 2 for ours, theirs in pairs]))))
        rows, same, first = 0, 0, None
        for sequence, (ours, theirs) in enumerate(pairs):
            equal = ours.argmax(1) == theirs.argmax(1)
            rows, same = rows + len(equal), same + int(equal.sum())
            if first is None and not equal.all():
                row = int(np.argmin(equal))
                first = {"sequence": sequence, "row": row, "our_margin": margin(ours[row])}
        report = {"rows": rows, "top1_differences": rows - same, "top1_agreement": same / rows, "first_difference": first,
                  "max_error": error, "rms_error": rms}
        return (error <= FLOAT_ERROR if self.quant in FLOATS else same / rows >= TOP1_AGREEMENT), report

    def goldens_case(self):
        from run_members import TextModel
        model = TextModel(self.bundle())
        tensors = read_safetensors(self.args.goldens)
        worst = 0.0
        for p in self.scored_prompts():
            logits = model.teacher_forced(self.inputs["prompts"][p])
            # Short prompts keep every row, long ones the last and the best of each; a text bundle may lack the multimodal ids.
            golden = tensors[f"p{p}.logits"][:, : model.vocabulary]
            worst = max(worst, float(np.abs(logits[-len(golden):] - golden).max()))
            best = [name.removesuffix("_ids") for name in tensors if name.startswith(f"p{p}.top") and name.endswith("_ids")]
            if not best and len(golden) < len(logits):
                raise Failed(f"prompt {p}: the goldens have {len(golden)} of {len(logits)} rows and not the best of each")
            for name in best:
                ids, values = tensors[name + "_ids"], tensors[name + "_values"]
                ours = np.take_along_axis(logits, np.minimum(ids, model.vocabulary - 1), 1)
                worst = max(worst, float(np.abs(ours - values)[ids < model.vocabulary].max()))
        return worst <= FLOAT_ERROR, {"max_error": worst, "vocabulary": model.vocabulary}

    def client(self, container, prompts=None):
        """prompts: which ones; None: all but those of one id, which the client puts in front by itself."""
        from run_litert_lm import Client
        passed, report = True, []
        if prompts is None:
            prompts = [p for p, ids in enumerate(self.inputs["prompts"]) if len(ids) > 1]
        with Client(self.bundle(container)) as client:
            stops = client.stop_ids()
            for p in prompts:
                prompt = self.inputs["prompts"][p]
                theirs = client.continue_greedily(prompt, GENERATED)
                out = self.taskpress("run", self.bundle(container), "--tokens", ",".join(map(str, prompt)), "-n", GENERATED,
                                     "--temperature", 0, "--json", *self.kernels())
                ours = until_stop(json.loads(out)["tokens"], stops)
                agreed, equal = compare_continuations(client, ours, theirs, stops)
                if self.quant in FLOATS:
                    required = len(ours)
                    fine = equal
                else:
                    required = self.decided_length(prompt, ours)
                    fine = equal or agreed >= required
                passed &= fine
                report.append({"prompt": p, "ours": len(ours), "agreed": agreed, "required": required, "equal": equal,
                               "exact_ids": theirs["exact"]} | ({} if fine else {"our_tokens": ours, "their_tokens": theirs["tokens"]}))
        return passed, {"tokens_agreed": sum(r["agreed"] for r in report), "tokens": sum(r["ours"] for r in report), "prompts": report}

    def decided_length(self, prompt, generated):
        """How many generated tokens come before the first whose best logit is not clearly the best."""
        if not generated:
            return 0
        rows = self.score(prompt + generated)[len(prompt) - 1:-1]
        return next((i for i, row in enumerate(rows) if margin(row) < DECIDED), len(generated))


def margin(logits):
    second, best = np.partition(logits, -2)[-2:]
    return float(best - second)


def until_stop(tokens, stops):
    return tokens[: next((i for i, t in enumerate(tokens) if t in stops), len(tokens))]


def compare_continuations(client, ours, theirs, stops):
    """-> (how many of our tokens the client has too, whether both are the same from start to end)"""
    if theirs["exact"]:
        ids = until_stop(theirs["tokens"], stops)
        agreed = next((i for i, (a, b) in enumerate(zip(ours, ids)) if a != b), min(len(ours), len(ids)))
        return agreed, ours == ids
    agreed = max(n for n in range(len(ours) + 1) if theirs["text"].startswith(client.detokenize(ours[:n])))
    return agreed, client.detokenize(ours) == theirs["text"]


def conclude(case, run):
    """Runs a case, prints its report as one JSON object -> exit code"""
    try:
        passed, report = run()
    except (Failed, OSError, RuntimeError, ValueError) as problem:
        print(problem, file=sys.stderr)
        passed, report = False, {}
    print(json.dumps({"case": case, "passed": passed, **report}))
    return 0 if passed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", required=True, metavar="CASE-QUANT")
    for name in ("taskpress", "checkpoint", "inputs", "goldens", "scratch"):
        parser.add_argument("--" + name, type=lambda path: pathlib.Path(path).resolve(), required=True)
    args = parser.parse_args()
    case, _, quant = args.case.partition("-")
    comparison = Comparison(args, quant)
    cases = {"convert": comparison.convert, "members": comparison.members, "compiled": comparison.compiled, "chunks": comparison.chunks,
             "goldens": comparison.goldens_case, "task": lambda: comparison.client("task"),
             "litertlm": lambda: comparison.client("litertlm")}
    if case not in cases or quant not in RECIPES:
        parser.error(f"no case {args.case}")
    return conclude(args.case, cases[case])


if __name__ == "__main__":
    sys.exit(main())
