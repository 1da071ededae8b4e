#!/usr/bin/env python3
"""Taskpress beside LiteRT-LM and llama.cpp: the same bundle, the same shape, taking turns.

  tests/bench/versus.py BUNDLE --taskpress build/release/tools/taskpress [--clients VENV] [--client-cache file|memory] [--llama-bench PATH --gguf FILE]
      [-p 512] [-n 64] [-t 2] [-r 5] [--drop-caches] [--json FILE] [--markdown FILE]

Each round starts every program once as a process of its own: A B C, A B C, ... Every process prefills and decodes once after loading; figures are
its own, wall time and peak memory (VmHWM, and RssAnon and RssFile sampled every 10 ms) are the system's. Medians over the rounds, and ratios of
medians to Taskpress's.

First comes one start of each without any packed weights from before (cold: Taskpress's <bundle>.packed and LiteRT-LM's cache folder are in a
temporary folder that is empty then), --cold-rounds times; all other starts find them. --drop-caches empties the page cache before the cold starts as
well (needs root). VENV is made by tests/interop/setup_clients.sh.

llama.cpp is measured by its own llama-bench (from the PATH without --llama-bench) on a GGUF of the same shape, which make_gguf.py writes; it keeps
nothing from one start to the next, so it has no cold start. Decoding is timed behind the prompt, as in the others, in a second process
(llama-bench -d), and with nothing before it, as llama-bench does by itself. It warms up before it measures, which the others do not: so no wall time
of it, and the warm-up is in its favour. A program that is not there is left out, and a line says so.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FIGURES = {
    "prefill_tokens_per_s": ("prefill (tok/s)", "more"),
    "decode_tokens_per_s": ("decode (tok/s)", "more"),
    "empty_decode_tokens_per_s": ("decode, nothing before it (tok/s)", "more"),
    "time_to_first_token_s": ("time to first token (s)", "less"),
    "load_s": ("start, warm (s)", "less"),
    "start_to_first_token_s": ("start to first token, warm (s)", "less"),
    "cold_load_s": ("start, cold (s)", "less"),
    "wall_s": ("whole process (s)", "less"),
    "peak_rss_bytes": ("peak memory (MB)", "less"),
    "peak_anonymous_bytes": ("peak memory, anonymous (MB)", "less"),
    "peak_file_bytes": ("peak memory, of files (MB)", "less"),
}


class Watch(threading.Thread):
    """Memory of a process while it runs."""

    KEYS = {"VmHWM": "peak_rss_bytes", "RssAnon": "peak_anonymous_bytes", "RssFile": "peak_file_bytes"}

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peaks = pid, dict.fromkeys(self.KEYS.values(), 0)

    def run(self):
        while True:
            try:
                with open(f"/proc/{self.pid}/status") as file:
                    lines = file.read().splitlines()
            except OSError:
                return
            found = False
            for line in lines:
                key = line.split(":")[0]
                if key in self.KEYS:
                    found = True
                    self.peaks[self.KEYS[key]] = max(self.peaks[self.KEYS[key]], int(line.split()[1]) * 1024)
            if not found:  # it has ended and waits to be reaped
                return
            time.sleep(0.01)


def run(command):
    """-> (standard output, figures of the system)"""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    watch.start()
    out, err = process.communicate()
    wall = time.monotonic() - start
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{err}")
    watch.join()
    return out, {"wall_s": wall, **watch.peaks}


class Taskpress:
    name = "Taskpress"
    keeps_weights = True

    def __init__(self, args, caches):
        self.cache = os.path.join(caches, "taskpress")
        self.commands = [[args.taskpress, "bench", args.bundle, "-p", str(args.prefill), "-n", str(args.decode), "-r", "1", "-t", str(args.threads),
                          "--warm-up", "0", "--no-second-start", "--no-roofline", "--json", "--weight-cache", self.cache, *args.taskpress_option]]

    def forget(self):
        shutil.rmtree(self.cache, ignore_errors=True)

    def measure(self):
        out, system = run(self.commands[0])
        report = json.loads(out)
        return {**system, "prefill_tokens": report["prefill"]["tokens"], "prefill_tokens_per_s": report["prefill"]["tokens_per_s"]["mean"],
                "decode_tokens": report["decode"]["tokens"], "decode_tokens_per_s": report["decode"]["tokens_per_s"]["mean"],
                "time_to_first_token_s": report["time_to_first_token_s"], "load_s": report["load_s"], "weight_cache": report["weight_cache"]}


class LiteRtLm:
    name = "LiteRT-LM"
    keeps_weights = True

    @staticmethod
    def missing(args):
        if not args.clients:
            return "no --clients VENV"
        return missing_program(os.path.join(args.clients, "bin", "python"))

    def __init__(self, args, caches):
        self.cache = os.path.join(caches, "litert-lm") if args.client_cache == "file" else ":memory"
        self.commands = [[os.path.join(args.clients, "bin", "python"), os.path.join(HERE, "..", "interop", "run_litert_lm.py"), args.bundle,
                          "--benchmark", f"{args.prefill},{args.decode}", "--threads", str(args.threads), "--cache", self.cache]]

    def forget(self):
        if self.cache != ":memory":
            shutil.rmtree(self.cache, ignore_errors=True)
            os.makedirs(self.cache)

    def measure(self):
        out, system = run(self.commands[0])
        return {**system, **json.loads(out.splitlines()[-1])}


class LlamaCpp:
    name = "llama.cpp"
    keeps_weights = False

    def __init__(self, args, _caches):
        common = [args.llama_bench, "-m", args.gguf, "-n", str(args.decode), "-t", str(args.threads), "-r", "1", "-ngl", "0", "-o", "json"]
        self.commands = [[*common, "-p", str(args.prefill)], [*common, "-p", "0", "-d", str(args.prefill)]]
        self.build = {}

    @staticmethod
    def missing(args):
        if not args.llama_bench:
            return "no llama-bench in the PATH and no --llama-bench PATH"
        if not args.gguf:
            return "no --gguf FILE for llama-bench"
        return missing_program(args.llama_bench) or (None if os.path.exists(args.gguf) else f"no file {args.gguf}")

    def measure(self):
        figures = {}
        for command in self.commands:
            out, system = run(command)
            del system["wall_s"]  # with its warm-up
            for key, value in system.items():
                figures[key] = max(value, figures.get(key, 0))
            for test in json.loads(out):
                kind = "prefill" if test["n_gen"] == 0 else "decode" if test["n_depth"] else "empty_decode"
                figures[f"{kind}_tokens_per_s"] = test["avg_ts"]
                figures[f"{kind}_tokens"] = test["n_prompt"] or test["n_gen"]
                self.build = {key: test[key] for key in ("build_number", "build_commit", "backends", "model_type", "model_size", "model_n_params")}
        return figures


def missing_program(path):
    return None if shutil.which(path) else f"no program {path}"


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3\n")


def cpu():
    found = {"model name": platform.processor() or "unknown", "flags": ""}
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() in found:
                found[key.strip()] = value.strip()
            if not line.strip():
                break
    return found["model name"], found["flags"]


def measure(programs, args):
    """-> {program: {figure: [values]}}"""
    values = {program.name: {} for program in programs}

    def note(program, figures):
        for key, value in figures.items():
            values[program.name].setdefault(key, []).append(value)

    for _ in range(args.cold_rounds):
        for program in programs:
            if not program.keeps_weights:
                continue
            program.forget()
            if args.drop_caches:
                drop_caches()
            figures = program.measure()
            if "load_s" in figures:
                note(program, {"cold_load_s": figures["load_s"]})
            print(f"{program.name}, cold: " + summary(figures), file=sys.stderr, flush=True)
    for number in range(args.rounds):
        for program in programs:
            figures = program.measure()
            if "load_s" in figures:
                figures["start_to_first_token_s"] = figures["load_s"] + figures["time_to_first_token_s"]
            note(program, figures)
            print(f"{program.name}, round {number + 1}: " + summary(figures), file=sys.stderr, flush=True)
    return values


def summary(figures):
    return ", ".join(f"{FIGURES[key][0]} {shown(key, figures[key])}" for key in FIGURES if key in figures)


def shown(key, value):
    if key.endswith("_bytes"):
        return f"{value / 1e6:.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def medians(values):
    return {name: {key: statistics.median(runs) for key, runs in figures.items() if key in FIGURES} for name, figures in values.items()}


def markdown(report):
    names = list(report["medians"])
    ours = names[0]
    lines = [f"{report['cpu']}, {report['threads']} threads, {report['rounds']} rounds; {os.path.basename(report['bundle'])}, prefill "
             f"{report['prefill']}, decode {report['decode']}. Medians; in brackets {ours} / other.", "",
             *(f"{name}: left out, {reason}" for name, reason in report["left_out"].items()), *([""] if report["left_out"] else []),
             "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, (title, _) in FIGURES.items():
        cells = []
        for name in names:
            value = report["medians"][name].get(key)
            if value is None:
                cells.append("")
                continue
            ratio = report["ratios"].get(name, {}).get(key)
            cells.append(shown(key, value) + (f" ({ratio:.2f})" if ratio is not None else ""))
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", f"CPU flags: {report['cpu_flags']}", ""]
    return "\n".join(lines)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--taskpress", required=True)
    parser.add_argument("--taskpress-option", action="append", default=[], help="passed on to bench, such as --taskpress-option=--kernels=xnnpack")
    parser.add_argument("--clients", help="virtual environment with LiteRT-LM")
    parser.add_argument("--client-cache", choices=["file", "memory"], default="file",
                        help="where LiteRT-LM keeps packed weights; memory: it packs them at every start")
    parser.add_argument("--llama-bench", default=shutil.which("llama-bench"), help="llama.cpp's own benchmark")
    parser.add_argument("--gguf", help="what llama-bench runs")
    parser.add_argument("-p", "--prefill", type=int, default=512)
    parser.add_argument("-n", "--decode", type=int, default=64)
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--cold-rounds", type=int, default=1)
    parser.add_argument("--drop-caches", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    if args.rounds < 1 or args.cold_rounds < 1:
        parser.error("--rounds and --cold-rounds: at least 1")
    return args


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="versus-", dir=os.path.dirname(os.path.abspath(args.bundle))) as caches:
        programs, left_out = [Taskpress(args, caches)], {}
        for kind in (LiteRtLm, LlamaCpp):
            reason = kind.missing(args)
            if reason:
                left_out[kind.name] = reason
                print(f"{kind.name}: left out, {reason}", file=sys.stderr, flush=True)
            else:
                programs.append(kind(args, caches))
        values = measure(programs, args)
    model, flags = cpu()
    found = medians(values)
    ours = found[programs[0].name]
    ratios = {name: {key: ours[key] / value for key, value in figures.items() if key in ours and value}
              for name, figures in found.items() if name != programs[0].name}
    report = {"schema": "taskpress/versus/1", "bundle": args.bundle, "prefill": args.prefill, "decode": args.decode, "threads": args.threads,
              "rounds": args.rounds, "cold_rounds": args.cold_rounds, "page_cache_dropped_before_cold": args.drop_caches, "cpu": model,
              "cpu_flags": flags, "commands": {program.name: program.commands for program in programs},
              "builds": {program.name: program.build for program in programs if hasattr(program, "build")}, "left_out": left_out,
              "medians": found, "ratios": ratios, "runs": values}
    print(markdown(report))
    for path, text in ((args.json, json.dumps(report, indent=2) + "\n"), (args.markdown, markdown(report))):
        if path:
            with open(path, "w") as file:
                file.write(text)


if __name__ == "__main__":
    main()
