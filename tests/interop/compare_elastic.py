#!/usr/bin/env python3
"""An elastic bundle in LiteRT-LM: whichever size is active, in both containers, the client generates what we do.

  compare_elastic.py --quant QUANT --taskpress BINARY --activate BINARY --checkpoint DIR --inputs inputs.json --scratch DIR

Prints one JSON object. Exit code 1: not equal enough, or it did not run.
"""
import argparse
import json
import pathlib
import subprocess
import sys

from compare_bundle import CONTEXT, FLOATS, PREFILLS, RECIPES, Comparison, Failed

SMALLER = ("e2b", "mixed")  # names of inputs.json's slices
PROMPTS = (1, 2, 4, 7)


class ElasticComparison(Comparison):
    active = "e4b"

    def bundle(self, container="task"):
        return self.folder / f"{self.active}.{container}"

    def convert(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        specs = []
        for name in SMALLER:
            spec = self.folder / f"{name}.json"
            spec.write_text(json.dumps({"ffn": self.inputs["slices"][name]["ffn"], "skip": self.inputs["slices"][name]["drop"]}))
            specs.append(str(spec))
        self.taskpress("convert", self.args.checkpoint, "-o", self.bundle("task"), "-o", self.bundle("litertlm"), "--elastic",
                       ",".join(specs), "--quant", RECIPES[self.quant], "--context", CONTEXT, "--prefill", ",".join(map(str, PREFILLS)),
                       "--force", "--progress", "none")
        for container in ("task", "litertlm"):
            for name in SMALLER:
                command = [self.args.activate, self.folder / f"e4b.{container}", self.folder / f"{name}.{container}", name]
                subprocess.run([str(a) for a in command], check=True)

    def sizes(self):
        passed, report, generated = True, {}, {}
        for self.active in ("e4b", *SMALLER):
            for container in ("task", "litertlm"):
                fine, numbers = self.client(container, PROMPTS)
                passed &= fine
                report[f"{self.active}.{container}"] = {key: numbers[key] for key in ("tokens_agreed", "tokens")} | {"passed": fine}
            generated[self.active] = self.taskpress("run", self.bundle("task"), "--tokens", "2,5,9,100,200", "-n", 24, "--json")
        if len({json.loads(text)["text"] for text in generated.values()}) == 1:
            raise Failed("all sizes say the same: is the active one really another?")
        return passed, report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant", choices=sorted(RECIPES), required=True)
    for name in ("taskpress", "activate", "checkpoint", "inputs", "scratch"):
        parser.add_argument("--" + name, type=lambda path: pathlib.Path(path).resolve(), required=True)
    args = parser.parse_args()
    comparison = ElasticComparison(args, args.quant)
    try:
        comparison.convert()
        passed, report = comparison.sizes()
    except (Failed, OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as problem:
        print(problem, file=sys.stderr)
        passed, report = False, {}
    print(json.dumps({"quant": args.quant, "floats": args.quant in FLOATS, "passed": passed, **report}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
