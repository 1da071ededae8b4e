#include "tools/bench_report.h"

#include <cmath>

namespace taskpress {
namespace {

struct Row {
  std::string test;
  int threads;
  double mean;
  double deviation;
  std::string unit;
};

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

std::vector<Row> RowsOf(const BenchReport& report) {
  std::vector<Row> rows;
  for (const BenchResult& one : report.results) {
    const auto add = [&](std::string test, const Series& series, std::string unit) {
      rows.push_back({std::move(test), one.threads, series.mean(), series.deviation(), std::move(unit)});
    };
    add(Format("prefill {}", one.prefill_tokens), one.prefill, "tok/s");
    add(Format("decode {}", one.decode_tokens), one.decode, "tok/s");
    for (const DepthSpeed& depth : one.depths) add(Format("decode at depth {}", depth.depth), depth.tokens_per_s, "tok/s");
    add("time to first token", one.first_token, "s");
    add(Format("load, packed weights {}", NameOf(one.cache_at_load)), Series{{one.load_seconds}}, "s");
    if (one.load_again_seconds) {
      const bool kept = one.packed.state == WeightCacheState::kUsed || one.packed.state == WeightCacheState::kWritten;
      add(kept ? "load again, from the file" : "load again", Series{{*one.load_again_seconds}}, "s");
    }
  }
  const BenchResult& first = report.results.front();
  const auto size = [&](std::string test, uint64_t bytes) { rows.push_back({std::move(test), first.threads, Megabytes(bytes), 0, "MB"}); };
  size("model", first.model_bytes);
  size("packed weights in memory", first.packed.anonymous_bytes);
  size("packed weights mapped", first.packed.mapped_bytes);
  size("KV cache", first.state_bytes);
  size("peak memory", report.peak_resident_bytes);
  size("peak memory, anonymous", report.peak_anonymous_bytes);
  size("peak memory, of files", report.peak_file_bytes);
  if (report.roofline) {
    const BenchRoofline& roofline = *report.roofline;
    const auto add = [&](std::string test, double value, std::string unit) {
      rows.push_back({std::move(test), first.threads, value, 0, std::move(unit)});
    };
    add("matrix kernel alone", roofline.peak_products_per_s / 1e9, "G products/s");
    add("prefill's share of it", roofline.PrefillShare(first) * 100, "%");
    add("memory read", roofline.read_bytes_per_s / 1e9, "GB/s");
    add("decode's share of it", roofline.DecodeShare(first) * 100, "%");
  }
  return rows;
}

std::string Number(double value) {
  const double size = std::abs(value);
  return size >= 100 ? Format("{:.1f}", value) : size >= 10 ? Format("{:.2f}", value) : Format("{:.3f}", value);
}

std::string Value(const Row& row) {
  return row.deviation > 0 ? Format("{} +- {}", Number(row.mean), Number(row.deviation)) : Number(row.mean);
}

OrderedJson ToJson(const Series& series) { return {{"mean", series.mean()}, {"sd", series.deviation()}, {"runs", series.runs}}; }

OrderedJson SpeedsToJson(const BenchResult& one) {
  OrderedJson json{{"prefill", {{"tokens", one.prefill_tokens}, {"tokens_per_s", ToJson(one.prefill)}}},
                   {"decode", {{"tokens", one.decode_tokens}, {"tokens_per_s", ToJson(one.decode)}}},
                   {"time_to_first_token_s", one.first_token.mean()},
                   {"load_s", one.load_seconds},
                   {"weight_cache", NameOf(one.cache_at_load)}};
  if (one.load_again_seconds) json["load_again_s"] = *one.load_again_seconds;
  if (!one.depths.empty()) {
    OrderedJson depths = OrderedJson::array();
    for (const DepthSpeed& depth : one.depths) depths.push_back({{"depth", depth.depth}, {"tokens_per_s", ToJson(depth.tokens_per_s)}});
    json["decode_at_depth"] = std::move(depths);
  }
  return json;
}

}  // namespace

std::string FormatBench(const BenchArguments& arguments, const BenchReport& report, BenchFormat format) {
  const std::vector<Row> rows = RowsOf(report);
  std::string text;
  if (format == BenchFormat::kCsv) {
    text = "test,threads,mean,sd,unit\n";
    for (const Row& row : rows) text += Format("\"{}\",{},{},{},{}\n", row.test, row.threads, row.mean, row.deviation, row.unit);
    return text;
  }
  text = Format("{}: {}, {} kernels, {} runs after {} to warm up\n", arguments.file, report.cpu, arguments.flags.kernels,
                arguments.repetitions, arguments.warm_ups);
  if (report.roofline) text += Format("matrix kernel alone: {}\n", report.roofline->matrix);
  text += "\n";
  if (format == BenchFormat::kMarkdown) {
    text += "| test | threads | mean +- sd | unit |\n|---|---|---|---|\n";
    for (const Row& row : rows) text += Format("| {} | {} | {} | {} |\n", row.test, row.threads, Value(row), row.unit);
    return text;
  }
  text += Format("| {:32} | {:>7} | {:>20} | {:12} |\n|{:-<34}|{:->9}|{:->22}|{:-<14}|\n", "test", "threads", "mean +- sd", "unit", "", "",
                 "", "");
  for (const Row& row : rows) text += Format("| {:32} | {:>7} | {:>20} | {:12} |\n", row.test, row.threads, Value(row), row.unit);
  return text;
}

OrderedJson BenchToJson(const BenchArguments& arguments, const BenchReport& report) {
  const BenchResult& first = report.results.front();
  OrderedJson json = SpeedsToJson(first);
  json["model_bytes"] = first.model_bytes;
  json["peak_rss_bytes"] = report.peak_resident_bytes;
  json["peak_anonymous_bytes"] = report.peak_anonymous_bytes;
  json["peak_file_bytes"] = report.peak_file_bytes;
  json["packed_weights"] = {{"anonymous_bytes", first.packed.anonymous_bytes}, {"mapped_bytes", first.packed.mapped_bytes}};
  json["state_bytes"] = first.state_bytes;
  if (report.roofline) {
    const BenchRoofline& roofline = *report.roofline;
    json["roofline"] = {{"matrix", roofline.matrix},
                        {"matrix_products_per_s", roofline.peak_products_per_s},
                        {"read_bytes_per_s", roofline.read_bytes_per_s},
                        {"prefill_products_per_token", roofline.prefill_products_per_token},
                        {"decode_bytes_per_token", roofline.decode_bytes_per_token},
                        {"prefill_share", roofline.PrefillShare(first)},
                        {"decode_share", roofline.DecodeShare(first)}};
  }
  if (report.results.size() > 1) {
    OrderedJson scaling = OrderedJson::array();
    for (const BenchResult& one : report.results) {
      OrderedJson row{{"threads", one.threads}};
      row.update(SpeedsToJson(one));
      scaling.push_back(std::move(row));
    }
    json["scaling"] = std::move(scaling);
  }
  json["threads"] = first.threads;
  json["kernels"] = arguments.flags.kernels;
  json["cpu"] = report.cpu;
  return json;
}

}  // namespace taskpress
