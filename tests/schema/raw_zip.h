// Zip archives written by hand, honest or lying in any field. Shares no code with schema/zip_records, so that it can disagree with it.
#ifndef TASKPRESS_TESTS_SCHEMA_RAW_ZIP_H_
#define TASKPRESS_TESTS_SCHEMA_RAW_ZIP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schema/base/hash.h"

namespace taskpress {

// What one header says about its entry; the local header and the directory can be told different things.
struct RawHeader {
  std::string name = {};
  uint16_t flags = 0;
  uint16_t method = 0;
  uint32_t crc32 = 0;
  uint32_t stored_size = 0;
  uint32_t size = 0;
  std::string extra = {};
};

struct RawEntry {
  RawEntry(std::string name, std::string bytes) : data(std::move(bytes)) {
    local = {.name = std::move(name),
             .crc32 = Crc32(0, AsBytes(data)),
             .stored_size = static_cast<uint32_t>(data.size()),
             .size = static_cast<uint32_t>(data.size())};
    central = local;
  }
  // Both headers at once.
  template <typename Change>
  void Say(Change change) {
    change(local);
    change(central);
  }

  std::string gap = {};  // in front of the local header
  RawHeader local;
  RawHeader central;
  std::string data;
  std::optional<uint32_t> offset;  // the directory's word for where the local header is
  uint16_t disk = 0;
};

struct RawZip {
  std::vector<RawEntry> entries = {};
  std::string gap = {};      // before the directory
  std::string comment = {};  // of the archive
  std::string tail = {};     // after the end record
  std::optional<uint16_t> count = {};
  std::optional<uint32_t> directory_size = {};
  std::optional<uint32_t> directory_offset = {};
  std::optional<uint16_t> comment_size = {};
  uint16_t disk = 0;
  std::string zip64 = {};  // between directory and end record

  [[nodiscard]] std::string Build() const {
    std::string out;
    std::vector<size_t> offsets;
    for (const RawEntry& entry : entries) {
      out += entry.gap;
      offsets.push_back(out.size());
      out += "PK\x03\x04" + Number<uint16_t>(20) + Common(entry.local) + entry.local.name + entry.local.extra + entry.data;
    }
    out += gap;
    const size_t directory = out.size();
    for (size_t i = 0; i < entries.size(); ++i) {
      const RawEntry& entry = entries[i];
      out += "PK\x01\x02" + Number<uint16_t>(20) + Number<uint16_t>(20) + Common(entry.central);
      out += Number<uint16_t>(0) + Number(entry.disk) + Number<uint16_t>(0) + Number<uint32_t>(0);
      out += Number(entry.offset.value_or(static_cast<uint32_t>(offsets[i]))) + entry.central.name + entry.central.extra;
    }
    const size_t size = out.size() - directory;
    const uint16_t number = count.value_or(static_cast<uint16_t>(entries.size()));
    out += zip64 + "PK\x05\x06" + Number(disk) + Number(disk) + Number(number) + Number(number);
    out +=
        Number(directory_size.value_or(static_cast<uint32_t>(size))) + Number(directory_offset.value_or(static_cast<uint32_t>(directory)));
    return out + Number(comment_size.value_or(static_cast<uint16_t>(comment.size()))) + comment + tail;
  }

  template <typename T>
  static std::string Number(T value) {
    std::string out(sizeof(T), '\0');
    std::memcpy(out.data(), &value, sizeof(T));
    return out;
  }

 private:
  static std::string Common(const RawHeader& header) {
    return Number(header.flags) + Number(header.method) + Number<uint16_t>(0) + Number<uint16_t>(0x21) + Number(header.crc32) +
           Number(header.stored_size) + Number(header.size) + Number(static_cast<uint16_t>(header.name.size())) +
           Number(static_cast<uint16_t>(header.extra.size()));
  }
};

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_SCHEMA_RAW_ZIP_H_
