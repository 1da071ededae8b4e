#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

#include "quantizer/recipe_file.h"
#include "quantizer/resolved_recipe.h"
#include "runtime/bundle_model.h"
#include "runtime/plan_report.h"
#include "schema/base/hash.h"
#include "schema/tflite.h"
#include "tools/command.h"

namespace taskpress {
namespace {

struct InspectArguments {
  std::string file;
  bool tensors = false;
  bool hash = false;
  bool plan = false;
  bool recipe = false;
  bool json = false;
};

// Weights of one graph: stored elements and bytes, each buffer counted once.
struct WeightSums {
  int64_t parameters = 0;
  uint64_t bytes = 0;
};

constexpr int64_t kSmallConstant = 64;  // shapes, axes and scalars are no parameters

template <typename Visit>
void ForEachWeight(const Graph& graph, Visit visit) {
  std::vector<bool> seen(graph.buffers.size());
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (!tensor.is_constant() || tensor.type == DType::kI32 || seen[static_cast<size_t>(tensor.buffer)]) continue;
      if (NumElements(tensor.shape).value_or(0) < kSmallConstant && tensor.name.starts_with("const.")) continue;
      seen[static_cast<size_t>(tensor.buffer)] = true;
      visit(subgraph, tensor);
    }
  }
}

const Tensor& ScalesOfBlocks(const Subgraph& subgraph, const Tensor& tensor) {
  return subgraph.tensors[static_cast<size_t>(tensor.block_scales)];
}

// "i8", "i4_block32"
std::string TypeText(const Subgraph& subgraph, const Tensor& tensor) {
  const int64_t block_size = BlockSizeOf(subgraph, tensor);
  return block_size == 0 ? std::string(NameOf(tensor.type)) : Format("{}_block{}", NameOf(tensor.type), block_size);
}

WeightSums SumWeights(const Graph& graph) {
  WeightSums sums;
  ForEachWeight(graph, [&](const Subgraph& subgraph, const Tensor& tensor) {
    const bool is_scales = tensor.type == DType::kF16 && std::ranges::any_of(subgraph.tensors, [&](const Tensor& other) {
                             return other.block_scales != kNone && &ScalesOfBlocks(subgraph, other) == &tensor;
                           });
    if (!is_scales) sums.parameters += NumElements(tensor.shape).value_or(0);
    sums.bytes += graph.buffers[static_cast<size_t>(tensor.buffer)].bytes->size();
  });
  return sums;
}

OrderedJson SideJson(const Graph& graph, const Signature& signature, const std::vector<NamedTensor>& side) {
  OrderedJson names = OrderedJson::object();
  for (const auto& [name, id] : side) {
    const Tensor& tensor = graph.subgraphs[static_cast<size_t>(signature.subgraph)].tensors[static_cast<size_t>(id)];
    names[name] = Format("{}{}", NameOf(tensor.type), ToString(tensor.shape));
  }
  return names;
}

OrderedJson OpHistogram(const Subgraph& subgraph) {
  std::map<std::string_view, int64_t> counts;
  for (const Op& op : subgraph.ops) ++counts[NameOf(op.kind)];
  OrderedJson json = OrderedJson::object();
  for (const auto& [name, count] : counts) json[std::string(name)] = count;
  return json;
}

OrderedJson MetadataJson(const BundleMetadata& metadata) {
  OrderedJson stops = OrderedJson::array();
  for (const TokenText& stop : metadata.stop_tokens) stops.push_back({{"id", stop.id}, {"text", stop.text}});
  OrderedJson json{
      {"stop_tokens", stops},
      {"user_prefix", metadata.user.prefix},
      {"user_suffix", metadata.user.suffix},
      {"model_prefix", metadata.model.prefix},
      {"model_suffix", metadata.model.suffix},
      {"max_num_tokens", metadata.max_num_tokens},
      {"model_type", metadata.model_type},
      {"sampler",
       {{"type", "top_p"}, {"k", metadata.sampler.k}, {"p", metadata.sampler.p}, {"temperature", metadata.sampler.temperature}}}};
  if (metadata.start_token) json["start_token"] = {{"id", metadata.start_token->id}, {"text", metadata.start_token->text}};
  return json;
}

// Who can load the file, by what was measured on real clients.
OrderedJson Loaders(const Bundle& bundle) {
  constexpr uint64_t kTwoGiB = 1ULL << 31;
  OrderedJson loaders = OrderedJson::array();
  loaders.push_back({{"name", "LiteRT-LM 0.18 (CPU)"}, {"loads", true}, {"note", "by its extension; other versions are not tested"}});
  for (const Section& section : bundle.sections) {
    if (section.bytes->size() >= kTwoGiB) {
      loaders.push_back({{"name", "readers without 64-bit buffers (iOS, legacy TFLite)"},
                         {"loads", false},
                         {"note", Format("section {} exceeds 2 GiB", section.name)}});
    }
  }
  return loaders;
}

