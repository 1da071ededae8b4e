#!/usr/bin/env python3
"""Our quantizer beside ai-edge-quantizer: the same float graph, the same int4 matrices, the same calibration text, one ruler.

  compare_quantizers.py CHECKPOINT --taskpress BINARY --text EVALUATED --calibrate TEXT.jsonl --scratch FOLDER [--keep-f32 REGEX]
        [--only channel|block32] [--peers min_max,gptq] [--ours absmax,best]

Ours are converted from CHECKPOINT; theirs are made of the float bundle by aeq_bundle.py. All are measured with `taskpress compare` against
CHECKPOINT. Run it with the Python of a virtual environment that has requirements.txt. Prints a Markdown table; the log goes to stderr.
A bundle or figure that is in FOLDER already is not made again.
"""
import argparse
import json
import pathlib
import subprocess
import sys

PEERS = ("min_max", "mse", "octav", "hadamard", "oscar", "gptq")
OURS = {"absmax": ["--method", "absmax"], "clip": ["--method", "clip"], "clip, calibrated": ["--method", "clip", "--calibrate"],
        "gptq": ["--method", "gptq", "--calibrate"], "best": ["--method", "best", "--calibrate"]}
RECIPES = {"channel": "dynamic_int4", "block32": "dynamic_int4_block32"}
NOT_OFFERED = {("block32", "mse"): "per channel only"}


class Comparison:
    def __init__(self, args):
        self.args = args
        args.scratch.mkdir(parents=True, exist_ok=True)
        self.model = ["--context", args.context, "--prefill", "8", "--score-signature", "--progress", "none", "--force"]
        self.calibration = args.scratch / "text.calib"
        self.rows = []

    def run(self, *command):
        command = [str(part) for part in command]
        print("$", " ".join(command), file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def convert(self, name, *options):
        path = self.args.scratch / name
        if not path.exists() and self.run(self.args.taskpress, "convert", self.args.checkpoint, "-o", path, *self.model, *options) is None:
            raise SystemExit(f"{path} could not be converted")
        return path

    def prepare(self):
        self.float_bundle = self.convert("f32.litertlm", "--quant", "f32")
        if not self.calibration.exists():
            self.run(self.args.taskpress, "calibrate", self.args.checkpoint, "--text", self.args.calibrate, "-o", self.calibration, "--tokens",
                     self.args.calibration_tokens)

    def measure(self, granularity, whose, method, path):
        figures = path.with_suffix(".json")
        if figures.exists():
            self.rows.append((granularity, whose, method, json.loads(figures.read_text())))
            return
        out = self.run(self.args.taskpress, "compare", path, self.args.checkpoint, "--text", self.args.text, "--threads",
                       self.args.threads, "--json")
        found = json.loads(out) if out else None
        if out:
            figures.write_text(out)
        self.rows.append((granularity, whose, method, found))

    def ours(self, granularity, method):
        options = ["--quant", RECIPES[granularity], *OURS[method]]
        if "--calibrate" in options:
            options.append(self.calibration)
        if self.args.keep_f32:
            options += ["--tensor-type", f"{self.args.keep_f32}=f32"]
        name = f"ours-{granularity}-{method.replace(', ', '-')}.task"
        return self.convert(name, *options)

    def theirs(self, granularity, method):
        path = self.args.scratch / f"aeq-{granularity}-{method}.task"
        if not path.exists():
            script = pathlib.Path(__file__).resolve().parent / "aeq_bundle.py"
            out = self.run(sys.executable, "-B", script, self.float_bundle, "--like", self.ours(granularity, "absmax"), "--method", method,
                           "-o", path, "--taskpress", self.args.taskpress, "--calibration", self.calibration, "--text", self.args.calibrate,
                           "--threads", self.args.threads or 2)
            print(out, file=sys.stderr, flush=True)
        return path if path.exists() else None

    def compare(self):
        self.prepare()
        for granularity in self.args.only.split(","):
            for method in self.args.peers.split(","):
                path = None if (granularity, method) in NOT_OFFERED else self.theirs(granularity, method)
                if path is not None:
                    self.measure(granularity, "ai-edge-quantizer", method, path)
                else:
                    self.rows.append((granularity, "ai-edge-quantizer", method, None))
            for method in self.args.ours.split(";"):
                self.measure(granularity, "taskpress", method, self.ours(granularity, method))

    def print_table(self):
        print("| scales | quantizer | method | KL mean (nats) | top-1 | perplexity ratio |")
        print("|---|---|---|---|---|---|")
        for granularity, whose, method, found in self.rows:
            if found is None:
                numbers = NOT_OFFERED.get((granularity, method), "did not run") + " | | "
            else:
                numbers = f"{found['kl_mean']:.6f} | {found['top1_agreement']:.4f} | {found['perplexity_ratio']:.5f}"
            print(f"| {granularity} | {whose} | `{method}` | {numbers} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    for name in ("taskpress", "text", "calibrate", "scratch"):
        parser.add_argument("--" + name, type=pathlib.Path, required=True)
    parser.add_argument("--calibration-tokens", type=int, default=8192)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--keep-f32", default="", metavar="REGEX", help="matrices that stay floats on both sides")
    parser.add_argument("--only", default="channel,block32")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--ours", default=";".join(OURS), help="with ; between them")
    args = parser.parse_args()
    comparison = Comparison(args)
    comparison.compare()
    comparison.print_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
