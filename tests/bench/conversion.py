#!/usr/bin/env python3
"""A whole conversion beside the floor that the disk sets: read the source once, write the outputs once, fsync them.

  tests/bench/conversion.py CHECKPOINT --taskpress build/release/tools/taskpress --out DIR [--rounds 3] [--cold] [-- convert options]

Each round measures, one after the other: the floor (all input files read in blocks of 4 MiB, then as many bytes as the outputs have written
and synced), then the conversion. With --cold the page cache is emptied before both (needs root). Memory is the largest RssAnon in
/proc/PID/status while the conversion ran; --cgroup-limit BYTES also runs it in a memory cgroup of that size where the machine has one.
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time

BLOCK = 4 << 20


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3\n")


def input_files(folder):
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return [os.path.join(folder, name) for name in names if os.path.isfile(os.path.join(folder, name))]


def floor_seconds(files, size, out):
    buffer = bytearray(BLOCK)
    start = time.monotonic()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    read = time.monotonic() - start
    path = os.path.join(out, "floor.bin")
    noise = os.urandom(BLOCK)
    start = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for done in range(0, size, BLOCK):
            file.write(noise[: min(BLOCK, size - done)])
        os.fsync(file.fileno())
    written = time.monotonic() - start
    os.remove(path)
    return read, written


class Watch(threading.Thread):
    """The largest RssAnon and RssFile of a process."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak = pid, {"RssAnon": 0, "RssFile": 0}

    def run(self):
        while True:
            try:
                with open(f"/proc/{self.pid}/status") as file:
                    lines = file.read().splitlines()
            except OSError:
                return
            for line in lines:
                key = line.split(":")[0]
                if key in self.peak:
                    self.peak[key] = max(self.peak[key], int(line.split()[1]) * 1024)
            time.sleep(0.005)


class Cgroup:
    """A version 1 memory cgroup, or nothing."""

    def __init__(self, limit):
        self.path = None
        root = "/sys/fs/cgroup/memory"
        if limit and os.path.isdir(root):
            self.path = os.path.join(root, f"conversion-bench-{os.getpid()}")
            os.mkdir(self.path)
            with open(os.path.join(self.path, "memory.limit_in_bytes"), "w") as file:
                file.write(str(limit))

    def enter(self):
        if self.path:
            with open(os.path.join(self.path, "tasks"), "w") as file:
                file.write(str(os.getpid()))

    def close(self):
        if self.path:
            os.rmdir(self.path)


def convert(arguments, outputs, cgroup):
    command = [arguments.taskpress, "convert", arguments.checkpoint, "--json", "--progress", "json", "--force", *arguments.options]
    for output in outputs:
        command += ["-o", output]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=cgroup.enter)
    watch = Watch(process.pid)
    watch.start()
    out, err = process.communicate()
    seconds = time.monotonic() - start
    if process.returncode != 0:
        sys.exit(err)
    stages = [json.loads(line)["stages"] for line in err.splitlines() if line.startswith("{") and '"stages"' in line]
    return seconds, json.loads(out), watch.peak, stages[-1] if stages else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--taskpress", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--both", action="store_true", help="write both containers")
    parser.add_argument("--cgroup-limit", type=int, default=0)
    arguments, options = parser.parse_known_args()
    arguments.options = [option for option in options if option != "--"]
    files = input_files(arguments.checkpoint)
    outputs = [os.path.join(arguments.out, "bench.litertlm")] + ([os.path.join(arguments.out, "bench.task")] if arguments.both else [])
    if arguments.cold:
        drop_caches()
    plan = json.loads(subprocess.run([arguments.taskpress, "plan", arguments.checkpoint, "--json", *arguments.options,
                                      *[word for output in outputs for word in ("-o", output)]], check=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL, text=True).stdout)
    size = sum(output["bytes"] for output in plan["outputs"])
    print(f"source {sum(map(os.path.getsize, files)) / 1e9:.2f} GB, outputs {size / 1e9:.2f} GB, "
          f"forecast {plan.get('seconds', float('nan')):.1f} s, {plan['peak_anonymous_bytes'] / 1e6:.0f} MB")
    ratios = []
    for number in range(arguments.rounds):
        if arguments.cold:
            drop_caches()
        read, written = floor_seconds(files, size, arguments.out)
        if arguments.cold:
            drop_caches()
        cgroup = Cgroup(arguments.cgroup_limit)
        try:
            seconds, report, peak, stages = convert(arguments, outputs, cgroup)
        finally:
            cgroup.close()
        ratios.append(seconds / (read + written))
        split = " | ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in stages)
        print(f"round {number + 1}: floor {read:.1f} + {written:.1f} s, conversion {seconds:.1f} s, ratio {ratios[-1]:.2f}; "
              f"RssAnon {peak['RssAnon'] / 1e6:.0f} MB; made in {report['make_core_seconds']:.1f} core-s; {split}", flush=True)
    ratios.sort()
    print(f"median ratio {ratios[len(ratios) // 2]:.2f}")
    for output in outputs:
        for suffix in ("", ".lock.json"):
            os.remove(output + suffix)


if __name__ == "__main__":
    main()
