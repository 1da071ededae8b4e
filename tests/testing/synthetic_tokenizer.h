// A SentencePiece model with as many pieces as a checkpoint has rows, for generated checkpoints.
#ifndef TASKPRESS_TESTS_TESTING_SYNTHETIC_TOKENIZER_H_
#define TASKPRESS_TESTS_TESTING_SYNTHETIC_TOKENIZER_H_

#include <cstdint>
#include <string>

#include "schema/base/error.h"

namespace taskpress {

// A serialized sentencepiece.ModelProto: BPE with byte fallback and Gemma's settings (no dummy prefix, white space kept, no normalization).
// Ids: <pad> 0, <eos> 1, <bos> 2, <unk> 3, <mask> 4, [multimodal] 5, <unused..>, <start_of_turn> 105, <end_of_turn> 106, bytes 107 to 362,
// then characters and merges of ASCII; <start_of_image> 255999 and <start_of_audio> 256000 where the vocabulary reaches them.
// kTokenizerModel unless 512 <= pieces <= 500,000.
Result<std::string> SyntheticTokenizerModel(int64_t pieces);

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_TESTING_SYNTHETIC_TOKENIZER_H_
