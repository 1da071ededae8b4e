// The word that was meant, when a word is unknown.
#ifndef TASKPRESS_QUANTIZER_SUGGESTION_H_
#define TASKPRESS_QUANTIZER_SUGGESTION_H_

#include <span>
#include <string>
#include <string_view>

namespace taskpress {

// " (did you mean dynamic_int4?)" when something is near, else nothing.
std::string Suggestion(std::string_view unknown, std::span<const std::string_view> known);

}  // namespace taskpress

#endif  // TASKPRESS_QUANTIZER_SUGGESTION_H_
