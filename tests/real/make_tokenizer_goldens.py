#!/usr/bin/env python3
"""Tokenizes the 100,000 lines of mixed_text.py with the real Gemma 3 vocabulary and writes tests/data/gemma3-270m/mixed-text-ids.json.

  make_tokenizer_goldens.py gemma3-270m.gguf tests/data/gemma3-270m/mixed-text-ids.json

The ids are those of the fast tokenizer that transformers makes from the GGUF file (of the SHA-256 below), without <bos>. Made with
Python 3.11, transformers 5.23.0, tokenizers 0.23.3; for the comparison sentencepiece 0.2.3, protobuf 7.36.2 and gguf 0.19.0.

For each block of 1000 lines the file has:
  text_sha256   of its bytes, every line with its LF
  ids_sha256    of its ids, each as four little-endian bytes, every line ended by ff ff ff ff
  ids           how many ids

Printed and not stored: on which lines the SentencePiece library differs, given the same vocabulary as a model of its own, and which
lines do not come back from decoding; why, as far as the reasons below explain it ("unexplained" is the rest); examples, each with the
part where the two differ. What it found, for the committed file:
  - the GGUF spells the pieces for runs of spaces with spaces; SentencePiece cannot find them before they are respelled with U+2581
  - transformers takes the spelling of a control token in a text for the token; SentencePiece never does
  - of 32 spaces and more SentencePiece takes 31 at a time, as user-defined pieces are matched; transformers merges them, which gives 16
    at a time and 16 to 31 at the end
  - nothing else: with control tokens as text and the space pieces made ordinary pieces of high score, all lines are the same
  - U+2581 comes back from decoding as a space; all else comes back
"""
import argparse
import collections
import hashlib
import json
import pathlib
import re
import struct
import sys

import gguf
import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2 as model_pb2

import mixed_text

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
BLOCK = 1000
END_OF_LINE = b"\xff\xff\xff\xff"
EXAMPLES = 2
SPACE = "\u2581"  # as SentencePiece writes it
BEFORE_ALL = 1000  # a score; those of ordinary pieces are 0 and below
Piece = model_pb2.ModelProto.SentencePiece


class Vocabulary:
    """What the GGUF file says about its pieces. Its type numbers are SentencePiece's."""

    def __init__(self, file):
        fields = gguf.GGUFReader(file).fields
        self.pieces, self.scores, self.types = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type"))
        self.unk = fields["tokenizer.ggml.unknown_token_id"].contents()

    def control_pieces(self):
        return [piece for piece, kind in zip(self.pieces, self.types) if kind == Piece.CONTROL]

    def sentencepiece_model(self, respell_spaces, merge_spaces):
        """respell_spaces: write the pieces for runs of spaces with U+2581. merge_spaces: make them ordinary pieces that merge before all others."""
        model = model_pb2.ModelProto()
        for piece, score, kind in zip(self.pieces, self.scores, self.types):
            if respell_spaces and not piece.strip(" "):
                score, kind = (BEFORE_ALL - len(piece), Piece.NORMAL) if merge_spaces else (score, kind)
                piece = piece.replace(" ", SPACE)
            model.pieces.add(piece=piece, score=score, type=kind)
        model.pieces[self.unk].type = Piece.UNKNOWN  # the GGUF says control
        model.trainer_spec.model_type = model_pb2.TrainerSpec.BPE
        model.trainer_spec.byte_fallback = True
        model.trainer_spec.vocab_size = len(self.pieces)
        model.trainer_spec.unk_id = self.unk
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        model.normalizer_spec.escape_whitespaces = True
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def open_tokenizer(file):
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{file}: SHA-256 is {found}, the goldens are of {SHA256}")
    return transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def sha256(parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def as_bytes(ids):
    return struct.pack(f"<{len(ids)}I", *ids) + END_OF_LINE


def goldens(texts, ids):
    blocks = []
    for first in range(0, len(texts), BLOCK):
        block_ids = ids[first : first + BLOCK]
        blocks.append({"text_sha256": sha256(text.encode("utf-8") + b"\n" for text in texts[first : first + BLOCK]),
                       "ids_sha256": sha256(map(as_bytes, block_ids)), "ids": sum(map(len, block_ids))})
    return {"gguf_sha256": SHA256, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "lines": len(texts),
            "text_sha256": sha256(text.encode("utf-8") + b"\n" for text in texts), "ids": sum(map(len, ids)),
            "distinct_ids": len(set().union(*ids)), "lines_per_block": BLOCK, "blocks": blocks}


def differing_part(one, other):
    """Both without what they share at the start and at the end."""
    first, shared = 0, min(len(one), len(other))
    while first < shared and one[first] == other[first]:
        first += 1
    last = 0
    while last < shared - first and one[-1 - last] == other[-1 - last]:
        last += 1
    return one[first : len(one) - last], other[first : len(other) - last]


def report_differences(title, kinds, texts, ones, others, reasons, show):
    """Each differing line counts for the first reason (what, regular expression) found in it."""
    found = collections.defaultdict(list)
    for i, text in enumerate(texts):
        if ones[i] != others[i]:
            found[next((what for what, pattern in reasons if re.search(pattern, text)), "unexplained")].append(i)
    print(f"{title}: {sum(map(len, found.values()))} of {len(texts)} lines differ")
    for what, lines in found.items():
        print(f"  {len(lines)}: {what}; {dict(collections.Counter(kinds[i] for i in lines))}")
        for i in lines[:EXAMPLES]:
            one, other = differing_part(ones[i], others[i])
            print(f"    line {i}: {texts[i]!a}\n      {show(one)}\n      {show(other)}")


def report_sentencepiece(tokenizer, vocabulary, kinds, texts, ids):
    control_as_text = tokenizer(texts, add_special_tokens=False, split_special_tokens=True).input_ids
    two_spaces = "two spaces in a row", f"[ {SPACE}]{{2}}"
    many_spaces = "32 spaces in a row", f"[ {SPACE}]{{32}}"
    control = "spelling of a control token", "|".join(map(re.escape, vocabulary.control_pieces()))
    for title, respell, merge, own, reasons in (
            ("SentencePiece with the pieces as in the GGUF", False, False, ids, [two_spaces, control]),
            ("SentencePiece with space pieces respelled", True, False, ids, [control, many_spaces]),
            ("the same, and transformers with split_special_tokens", True, False, control_as_text, [many_spaces]),
            ("the same, and space pieces merge", True, True, control_as_text, [])):
        others = vocabulary.sentencepiece_model(respell, merge).encode(texts, num_threads=1)
        report_differences(title, kinds, texts, own, others, reasons, tokenizer.convert_ids_to_tokens)


def report_decoding(tokenizer, kinds, texts, ids):
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    report_differences("decoding", kinds, texts, texts, decoded, [("U+2581", SPACE)], ascii)
    texts = [text.replace(SPACE, " ") for text in texts]
    report_differences("decoding, U+2581 taken for a space", kinds, texts, texts, decoded, [], ascii)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()

    tokenizer = open_tokenizer(args.gguf)
    kinds, texts = map(list, zip(*mixed_text.lines()))
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    document = goldens(texts, ids)
    args.out.write_text(json.dumps(document, indent=0) + "\n")
    print(f"{document['ids']} ids, {document['distinct_ids']} of them distinct; text {document['text_sha256']}")
    report_sentencepiece(tokenizer, Vocabulary(args.gguf), kinds, texts, ids)
    report_decoding(tokenizer, kinds, texts, ids)


if __name__ == "__main__":
    main()
