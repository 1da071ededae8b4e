#include "tests/reference/trusting_safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>

namespace taskpress::oracle {

int64_t StoredTensor::rows() const { return std::accumulate(shape.begin(), shape.end() - 1, int64_t{1}, std::multiplies()); }

int64_t StoredTensor::columns() const { return shape.back(); }

void StoredTensor::ReadRow(int64_t row, int64_t first, std::span<float> out) const {
  const auto start = static_cast<size_t>(row * columns() + first);
  if (dtype == "F32") {
    std::memcpy(out.data(), bytes.data() + start * sizeof(float), out.size_bytes());
  } else if (dtype == "BF16") {
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t upper_half = 0;
      std::memcpy(&upper_half, bytes.data() + (start + i) * sizeof(upper_half), sizeof(upper_half));
      out[i] = std::bit_cast<float>(static_cast<uint32_t>(upper_half) << 16);
    }
  } else {
    throw std::invalid_argument("the reference reads BF16 and F32, not " + dtype);
  }
}

std::vector<float> StoredTensor::Floats() const {
  std::vector<float> values(static_cast<size_t>(rows() * columns()));
  for (int64_t row = 0; row < rows(); ++row) {
    ReadRow(row, 0, std::span(values).subspan(static_cast<size_t>(row * columns()), static_cast<size_t>(columns())));
  }
  return values;
}

std::vector<int32_t> StoredTensor::Integers() const {
  if (dtype != "I32") throw std::invalid_argument("expected I32, found " + dtype);
  std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TrustingSafetensors TrustingSafetensors::Open(const std::filesystem::path& file_or_folder) {
  TrustingSafetensors result;
  if (!std::filesystem::is_directory(file_or_folder)) {
    result.Map(file_or_folder);
    return result;
  }
  for (const auto& entry : std::filesystem::directory_iterator(file_or_folder)) {
    if (entry.path().extension() == ".safetensors") result.Map(entry.path());
  }
  return result;
}

const StoredTensor& TrustingSafetensors::Get(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::out_of_range("no tensor \"" + name + "\"");
  return found->second;
}

// Layout: u64 little endian n, n bytes of JSON {name: {dtype, shape, data_offsets: [begin, end)}}, data.
void TrustingSafetensors::Map(const std::filesystem::path& file) {
  const size_t size = std::filesystem::file_size(file);
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  close(descriptor);
  if (address == MAP_FAILED) throw std::runtime_error("cannot map " + file.string());
  const auto* start = static_cast<const std::byte*>(address);
  mappings_.emplace_back(start, [address, size](const std::byte*) { munmap(address, size); });

  uint64_t header_size = 0;
  std::memcpy(&header_size, start, sizeof(header_size));
  const std::byte* header = start + sizeof(header_size);
  const std::byte* data = header + header_size;
  const auto json = nlohmann::json::parse(header, data);
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    const auto begin = entry.at("data_offsets").at(0).get<size_t>();
    const auto end = entry.at("data_offsets").at(1).get<size_t>();
    tensors_[name] = {.dtype = entry.at("dtype"), .shape = entry.at("shape"), .bytes = {data + begin, end - begin}};
  }
}

}  // namespace taskpress::oracle