struct Inspection {
  OrderedJson sections = OrderedJson::array();
  OrderedJson signatures = OrderedJson::array();
  OrderedJson tensors = OrderedJson::array();
  OrderedJson metadata = OrderedJson::object();
  int64_t parameters = 0;
  std::vector<RecipeLine> recipe;
  std::string text;
};

// What the fast kernels make of the signature that was added last.
Status InspectPlan(const Graph& graph, const Signature& signature, Inspection& out) {
  const PlanReport report = TRY(ReportPlan(graph, signature.subgraph));
  OrderedJson passes = OrderedJson::object();
  out.text += Format("      {} steps of {} operators ({} dead, {} views)", report.steps, report.operators, report.dead, report.views);
  for (const PassCount& count : report.passes) {
    passes[std::string(count.pass)] = {{"steps", count.steps}, {"operators", count.operators}};
    out.text += Format("; {}: {} of {}", count.pass, count.steps, count.operators);
  }
  out.text += "\n";
  out.signatures.back()["plan"] = {{"steps", report.steps}, {"dead", report.dead}, {"views", report.views}, {"passes", passes}};
  return {};
}

// Bundles of other makers have none; one that cannot be read is worth a warning, the rest of the bundle is still of interest.
void InspectRecipe(const Graph& graph, Inspection& out) {
  const auto found = std::ranges::find(graph.metadata, "taskpress.recipe", &std::pair<std::string, std::string>::first);
  if (found == graph.metadata.end()) return;
  Result<std::vector<RecipeLine>> lines = ParseResolvedRecipe(found->second);
  if (!lines) {
    std::cerr << "warning: " << lines.error().message << "\n";
    return;
  }
  out.recipe = *std::move(lines);
  out.text += "    recipe\n";
  std::istringstream summary(RecipeSummary(out.recipe));
  for (std::string line; std::getline(summary, line);) out.text += "    " + line + "\n";
}

Status InspectModel(const InspectArguments& arguments, const Section& section, Inspection& out) {
  Result<Graph> graph = ReadTflite(section.bytes);
  if (!graph) return std::unexpected(WithContext(std::move(graph).error(), Format("section \"{}\"", section.name)));
  const WeightSums sums = SumWeights(*graph);
  out.parameters += sums.parameters;
  out.text += Format("    {} parameters in {} bytes, {} signatures\n", sums.parameters, sums.bytes, graph->signatures.size());
  InspectRecipe(*graph, out);
  for (const Signature& signature : graph->signatures) {
    const Subgraph& subgraph = graph->subgraphs[static_cast<size_t>(signature.subgraph)];
    const OrderedJson inputs = SideJson(*graph, signature, signature.inputs);
    const OrderedJson outputs = SideJson(*graph, signature, signature.outputs);
    out.signatures.push_back({{"section", section.name},
                              {"key", signature.key},
                              {"inputs", inputs},
                              {"outputs", outputs},
                              {"operators", subgraph.ops.size()},
                              {"operator_counts", OpHistogram(subgraph)}});
    out.text += Format("    [{}] {} operators;", signature.key, subgraph.ops.size());
    for (const auto& [name, type] : inputs.items()) {
      if (!name.starts_with("kv_cache") || name.ends_with("_0")) out.text += Format(" {} {}", name, type.get<std::string>());
    }
    out.text += outputs.contains("logits") ? Format(" -> logits {}\n", outputs["logits"].get<std::string>()) : "\n";
    if (arguments.plan) TRY(InspectPlan(*graph, signature, out));
  }
  if (!arguments.tensors) return {};
  ForEachWeight(*graph, [&](const Subgraph& subgraph, const Tensor& tensor) {
    const std::string type = TypeText(subgraph, tensor);
    const uint64_t bytes = graph->buffers[static_cast<size_t>(tensor.buffer)].bytes->size();
    out.tensors.push_back({{"section", section.name}, {"name", tensor.name}, {"type", type}, {"shape", tensor.shape}, {"bytes", bytes}});
    out.text += Format("      {:56} {:5} {:18} {:12}\n", tensor.name, type, ToString(tensor.shape), bytes);
  });
  return {};
}

Status InspectMetadata(const Bundle& bundle, const Section& section, Inspection& out) {
  std::vector<std::byte> scratch;
  const BundleMetadata metadata = TRY(DecodeMetadata(bundle.container, TRY(ViewOrRead(*section.bytes, scratch))));
  out.metadata = MetadataJson(metadata);
  for (const auto& [key, value] : out.metadata.items()) out.text += Format("    {}: {}\n", key, value.dump());
  return {};
}

