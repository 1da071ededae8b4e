// Digests: SHA-256 (OpenSSL) for identity, CRC-32 (zlib) for zip entries.
#ifndef TASKPRESS_SCHEMA_BASE_HASH_H_
#define TASKPRESS_SCHEMA_BASE_HASH_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "schema/base/bytes.h"

namespace taskpress {

// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(ByteView bytes);
  // 64 lower-case hexadecimal digits. Call once.
  std::string FinishHex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(ByteView bytes);

// CRC-32 as zip uses it; continue with the previous value, start with 0.
uint32_t Crc32(uint32_t crc, ByteView bytes);
// CRC-32 of `bytes` zero bytes after `crc`.
uint32_t Crc32Zeros(uint32_t crc, uint64_t bytes);
// CRC-32 of A followed by B, from both values and B's length.
uint32_t Crc32Combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_BASE_HASH_H_
