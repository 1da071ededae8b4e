"""Looks into .task and .litertlm files with the code of others: Python's zipfile and LiteRT-LM's own header schema.

Members are views over one mapping; nothing is copied. Run as a program it lists them.
"""
import dataclasses
import json
import mmap
import struct
import sys
import zipfile

MODEL = "TF_LITE_"


@dataclasses.dataclass(frozen=True)
class Member:
    kind: str  # "model", "tokenizer", "metadata" or what the container calls it
    name: str  # a model's type in lower case: "embedder", "per_layer_embedder", "prefill_decode", ...
    offset: int
    view: memoryview


class BundleFile:
    def __init__(self, path):
        self.path = str(path)
        with open(path, "rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(self._mapping)
        self.members = self._litertlm_members() if self._view[:8] == b"LITERTLM" else self._task_members()

    def models(self):
        return {m.name: m for m in self.members if m.kind == "model"}

    def tokenizer(self):
        return next(bytes(m.view) for m in self.members if m.kind == "tokenizer")

    def _member(self, kind, name, begin, end):
        return Member(kind, name, begin, self._view[begin:end])

    def _litertlm_members(self):
        from litert_lm_builder import litertlm_header_schema_py_generated as schema
        kinds = {schema.AnySectionDataType.TFLiteModel: "model", schema.AnySectionDataType.SP_Tokenizer: "tokenizer",
                 schema.AnySectionDataType.LlmMetadataProto: "metadata"}
        (header_end,) = struct.unpack_from("<Q", self._view, 24)
        sections = schema.LiteRTLMMetaData.GetRootAs(bytes(self._view[32:header_end]), 0).SectionMetadata()
        members = []
        for i in range(sections.ObjectsLength()):
            section = sections.Objects(i)
            kind = kinds.get(section.DataType(), f"section type {section.DataType()}")
            name = self._text_items(schema, section).get("model_type", kind).lower().removeprefix(MODEL.lower())
            members.append(self._member(kind, name, section.BeginOffset(), section.EndOffset()))
        return members

    @staticmethod
    def _text_items(schema, section):
        items = {}
        for i in range(section.ItemsLength()):
            item = section.Items(i)
            if item.ValueType() == schema.VData.StringValue:
                value = schema.StringValue()
                value.Init(item.Value().Bytes, item.Value().Pos)
                items[item.Key().decode()] = value.Value().decode()
        return items

    def _task_members(self):
        kinds = {"TOKENIZER_MODEL": "tokenizer", "METADATA": "metadata"}
        members = []
        with zipfile.ZipFile(self.path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{self.path}: {entry.filename} is compressed; readers map entries and refuse that")
                name_length, extra_length = struct.unpack_from("<HH", self._view, entry.header_offset + 26)
                begin = entry.header_offset + 30 + name_length + extra_length
                is_model = entry.filename.startswith(MODEL)
                kind = "model" if is_model else kinds.get(entry.filename, entry.filename)
                members.append(self._member(kind, entry.filename.removeprefix(MODEL).lower(), begin, begin + entry.file_size))
        return members


if __name__ == "__main__":
    for member in BundleFile(sys.argv[1]).members:
        print(json.dumps({"kind": member.kind, "name": member.name, "offset": member.offset, "bytes": len(member.view)}))
