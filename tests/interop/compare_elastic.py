#!/usr/bin/env python3
"""An elastic bundle in LiteRT-LM: whichever size is active, in both containers, the client generates what it should.

  compare_elastic.py --quant QUANT --taskpress BINARY --checkpoint DIR --inputs inputs.json --scratch DIR

The big size is held to `taskpress run` as plain bundles are. The small one has the integers of its own plain bundle, so the client must
generate the same ids from both, quantized or not; float bundles are held to `taskpress run` too. Prints one JSON object. Exit code 1: not
equal enough, or it did not run.
"""
import argparse
import json
import pathlib
import sys

from compare_bundle import CONTEXT, FLOATS, GENERATED, PREFILLS, RECIPES, Comparison, Failed, conclude

SMALL = "e2b"  # one of inputs.json's slices
PROMPTS = (1, 2, 3, 5)
CONTAINERS = ("task", "litertlm")


class ElasticComparison(Comparison):
    active = "e4b"

    def bundle(self, container="task"):
        return self.folder / f"{self.active}.{container}"

    def convert(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = self.folder / f"{SMALL}.json"
        spec.write_text(json.dumps({"ffn": self.inputs["slices"][SMALL]["ffn"], "skip": self.inputs["slices"][SMALL]["drop"]}))
        options = ("--quant", RECIPES[self.quant], "--context", CONTEXT, "--prefill", ",".join(map(str, PREFILLS)), "--force", "--progress",
                   "none")
        self.taskpress("convert", self.args.checkpoint, "-o", self.bundle("task"), "-o", self.bundle("litertlm"), "--elastic", spec, *options)
        self.taskpress("convert", self.args.checkpoint, "-o", self.folder / "plain.litertlm", "--slice", spec, *options)
        for container in CONTAINERS:
            self.taskpress("repack", self.folder / f"e4b.{container}", "-o", self.folder / f"{SMALL}.{container}", "--activate", SMALL, "--force",
                           "--progress", "none")

    def generated(self, path):
        from run_litert_lm import Client
        with Client(path) as client:
            return [client.continue_greedily(self.inputs["prompts"][p], GENERATED)["text"] for p in PROMPTS]

    def run(self):
        self.convert()
        return self.sizes()

    def sizes(self):
        passed, report = True, {}
        for self.active in ("e4b", SMALL) if self.quant in FLOATS else ("e4b",):
            for container in CONTAINERS:
                fine, numbers = self.client(container, PROMPTS)
                passed &= fine
                report[f"{self.active}.{container}"] = {key: numbers[key] for key in ("tokens_agreed", "tokens")}
        plain = self.generated(self.folder / "plain.litertlm")
        big = self.generated(self.folder / "e4b.litertlm")
        for container in CONTAINERS:
            small = self.generated(self.folder / f"{SMALL}.{container}")
            report[f"{SMALL}.{container} as its plain bundle"] = sum(a == b for a, b in zip(small, plain))
            passed &= small == plain
        if plain == big:
            raise Failed("both sizes say the same: is the active one really another?")
        return passed, report | {"prompts": len(PROMPTS)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant", choices=sorted(RECIPES), required=True)
    for name in ("taskpress", "checkpoint", "inputs", "scratch"):
        parser.add_argument("--" + name, type=lambda path: pathlib.Path(path).resolve(), required=True)
    args = parser.parse_args()
    args.case = "elastic-" + args.quant
    args.scratch.mkdir(parents=True, exist_ok=True)
    comparison = ElasticComparison(args, args.quant)
    return conclude(args.case, comparison.run)


if __name__ == "__main__":
    sys.exit(main())
