#include "schema/base/hash.h"

#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>
#include <format>

#include "schema/base/error.h"

namespace taskpress {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) { EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr); }
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Update(ByteView bytes) { EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()); }

std::string Sha256::FinishHex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  EVP_DigestFinal_ex(state_->context, digest.data(), &length);
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) hex += Format("{:02x}", digest[i]);
  return hex;
}

std::string Sha256Hex(ByteView bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.FinishHex();
}

uint32_t Crc32(uint32_t crc, ByteView bytes) {
  return static_cast<uint32_t>(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

uint32_t Crc32Zeros(uint32_t crc, uint64_t bytes) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  while (bytes > 0) {
    const uint64_t step = std::min<uint64_t>(bytes, kZeros.size());
    crc = Crc32(crc, ByteView(kZeros).first(step));
    bytes -= step;
  }
  return crc;
}

uint32_t Crc32Combine(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b) {
  return static_cast<uint32_t>(crc32_combine(crc_a, crc_b, static_cast<z_off_t>(bytes_b)));
}

}  // namespace taskpress