OrderedJson InspectSizes(const Bundle& bundle, Inspection& out) {
  OrderedJson sizes = OrderedJson::array();
  for (const BundleSize& size : bundle.sizes) {
    sizes.push_back({{"name", size.name},
                     {"active", size.active},
                     {"parameters", size.text_parameters},
                     {"effective_parameters", size.effective_parameters},
                     {"offset", size.offset},
                     {"root_bytes", size.root_bytes},
                     {"crc32", Format("{:08x}", size.crc32)}});
    out.text += Format("  size {:16} {:14} parameters, {} effective; root of {} bytes at {}{}\n", size.name, size.text_parameters,
                       size.effective_parameters, size.root_bytes, size.offset, size.active ? "; active" : "");
  }
  return sizes;
}

Result<ExitStatus> Inspect(const InspectArguments& arguments) {
  const Bundle bundle = TRY(ReadBundle(arguments.file));
  Inspection out;
  for (const std::string& warning : bundle.warnings) std::cerr << "warning: " << warning << "\n";
  for (const Section& section : bundle.sections) {
    OrderedJson row{
        {"kind", InfoOf(section.kind).name}, {"name", section.name}, {"offset", section.offset}, {"bytes", section.bytes->size()}};
    out.text += Format("  {:20} {:12} at {:12}", section.name, section.bytes->size(), section.offset);
    if (arguments.hash) {
      std::vector<std::byte> scratch;
      const std::string digest = Sha256Hex(TRY(ViewOrRead(*section.bytes, scratch)));
      row["sha256"] = digest;
      out.text += "  " + digest;
    }
    out.text += "\n";
    out.sections.push_back(row);
    if (InfoOf(section.kind).is_model) TRY(InspectModel(arguments, section, out));
    if (section.kind == SectionKind::kMetadata) TRY(InspectMetadata(bundle, section, out));
  }
  const OrderedJson sizes = InspectSizes(bundle, out);
  const OrderedJson loaders = Loaders(bundle);
  if (arguments.recipe) {
    if (out.recipe.empty())
      return Fail(ErrorCode::kRecipeUnmatched, "{}: the bundle does not say how its weights were stored", arguments.file);
    std::cout << FormatRecipeFile(TRY(RecipeFromLines(arguments.file, out.recipe)));
    return ExitStatus::kOk;
  }
  if (!arguments.json) {
    std::cout << Format("{}: {}{}, {} bytes, {} sections\n{}", arguments.file, NameOf(bundle.container),
                        bundle.version.empty() ? "" : " " + bundle.version, bundle.file_size, bundle.sections.size(), out.text);
    for (const OrderedJson& loader : loaders) {
      std::cout << Format("  {} {}: {}\n", loader["loads"].get<bool>() ? "loads in" : "NOT for", loader["name"].get<std::string>(),
                          loader["note"].get<std::string>());
    }
    return ExitStatus::kOk;
  }
  OrderedJson document{
      {"container", NameOf(bundle.container)}, {"version", bundle.version},    {"bytes", bundle.file_size}, {"sections", out.sections},
      {"signatures", out.signatures},          {"parameters", out.parameters}, {"metadata", out.metadata}};
  if (!bundle.sizes.empty()) document["sizes"] = sizes;
  if (arguments.tensors) document["tensors"] = out.tensors;
  if (!out.recipe.empty()) document["weights"] = RecipeJson(out.recipe);
  document["loaders"] = loaders;
  document["warnings"] = bundle.warnings;
  PrintJson("inspect", document);
  return ExitStatus::kOk;
}

}  // namespace

Verb AddInspect(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("inspect", "What a bundle is, what is inside, who can load it");
  const auto arguments = std::make_shared<InspectArguments>();
  verb->add_option("file", arguments->file, "a .task or .litertlm bundle")->required();
  verb->add_flag("--tensors", arguments->tensors, "list every weight");
  verb->add_flag("--hash", arguments->hash, "SHA-256 of every section");
  verb->add_flag("--plan", arguments->plan, "how many steps the fast kernels make of each signature, by pass");
  CLI::Option* recipe = verb->add_flag("--recipe", arguments->recipe, "print how the weights were stored, as a file for convert --quant");
  verb->add_flag("--json", arguments->json, "one JSON document")->excludes(recipe);
  verb->footer("Example:\n  taskpress inspect gemma.litertlm --tensors");
  return {verb, [arguments] { return Inspect(*arguments); }};
}

}  // namespace taskpress
