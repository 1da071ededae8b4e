#include "converter/jinja.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "schema/base/mapped_file.h"

namespace taskpress {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kData = TASKPRESS_TEST_DATA;

Result<std::string> Render(std::string_view source, const OrderedJson& variables = OrderedJson::object()) {
  const Result<JinjaTemplate> parsed = JinjaTemplate::Parse(source);
  if (!parsed) return std::unexpected(parsed.error());
  return parsed->Render(variables);
}

OrderedJson Goldens() {
  const auto file = MappedFile::Open(kData / "chat_goldens.json").value();
  return OrderedJson::parse(AsText(file->bytes()));
}

// What jinja2 renders and we refuse, on purpose.
const std::set<std::string> kRefused = {
    "{{ 9223372036854775807 + 1 }}",          "{{ 9223372036854775807 < 9223372036854775808 }}",    "{% macro f() %}{% endmacro %}",
    "{% set x %}captured{% endset %}{{ x }}", "{% for x in l %}{{ s }}{% endfor %}{% set s = 1 %}",
};

TEST(JinjaTest, RendersAsJinja2DoesOrRefuses) {
  const OrderedJson goldens = Goldens();
  size_t rendered = 0;
  for (const OrderedJson& snippet : goldens["snippets"]) {
    const auto source = snippet["template"].get<std::string>();
    const Result<std::string> ours = Render(source, goldens["variables"]);
    if (kRefused.contains(source) || snippet["result"].contains("error")) {
      EXPECT_FALSE(ours.has_value()) << source << " gave " << *ours;
      continue;
    }
    ASSERT_TRUE(ours.has_value()) << source << ": " << ours.error().message;
    EXPECT_EQ(*ours, snippet["result"]["text"].get<std::string>()) << source;
    ++rendered;
  }
  EXPECT_GT(rendered, 130U);
}

TEST(JinjaTest, RendersTheTemplateOfGemmaAsJinja2Does) {
  const auto file = MappedFile::Open(kData / "micro-e4b" / "chat_template.jinja").value();
  const JinjaTemplate chat = JinjaTemplate::Parse(AsText(file->bytes())).value();
  const OrderedJson goldens = Goldens();
  size_t refused = 0;
  for (const OrderedJson& golden : goldens["chats"]) {
    const Result<std::string> ours = chat.Render(golden["variables"]);
    if (golden["result"].contains("error")) {
      EXPECT_FALSE(ours.has_value()) << golden["variables"];
      ++refused;
      continue;
    }
    ASSERT_TRUE(ours.has_value()) << golden["variables"] << ours.error().message;
    EXPECT_EQ(*ours, golden["result"]["text"].get<std::string>()) << golden["variables"];
  }
  EXPECT_GE(refused, 4U);
}

TEST(JinjaTest, ErrorsNameTheLine) {
  EXPECT_THAT(Render("a\nb\n{{ 1 + 'x' }}").error().message, HasSubstr("line 3"));
  EXPECT_THAT(Render("a\n{% macro x() %}").error().message, HasSubstr("line 2"));
  EXPECT_THAT(Render("{{ raise_exception('Roles must alternate') }}").error().message, HasSubstr("Roles must alternate"));
  EXPECT_EQ(Render("{{ x.y }}").error().code, ErrorCode::kChatTemplate);
}

// Each of these would run for ever, fill the memory or overflow the stack without its limit.
TEST(JinjaTest, HostileTemplatesEndWithAnError) {
  const auto repeat = [](std::string_view text, int count) {
    std::string all;
    for (int i = 0; i < count; ++i) all += text;
    return all;
  };
  const std::string hostile[] = {
      "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
      "{{ range(1000000000000) }}",
      "{% for x in range(999999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l }}",
      "{% set ns = namespace(l={}) %}{% for i in range(60) %}{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l ~ '' }}",
      "{{ 'x' * 999999999999 }}",
      "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
      "{{ ('x,' * 100000).split(',')|join('y' * 1000) }}",
      "{{ " + repeat("(", 5000) + "1" + repeat(")", 5000) + " }}",
      "{{ " + repeat("[", 5000) + "1" + repeat("]", 5000) + " }}",
      "{{ " + repeat("not ", 5000) + "1 }}",
      "{{ " + repeat("-", 5000) + "1 }}",
      "{{ 1" + repeat(" + 1", 5000) + " }}",
      "{{ 'a'" + repeat(" if 1 else 'b'", 5000) + " }}",
      "{{ x" + repeat("['x']", 5000) + " }}",
      "{{ 'x'" + repeat("|trim", 5000) + " }}",
      repeat("{% if 1 %}", 5000) + repeat("{% endif %}", 5000),
      repeat("{% for i in [1] %}", 5000) + repeat("{% endfor %}", 5000),
      "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns.x.x.x }}",
      std::string(300 << 10, 'x'),
  };
  for (const std::string& source : hostile) {
    const Result<std::string> result = Render(source);
    ASSERT_FALSE(result.has_value()) << source.substr(0, 200);
    EXPECT_EQ(result.error().code, ErrorCode::kChatTemplate);
  }
}

TEST(JinjaTest, HasNoWayToTheOutside) {
  for (const char* source : {
           "{{ ''.__class__ }}",
           "{{ ''.__class__.__mro__ }}",
           "{{ x.__init__ }}",
           "{{ [].__len__() }}",
           "{{ namespace.__init__.__globals__ }}",
           "{% include 'x' %}",
           "{% import 'x' as y %}",
           "{% extends 'x' %}",
           "{{ open('/etc/passwd') }}",
           "{{ self }}{{ self._TemplateReference__context }}",
           "{{ 'x'.format(1) }}",
           "{{ '%s' % 1 }}",
           "{{ strftime_now('%Y') }}",
           "{{ [1].append(2) }}",
           "{{ x.update({}) }}",
           "{{ x.items }}",
           "{{ x['items'] }}",
       }) {
    EXPECT_FALSE(Render(source, OrderedJson{{"x", {{"a", 1}}}}).has_value()) << source;
  }
}

TEST(JinjaTest, EveryTruncationOfTheTemplateOfGemmaIsRenderedOrRefused) {
  const auto file = MappedFile::Open(kData / "micro-e4b" / "chat_template.jinja").value();
  const OrderedJson goldens = Goldens();
  const OrderedJson& variables = goldens["chats"][6]["variables"];
  for (size_t size = 0; size < file->size(); ++size) {
    const Result<std::string> result = Render(AsText(file->bytes()).substr(0, size), variables);
    EXPECT_TRUE(result.has_value() || result.error().code == ErrorCode::kChatTemplate) << size;
  }
}

TEST(JinjaTest, RefusesVariablesItCannotHold) {
  EXPECT_FALSE(Render("x", OrderedJson{{"a", 1.5}}).has_value());
  EXPECT_FALSE(Render("x", OrderedJson{{"a", ~0ULL}}).has_value());
  EXPECT_FALSE(Render("x", OrderedJson::array()).has_value());
  EXPECT_FALSE(Render("\xFF").has_value());
}

}  // namespace
}  // namespace taskpress
