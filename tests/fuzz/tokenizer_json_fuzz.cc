// tokenizer.json from anybody: a model that is rebuilt from it passes the checks of tokenizer.model, and the oracle gives ids of the
// vocabulary.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "converter/bpe_oracle.h"
#include "converter/fast_tokenizer.h"
#include "converter/tokenizer_json.h"
#include "schema/json.h"
#include "schema/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const taskpress::Result<taskpress::Json> json = taskpress::ParseJson(std::as_bytes(std::span(data, size)));
  if (!json) return 0;
  const taskpress::Result<std::string> model = taskpress::RebuildSentencePieceModel(*json, nullptr);
  if (!model) return 0;
  const taskpress::Result<taskpress::Tokenizer> tokenizer = taskpress::Tokenizer::FromModel(taskpress::AsBytes(*model));
  const taskpress::FastTokenizer fast = *taskpress::ReadFastTokenizer(*json);
  for (const char* text : {"ab abc <bos>", "   aaaaaaaa\n<mark>", "x\xF0\x9F\x98\x80"}) {
    for (const int32_t id : taskpress::BpeOracle(fast).Encode(text)) {
      if (id < 0 || static_cast<size_t>(id) >= fast.vocabulary.size()) std::abort();
    }
    if (tokenizer) static_cast<void>(tokenizer->Encode(text));
  }
  return 0;
}
