// The part of the Jinja template language that Gemma's chat templates are written in, for templates that nobody vetted.
//
// A template is data: it can read the variables it is given and nothing else, and it runs under limits. It renders exactly as
// `transformers` renders it (jinja2 with trim_blocks and lstrip_blocks) or is refused; a construct this subset does not know is an error,
// never skipped. Known: text, comments, {{ }}, if/elif/else, for (with if, else, loop.*, unpacking), set (names, namespace attributes),
// white space control; all operators but / and **; strings, integers, lists, tuples, dictionaries, slices; `namespace`, `range`,
// `raise_exception`; the filters, tests and methods listed in jinja_builtins.cc. Unknown among others: macros, includes, raw, block set,
// floats, tojson, strftime_now.
#ifndef TASKPRESS_CONVERTER_JINJA_H_
#define TASKPRESS_CONVERTER_JINJA_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {

struct JinjaLimits {
  size_t max_template_bytes = 256 << 10;
  size_t max_output_bytes = 1 << 20;
  // One for each node visited, and one more for each 64 bytes of text produced on the way.
  int64_t max_work = 1'000'000;
};

struct JinjaProgram;

class JinjaTemplate {
 public:
  // kChatTemplate with the line.
  static Result<JinjaTemplate> Parse(std::string_view source, JinjaLimits limits = {});

  // `variables` is an object. kChatTemplate: an exception raised by the template, a limit, or an operation on the wrong kind of value.
  [[nodiscard]] Result<std::string> Render(const OrderedJson& variables) const;

 private:
  JinjaTemplate(std::shared_ptr<const JinjaProgram> program, JinjaLimits limits) : program_(std::move(program)), limits_(limits) {}

  std::shared_ptr<const JinjaProgram> program_;  // immutable, so copies of a template share it
  JinjaLimits limits_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_JINJA_H_
