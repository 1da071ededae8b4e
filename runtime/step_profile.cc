#include "runtime/step_profile.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include "runtime/executor.h"
#include "schema/base/error.h"
#include "schema/json.h"

namespace taskpress {
namespace {

// "model.layers.12.mlp.up_proj.weight" -> 12
std::optional<int32_t> LayerInName(std::string_view name) {
  constexpr std::string_view kWord = "layers.";
  const size_t at = name.find(kWord);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view digits = name.substr(at + kWord.size());
  int32_t layer = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (error != std::errc() || end == digits.data()) return std::nullopt;
  return layer;
}

double Seconds(StepProfile::Time begin, StepProfile::Time end) { return std::chrono::duration<double>(end - begin).count(); }

void AddRow(std::vector<StepProfile::Row>& rows, StepProfile::Row row) {
  const auto known =
      std::ranges::find_if(rows, [&](const StepProfile::Row& other) { return other.signature == row.signature && other.name == row.name; });
  if (known == rows.end()) {
    rows.push_back(std::move(row));
    return;
  }
  known->calls += row.calls;
  known->seconds += row.seconds;
}

std::string TableOf(std::string_view what, const std::vector<StepProfile::Row>& rows) {
  std::map<std::string, double> totals;
  for (const StepProfile::Row& row : rows) totals[row.signature] += row.seconds;
  std::string text = Format("| {:16} | {:34} | {:>8} | {:>10} | {:>6} |\n|{:-<18}|{:-<36}|{:->10}|{:->12}|{:->8}|\n", "signature", what,
                            "calls", "ms", "%", "", "", ":", ":", ":");
  for (const StepProfile::Row& row : rows) {
    const double total = totals[row.signature];
    text += Format("| {:16} | {:34} | {:>8} | {:>10.3f} | {:>6.1f} |\n", row.signature, row.name, row.calls, row.seconds * 1e3,
                   total > 0 ? row.seconds / total * 100 : 0.0);
  }
  return text;
}

}  // namespace

size_t StepProfile::Register(const Subgraph& subgraph, std::span<const StepInfo> steps) {
  std::vector<int32_t> layers;  // [ops]
  int32_t layer = kNoLayer;
  for (const Op& op : subgraph.ops) {
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      if (op.inputs[i] == kNone) continue;
      const Tensor& tensor = subgraph.tensors[static_cast<size_t>(op.inputs[i])];
      if (!tensor.is_constant()) continue;
      const std::optional<int32_t> found = LayerInName(tensor.name);
      if (found) layer = *found;
      // A matrix of no layer stands before or behind them all: the head, a projection that serves every layer.
      if (!found && i == 1 && op.kind == OpKind::kFullyConnected) layer = kNoLayer;
    }
    layers.push_back(layer);
  }
  Executor& executor = executors_.emplace_back();
  executor.signature = subgraph.name;
  for (const StepInfo& info : steps) {
    executor.steps.push_back({.name = std::string(info.name),
                              .kernel = std::string(NameOf(info.kernel)),
                              .op = info.op,
                              .layer = layers[static_cast<size_t>(info.op)]});
  }
  return executors_.size() - 1;
}

void StepProfile::Add(size_t executor, size_t step, Time begin, Time end) {
  events_.push_back({.executor = static_cast<uint32_t>(executor), .step = static_cast<uint32_t>(step), .begin = begin, .end = end});
}

void StepProfile::Clear() { events_.clear(); }

std::vector<StepProfile::Row> StepProfile::ByKind() const {
  std::vector<Row> rows;
  for (const Event& event : events_) {
    const Step& step = StepOf(event);
    AddRow(rows, {.signature = executors_[event.executor].signature,
                  .name = Format("{} ({})", step.name, step.kernel),
                  .calls = 1,
                  .seconds = Seconds(event.begin, event.end)});
  }
  std::ranges::stable_sort(
      rows, [](const Row& a, const Row& b) { return a.signature != b.signature ? a.signature < b.signature : a.seconds > b.seconds; });
  return rows;
}

std::vector<StepProfile::Row> StepProfile::ByLayer() const {
  std::map<std::pair<std::string, int32_t>, Row> rows;
  for (const Event& event : events_) {
    const int32_t layer = StepOf(event).layer;
    const std::string& signature = executors_[event.executor].signature;
    Row& row = rows[{signature, layer}];
    row.signature = signature;
    row.name = layer == kNoLayer ? "outside the layers" : Format("layer {}", layer);
    ++row.calls;
    row.seconds += Seconds(event.begin, event.end);
  }
  std::vector<Row> list;
  for (auto& [key, row] : rows) list.push_back(std::move(row));
  return list;
}

std::string StepProfile::Table() const { return TableOf("step (kernel)", ByKind()) + "\n" + TableOf("layer", ByLayer()); }

std::string StepProfile::ChromeTrace() const {
  OrderedJson events = OrderedJson::array();
  for (const Event& event : events_) {
    const Step& step = StepOf(event);
    const Time origin = events_.front().begin;
    OrderedJson arguments{{"op", step.op}, {"kernel", step.kernel}};
    if (step.layer != kNoLayer) arguments["layer"] = step.layer;
    events.push_back({{"name", step.name},
                      {"cat", executors_[event.executor].signature},
                      {"ph", "X"},
                      {"ts", Seconds(origin, event.begin) * 1e6},
                      {"dur", Seconds(event.begin, event.end) * 1e6},
                      {"pid", 1},
                      {"tid", 1},
                      {"args", std::move(arguments)}});
  }
  return OrderedJson{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump(-1, ' ', false,
                                                                                         OrderedJson::error_handler_t::replace) +
         "\n";
}

}  // namespace taskpress
