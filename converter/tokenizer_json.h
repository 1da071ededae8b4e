// A SentencePiece model made from tokenizer.json, for checkpoints that come without tokenizer.model.
#ifndef TASKPRESS_CONVERTER_TOKENIZER_JSON_H_
#define TASKPRESS_CONVERTER_TOKENIZER_JSON_H_

#include <string>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

// Serialized ModelProto, deterministic. `tokenizer_config` (tokenizer_config.json) names the start, end and padding tokens; without it
// Gemma's names are looked for. The two kinds of file rank merges differently (JSON: by pair, SentencePiece: by result), so the model is a
// candidate until ProveTokenizersEqual() says otherwise. kTokenizerJson, kTokenizerUnsupported.
Result<std::string> RebuildSentencePieceModel(const Json& tokenizer_json, const Json* tokenizer_config);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TOKENIZER_JSON_H_
