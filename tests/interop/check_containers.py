#!/usr/bin/env python3
"""Cross-check the framing of bundles with readers we did not write: Python's zipfile for .task, litert-lm-builder (when it can be imported)
for .litertlm. Prints one JSON object per bundle; exit code 0 = all fine, 1 = not.

  check_containers.py BUNDLE...
"""
import io
import json
import struct
import sys
import zipfile


def check_task(path):
    problems = []
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        bad = archive.testzip()
        if bad is not None:
            problems.append(f"{bad}: CRC-32 differs")
        file.seek(4)
        if file.read(2) != b"PK":
            problems.append("PK is not at byte 4")
        sections = []
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            offset = info.header_offset + 30 + name_bytes + extra_bytes
            sections.append({"name": info.filename, "offset": offset, "bytes": info.file_size})
            if info.compress_type != zipfile.ZIP_STORED:
                problems.append(f"{info.filename}: not stored")
            if info.flag_bits != 0:
                problems.append(f"{info.filename}: flags {info.flag_bits:#x}")
            if offset % 64 != 0:
                problems.append(f"{info.filename}: data at {offset}, not a multiple of 64")
            if info.date_time != (1980, 1, 1, 0, 0, 0):
                problems.append(f"{info.filename}: dated {info.date_time}")
    return sections, problems


def check_litertlm(path):
    try:
        from litert_lm_builder import litertlm_peek
    except ImportError:
        return [], ["litert-lm-builder is not installed: could not check"]
    problems = []
    versions = io.StringIO()
    metadata = litertlm_peek.read_litertlm_header(path, versions)
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(24)
        header_end = struct.unpack("<Q", file.read(8))[0]
    if header_end > 16384:
        problems.append(f"header ends at {header_end}, clients read 16384 bytes")
    sections, last_end = [], header_end
    table = metadata.SectionMetadata()
    for i in range(table.ObjectsLength()):
        section = table.Objects(i)
        name = litertlm_peek.get_model_type(section) or f"type {section.DataType()}"
        begin, end = section.BeginOffset(), section.EndOffset()
        sections.append({"name": name, "offset": begin, "bytes": end - begin})
        if begin % 16384 != 0:
            problems.append(f"{name}: begins at {begin}, not a multiple of 16384")
        if not last_end <= begin < end <= size:
            problems.append(f"{name}: [{begin}, {end}) overlaps or leaves the file of {size} bytes")
        last_end = end
    if last_end != size:
        problems.append(f"{size - last_end} bytes follow the last section")
    return sections, problems


def check(path):
    with open(path, "rb") as file:
        is_litertlm = file.read(8) == b"LITERTLM"
    try:
        sections, problems = (check_litertlm if is_litertlm else check_task)(path)
    except Exception as error:  # whatever a foreign reader raises is its verdict
        sections, problems = [], [f"{type(error).__name__}: {error}"]
    print(json.dumps({"bundle": path, "sections": sections, "problems": problems}))
    return not problems


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
