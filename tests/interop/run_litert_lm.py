#!/usr/bin/env python3
"""Runs a bundle in LiteRT-LM on the CPU; one JSON object a line.

  run_litert_lm.py BUNDLE --tokens 2,818,5279 [--tokens ...] -n 32     greedy continuations
  run_litert_lm.py BUNDLE --benchmark 512,64 [--threads 2]             prefill and decode speed

The client takes and gives text. Prompts are given here as ids that start with the id the client puts first by itself; ids that do not
survive detokenizing and tokenizing are refused.
"""
import argparse
import json
import sys

import litert_lm
import sentencepiece

from bundle_file import BundleFile

# One packed copy of the weights, shared by all signatures, gone with the process.
CACHE = ":memory"


class Unusable(ValueError):
    """The client cannot be given these ids."""


def ids_by_piece(path):
    processor = sentencepiece.SentencePieceProcessor(model_proto=BundleFile(path).tokenizer())
    table = {}
    for i in range(processor.get_piece_size()):
        if not processor.is_control(i) and not processor.is_byte(i):
            table.setdefault(processor.id_to_piece(i).replace("\u2581", " "), i)
    return table


class Client:
    def __init__(self, path, threads=1, verbose=False):
        litert_lm.set_min_log_severity(litert_lm.LogSeverity.INFO if verbose else litert_lm.LogSeverity.ERROR)
        self._pieces = ids_by_piece(path)
        self._engine = litert_lm.Engine(str(path), backend=litert_lm.Backend.CPU(thread_count=threads), cache_dir=CACHE,
                                        enable_benchmark=True)

    def __enter__(self):
        self._engine.__enter__()
        return self

    def __exit__(self, *error):
        return self._engine.__exit__(*error)

    def detokenize(self, tokens):
        return self._engine.detokenize(list(tokens)) if tokens else ""

    def stop_ids(self):
        return {ids[0] for ids in self._engine.eos_token_ids if len(ids) == 1}

    def continue_greedily(self, tokens, count):
        """-> {"tokens": the ids, "exact": whether they are certain, "text": their text}"""
        first, rest = tokens[0], list(tokens[1:])
        if first != self._engine.bos_token_id:
            raise Unusable(f"prompts start with {self._engine.bos_token_id}, the client puts it there; found {first}")
        text = self.detokenize(rest)
        if not rest or self._engine.tokenize(text) != rest:
            raise Unusable("these ids do not survive detokenizing and tokenizing")
        greedy = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0, seed=1)
        # A session left open when the engine closes prints errors at exit.
        with self._engine.create_session(apply_prompt_template=False, sampler_config=greedy, max_output_tokens=count) as session:
            session.run_prefill([text])
            chunks = [response.texts[0] for response in session.run_decode_async() if response.texts]
            prefilled = session.get_benchmark_info().last_prefill_token_count
        return {"prefilled": prefilled, **self._recover(chunks)}

    def _recover(self, chunks):
        """A chunk of streamed text is one piece, except where bytes of one character had to be waited for."""
        ids = [self._pieces.get(chunk, -1) for chunk in chunks]
        text = "".join(chunks)
        return {"tokens": ids, "exact": -1 not in ids and self.detokenize(ids) == text, "text": text}


def benchmark(path, prefill, decode, threads, cache=CACHE):
    info = litert_lm.Benchmark(str(path), litert_lm.Backend.CPU(thread_count=threads), prefill_tokens=prefill, decode_tokens=decode,
                               cache_dir=cache).run()
    return {"threads": threads, "load_s": info.init_time_in_second, "time_to_first_token_s": info.time_to_first_token_in_second,
            "prefill_tokens": info.last_prefill_token_count, "prefill_tokens_per_s": info.last_prefill_tokens_per_second,
            "decode_tokens": info.last_decode_token_count, "decode_tokens_per_s": info.last_decode_tokens_per_second}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", action="append", default=[])
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--benchmark", metavar="PREFILL,DECODE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", default=CACHE, help="folder where --benchmark keeps packed weights; default: in memory")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if args.benchmark:
        litert_lm.set_min_log_severity(litert_lm.LogSeverity.INFO if args.verbose else litert_lm.LogSeverity.ERROR)
        prefill, decode = (int(n) for n in args.benchmark.split(","))
        print(json.dumps(benchmark(args.bundle, prefill, decode, args.threads, args.cache)))
        return 0
    with Client(args.bundle, args.threads, args.verbose) as client:
        for prompt in args.tokens:
            try:
                print(json.dumps(client.continue_greedily([int(t) for t in prompt.split(",")], args.n), ensure_ascii=False), flush=True)
            except Unusable as problem:
                print(json.dumps({"refused": str(problem)}))
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
