// A byte-pair encoder run straight from tokenizer.json, written to do exactly what Hugging Face's `tokenizers` does. It is the oracle that
// a rebuilt SentencePiece model must agree with.
#ifndef TASKPRESS_CONVERTER_BPE_ORACLE_H_
#define TASKPRESS_CONVERTER_BPE_ORACLE_H_

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "converter/fast_tokenizer.h"
#include "schema/tokenizer_markers.h"

namespace taskpress {

class BpeOracle {
 public:
  // `fast` must outlive the oracle.
  explicit BpeOracle(const FastTokenizer& fast);

  // `text` must be UTF-8. No start token is added (add_special_tokens=False).
  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text) const;

 private:
  struct RankedMerge {
    int32_t rank;
    int32_t result;
  };

  [[nodiscard]] const RankedMerge* FindMerge(int32_t left, int32_t right) const;
  void EncodeSegment(std::string_view text, std::vector<int32_t>& ids) const;
  void EncodeNormalized(std::string_view normalized, std::vector<int32_t>& ids) const;
  [[nodiscard]] std::vector<int32_t> StartSymbols(std::string_view normalized) const;
  void Merge(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  const FastTokenizer* fast_;
  std::unordered_map<uint64_t, RankedMerge> merges_;  // by pair of ids
  MarkerTable raw_tokens_{false};
  MarkerTable normalized_tokens_{false};
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_BPE_ORACLE_H_
