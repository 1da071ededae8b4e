// A chat template from anybody: rendered within its limits or refused.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "converter/chat_metadata.h"
#include "converter/jinja.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  constexpr taskpress::JinjaLimits kLimits{.max_template_bytes = 64 << 10, .max_output_bytes = 64 << 10, .max_work = 20'000};
  const taskpress::Result<taskpress::JinjaTemplate> parsed = taskpress::JinjaTemplate::Parse(source, kLimits);
  if (!parsed) return 0;
  static const taskpress::OrderedJson& variables = *new taskpress::OrderedJson(taskpress::OrderedJson::parse(
      R"({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": [{"type": "text", "text": "B"}]}],
          "bos_token": "<bos>", "add_generation_prompt": true, "l": [1, 2, 3], "s": "H\u00e9llo", "a": {"b": {"c": null}}})"));
  static_cast<void>(parsed->Render(variables));
  return 0;
}
