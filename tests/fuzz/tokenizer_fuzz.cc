// tokenizer.model from anybody: what is accepted must load, tokenize and print without harm.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "schema/base/bytes.h"
#include "schema/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const taskpress::Result<taskpress::Tokenizer> tokenizer = taskpress::Tokenizer::FromModel(std::as_bytes(std::span(data, size)));
  if (!tokenizer) return 0;
  std::vector<int32_t> all(static_cast<size_t>(tokenizer->vocab_size()));
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) all[static_cast<size_t>(id)] = id;
  if (!tokenizer->Decode(all)) std::abort();
  for (const char* text :
       {"<bos>ab the  abc\n\xC3\xA9 \xF0\x9F\x98\x80", "   aaaaaaaa\t\t<turn><unk>", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}) {
    const taskpress::Result<std::vector<int32_t>> ids = tokenizer->Encode(text);
    if (ids && !tokenizer->Decode(*ids)) std::abort();
  }
  return 0;
}
