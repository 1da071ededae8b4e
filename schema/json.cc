#include "schema/json.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "schema/base/mapped_file.h"

namespace taskpress {
namespace {

// Builds the document through nlohmann's own DOM builder and adds what it does not check: depth and duplicate keys.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(Json& root, int max_depth) : dom_(root, false), max_depth_(max_depth) {}

  bool null() override { return dom_.null(); }
  bool boolean(bool value) override { return dom_.boolean(value); }
  bool number_integer(number_integer_t value) override { return dom_.number_integer(value); }
  bool number_unsigned(number_unsigned_t value) override { return dom_.number_unsigned(value); }
  bool number_float(number_float_t value, const string_t& text) override { return dom_.number_float(value, text); }
  bool string(string_t& value) override { return dom_.string(value); }
  bool binary(binary_t& value) override { return dom_.binary(value); }
  bool start_object(std::size_t size) override {
    keys_.emplace_back();
    return Enter() && dom_.start_object(size);
  }
  bool key(string_t& value) override {
    if (!keys_.back().insert(value).second) {
      problem_ = Format("duplicate key \"{}\"", value);
      return false;
    }
    return dom_.key(value);
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return dom_.end_object();
  }
  bool start_array(std::size_t size) override { return Enter() && dom_.start_array(size); }
  bool end_array() override {
    --depth_;
    return dom_.end_array();
  }
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override {
    static_cast<void>(token);
    problem_ = Format("at byte {}: {}", position, error.what());
    return false;
  }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  bool Enter() {
    if (++depth_ <= max_depth_) return true;
    problem_ = Format("nested deeper than {}", max_depth_);
    return false;
  }

  nlohmann::detail::json_sax_dom_parser<Json> dom_;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::set<std::string>> keys_;
  std::string problem_;
};

}  // namespace

Result<Json> ParseJson(ByteView text, JsonLimits limits) {
  if (text.size() > limits.max_bytes) {
    return Fail(ErrorCode::kBadJson, "{} bytes of JSON, at most {} are read", text.size(), limits.max_bytes);
  }
  // nlohmann takes a zero byte for the end of the text and would not look at what follows.
  if (std::ranges::find(text, std::byte{0}) != text.end()) return Fail(ErrorCode::kBadJson, "zero byte in the text");
  Json root;
  StrictBuilder builder(root, limits.max_depth);
  const std::string_view characters = AsText(text);
  if (!Json::sax_parse(characters.begin(), characters.end(), &builder)) {
    return Fail(ErrorCode::kBadJson, "{}", builder.problem().empty() ? "syntax error" : builder.problem());
  }
  return root;
}

Result<Json> ReadJsonFile(const std::filesystem::path& path, JsonLimits limits) {
  const std::shared_ptr<const MappedFile> file = TRY(MappedFile::Open(path));
  Result<Json> json = ParseJson(file->bytes(), limits);
  if (!json) return std::unexpected(WithContext(std::move(json).error(), path.string()));
  return json;
}

}  // namespace taskpress
