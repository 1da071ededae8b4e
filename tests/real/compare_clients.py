#!/usr/bin/env python3
"""Holds bundles of Gemma 3 270M in our runtime against LiteRT-LM: greedy continuations of the goldens' prompts. One JSON line.

  compare_clients.py --quant f32|int8 --taskpress BINARY --goldens goldens.json --bundles FOLDER (with QUANT.litertlm)

f32: the client must give transformers' ids for every prompt. int8: the ids of our runtime up to the first whose best logit is less than
0.05 above the second, on the short prompts. Exit code 1: not equal enough, or it did not run.
"""
import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import compare_bundle  # noqa: E402

SHORT = 100  # ids; every row of logits is a megabyte


class RealComparison(compare_bundle.Comparison):
    def __init__(self, args):
        self.args, self.quant, self.folder = args, args.quant, args.bundles
        args.case = f"real-{args.quant}"
        self.goldens = json.loads(args.goldens.read_text())["prompts"]
        self.inputs = {"prompts": [prompt["ids"] for prompt in self.goldens]}

    def bundle(self, container="litertlm"):
        return self.folder / f"{self.quant}.{container}"

    def floats(self):
        """The client against transformers, whose continuations ours has already been held to."""
        from run_litert_lm import Client
        with Client(self.bundle(), threads=2) as client:
            theirs = [client.continue_greedily(prompt["ids"], len(prompt["greedy"])) for prompt in self.goldens]
        agreed = [self.same(prompt["greedy"], found) for prompt, found in zip(self.goldens, theirs)]
        return all(agreed), {"prompts": len(agreed), "equal": sum(agreed), "exact_ids": [found["exact"] for found in theirs]}

    @staticmethod
    def same(expected, found):
        if not found["exact"]:
            raise compare_bundle.Failed(f"the client's text has several spellings in ids: {found['text']!r}")
        return found["tokens"] == expected


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant", choices=("f32", "int8"), required=True)
    for name in ("taskpress", "goldens", "bundles"):
        parser.add_argument("--" + name, type=lambda path: pathlib.Path(path).resolve(), required=True)
    comparison = RealComparison(parser.parse_args())
    short = [p for p, ids in enumerate(comparison.inputs["prompts"]) if len(ids) < SHORT]
    try:
        passed, report = comparison.floats() if comparison.quant == "f32" else comparison.client("litertlm", short)
    except (compare_bundle.Failed, OSError, RuntimeError, ValueError) as problem:
        print(problem, file=sys.stderr)
        passed, report = False, {}
    print(json.dumps({"case": comparison.args.case, "passed": passed, **report}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
