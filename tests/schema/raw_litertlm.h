// `.litertlm` headers built field by field, honest or lying. Uses the generated FlatBuffer code, none of schema/litertlm.
#ifndef TASKPRESS_TESTS_SCHEMA_RAW_LITERTLM_H_
#define TASKPRESS_TESTS_SCHEMA_RAW_LITERTLM_H_

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "schema/litertlm_generated.h"

namespace taskpress {

struct RawItem {
  std::string key;
  std::string value;
  std::optional<uint8_t> number_type = {};  // a VData tag other than StringValue: the value becomes a struct of 2025, one byte long
};

struct RawSection {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint8_t type = 0;
  std::vector<RawItem> items = {};
};

struct RawLitertlm {
  std::string magic = "LITERTLM";
  uint32_t version[3] = {1, 5, 0};
  std::optional<uint64_t> header_end = {};
  std::vector<RawItem> system = {{.key = "Authors", .value = "hand"}};
  std::vector<RawSection> sections = {};
  uint64_t file_size = 0;

  // FlatBuffer behind the fixed fields, then file_size bytes in all, each section filled with its index.
  [[nodiscard]] std::string Build() const {
    flatbuffers::FlatBufferBuilder builder;
    std::vector<flatbuffers::Offset<litertlm::SectionObject>> objects;
    for (const RawSection& section : sections) {
      const auto items = builder.CreateVector(BuildItems(builder, section.items));
      objects.push_back(litertlm::CreateSectionObject(builder, items, section.begin, section.end,
                                                      static_cast<litertlm::AnySectionDataType>(section.type)));
    }
    const auto list = litertlm::CreateSectionMetadata(builder, builder.CreateVector(objects));
    const auto entries = litertlm::CreateSystemMetadata(builder, builder.CreateVector(BuildItems(builder, system)));
    builder.Finish(litertlm::CreateLiteRTLMMetaData(builder, entries, list));

    std::string out = magic;
    out.append(reinterpret_cast<const char*>(version), sizeof(version)).append(4, '\0');
    const uint64_t end = header_end.value_or(32 + builder.GetSize());
    out.append(reinterpret_cast<const char*>(&end), sizeof(end));
    out.append(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
    out.resize(std::max<size_t>(out.size(), file_size));
    return out;
  }

 private:
  static std::vector<flatbuffers::Offset<litertlm::KeyValuePair>> BuildItems(flatbuffers::FlatBufferBuilder& builder,
                                                                             const std::vector<RawItem>& items) {
    std::vector<flatbuffers::Offset<litertlm::KeyValuePair>> out;
    for (const RawItem& item : items) {
      const auto key = builder.CreateString(item.key);
      flatbuffers::Offset<void> value;
      auto type = litertlm::VData::StringValue;
      if (item.number_type) {
        type = static_cast<litertlm::VData>(*item.number_type);
        const uint8_t number = 42;
        builder.StartStruct(1);
        builder.PushBytes(&number, 1);
        value = builder.EndStruct();
      } else {
        value = litertlm::CreateStringValue(builder, builder.CreateString(item.value)).Union();
      }
      out.push_back(litertlm::CreateKeyValuePair(builder, key, type, value));
    }
    return out;
  }
};

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_SCHEMA_RAW_LITERTLM_H_
