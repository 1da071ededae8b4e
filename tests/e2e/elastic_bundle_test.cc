// Elastic bundles of the micro checkpoint: every size computes what its own plain bundle does, whichever is active, and the program says
// so.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "runtime/divergence.h"
#include "schema/activate.h"
#include "schema/base/hash.h"
#include "schema/bundle_sizes.h"
#include "tests/e2e/command_line.h"
#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"

namespace taskpress::testing {
namespace {

using oracle::Tokens;

// As for plain bundles (micro_bundle_test.cc): orders of summation differ, nothing else.
constexpr double kLogitTolerance = 5e-5;

// The goldens' slices as files, so that their names are e2b and mixed.
class ElasticBundleTest : public ::testing::Test {
 protected:
  ElasticBundleTest() {
    const nlohmann::json slices = oracle::ReadGoldenJson("inputs.json").at("slices");
    for (const auto& [name, slice] : slices.items()) {
      folder_.Write(name + ".json", nlohmann::json{{"ffn", slice.at("ffn")}, {"skip", slice.at("drop")}}.dump());
    }
  }
  [[nodiscard]] std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }
  [[nodiscard]] std::string Spec(const std::string& size) const { return size == "e4b" ? size : Path(size + ".json").string(); }
  [[nodiscard]] PreparedModel Prepare(const std::string& slice, const std::vector<std::string>& elastic, const std::string& recipe) const {
    PrepareOptions options;
    options.recipe = Must(RecipeFromName(recipe));
    options.slice = Spec(slice);
    for (const std::string& size : elastic) options.elastic.push_back(Spec(size));
    options.model.context = 320;
    options.model.prefill_lengths = {8, 32, 128};
    return Must(PrepareModel(oracle::MicroCheckpoint(), options));
  }
  std::filesystem::path Convert(const std::string& slice, const std::vector<std::string>& elastic, const std::string& recipe,
                                const std::string& file, int threads = 2) {
    Must(WriteBundles(Prepare(slice, elastic, recipe), std::vector{Path(file)}, {.work = {.threads = threads}, .replace = true}));
    return Path(file);
  }
  static std::vector<float> Logits(const std::filesystem::path& bundle, const std::string& size, Kernels kernels,
                                   std::span<const int32_t> tokens) {
    BundleModel model = Must(LoadBundleModel(Must(ReadBundle(bundle)), size));
    Session session = Must(Session::Create(std::move(model.graphs), {.kernels = kernels, .threads = 2}));
    return ScoreAll(session, tokens);
  }
  static double LargestDifference(std::span<const float> a, std::span<const float> b) {
    EXPECT_EQ(a.size(), b.size());
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - double{b[i]}));
    return worst;
  }
  TempFolder folder_;
};

// The integers and scales of a small size are those of its own bundle, and so is every operation, if no third size cuts its down_proj.
TEST_F(ElasticBundleTest, ASmallSizeHasTheLogitsOfItsPlainBundleBitForBit) {
  const Tokens tokens = oracle::GoldenPrompts()[6];  // 128 ids
  for (const std::string recipe : {"f32", "dynamic_int8", "dynamic_int4", "dynamic_int4_block32"}) {
    for (const std::string size : {"e2b", "mixed"}) {
      const std::filesystem::path elastic = Convert("e4b", {size}, recipe, "elastic.litertlm");
      const std::filesystem::path plain = Convert(size, {}, recipe, "plain.litertlm");
      for (const Kernels kernels : {Kernels::kReference, Kernels::kXnnpack}) {
        const auto some = std::span(tokens).first(kernels == Kernels::kReference ? 20 : tokens.size());
        EXPECT_EQ(Logits(elastic, size, kernels, some), Logits(plain, "", kernels, some)) << recipe << " " << size;
      }
    }
  }
}

TEST_F(ElasticBundleTest, EverySizeHasTheLogitsOfTransformers) {
  const std::filesystem::path bundle = Convert("e4b", {"e2b", "mixed"}, "f32", "elastic.task");
  const std::vector<Tokens> prompts = oracle::GoldenPrompts();
  for (const std::string size : {"e4b", "e2b", "mixed"}) {
    const oracle::TrustingSafetensors goldens = oracle::GoldenTensors(size);
    double worst = 0;
    for (size_t p = 2; p < prompts.size(); ++p) {
      const std::vector<float> rows = Logits(bundle, size, Kernels::kXnnpack, prompts[p]);
      const oracle::StoredTensor& golden = goldens.Get("p" + std::to_string(p) + ".logits");  // every row, or the last
      const size_t vocab = rows.size() / prompts[p].size();
      for (int64_t row = 0; row < golden.rows(); ++row) {
        std::vector<float> expected(vocab);
        golden.ReadRow(row, 0, expected);
        const size_t at = prompts[p].size() - static_cast<size_t>(golden.rows() - row);
        worst = std::max(worst, LargestDifference(std::span(rows).subspan(at * vocab, vocab), expected));
      }
    }
    EXPECT_LE(worst, kLogitTolerance) << size;
  }
}

// The big size adds its down_proj up in pieces. In f32 that is another order of addition; quantized, each piece has scales of its own, for
// weights and for activations, which are finer than those of the whole.
TEST_F(ElasticBundleTest, TheBigSizeDiffersFromItsPlainBundleByRoundingAlone) {
  const std::vector<Tokens> windows = oracle::GoldenWindows();
  const auto divergence = [&](const std::string& recipe) {
    const std::filesystem::path elastic = Convert("e4b", {"e2b"}, recipe, "elastic.litertlm");
    const std::filesystem::path plain = Convert("e4b", {}, recipe, "plain.litertlm");
    const std::filesystem::path exact = Convert("e4b", {}, "f32", "exact.litertlm");
    const Tokens& window = windows[0];
    const std::vector<float> ours = Logits(elastic, "e4b", Kernels::kXnnpack, window);
    const std::vector<float> whole = Logits(plain, "", Kernels::kXnnpack, window);
    const std::vector<float> truth = Logits(exact, "", Kernels::kXnnpack, window);
    Divergence of_elastic(static_cast<int32_t>(ours.size() / window.size()));
    Divergence of_plain(static_cast<int32_t>(ours.size() / window.size()));
    of_elastic.AddWindow(window, ours, truth);
    of_plain.AddWindow(window, whole, truth);
    return std::tuple(LargestDifference(ours, whole), of_elastic.Summarize().kl_mean, of_plain.Summarize().kl_mean);
  };
  EXPECT_LE(std::get<0>(divergence("f32")), kLogitTolerance);
  const auto [difference, elastic_kl, plain_kl] = divergence("dynamic_int4");
  RecordProperty("int4_kl_elastic", std::to_string(elastic_kl));
  RecordProperty("int4_kl_plain", std::to_string(plain_kl));
  EXPECT_GT(difference, 0.0);
  EXPECT_LE(elastic_kl, 1.1 * plain_kl);  // at most as far from the float model, but for chance
}

TEST_F(ElasticBundleTest, ActivatingASizeMakesItWhatIsLoadedInBothContainers) {
  const PreparedModel model = Prepare("e4b", {"e2b", "mixed"}, "dynamic_int4");
  Must(WriteBundles(model, std::vector{Path("a.task"), Path("a.litertlm")}, {.work = {.threads = 2}}));
  const Tokens tokens = oracle::GoldenPrompts()[3];
  for (const std::string container : {".task", ".litertlm"}) {
    for (const std::string size : {"mixed", "e2b", "e4b"}) {
      const std::filesystem::path active = Path(size + container);
      Must(ActivateSize(Path("a" + container), active, size));
      const Bundle bundle = Must(ReadBundle(active));
      Must(VerifyChecksums(bundle));
      EXPECT_TRUE(Must(bundle.FindSize(size))->active);
      EXPECT_EQ(Logits(active, "", Kernels::kXnnpack, tokens), Logits(Path("a.task"), size, Kernels::kXnnpack, tokens)) << size;
    }
    EXPECT_EQ(ReadFileBytes(Path("e4b" + container)), ReadFileBytes(Path("a" + container)));
  }
}

TEST_F(ElasticBundleTest, WeightsAreThereOnceAndTheFileIsTheSameForAnyNumberOfThreads) {
  const std::string one = ReadFileBytes(Convert("e4b", {"e2b", "mixed"}, "dynamic_int4", "one.litertlm", 1));
  const std::string four = ReadFileBytes(Convert("e4b", {"e2b", "mixed"}, "dynamic_int4", "four.litertlm", 4));
  EXPECT_EQ(one, four);
  const Bundle elastic = Must(ReadBundle(Path("one.litertlm")));
  const BundleSize& last = elastic.sizes.back();
  const uint64_t weights = last.bytes->size() - last.root_bytes;
  const Graph plain = Prepare("e4b", {}, "dynamic_int4").graphs.prefill_decode;
  const TfliteImage image = Must(BuildTfliteImage(plain));
  EXPECT_LE(weights, image.size - image.root.size() + 64 * 15);  // one more place per cut down_proj
  EXPECT_EQ(one.size(), Must(ForecastBundleSize(Prepare("e4b", {"e2b", "mixed"}, "dynamic_int4"), Container::kLitertlm)));
}

// Two sizes whose down_proj is cut at one width share a list; the big one may itself be a slice.
TEST_F(ElasticBundleTest, TheBigSizeMayBeASliceItself) {
  const std::filesystem::path elastic = Convert("mixed", {"e2b"}, "f32", "elastic.task");
  const std::filesystem::path plain = Convert("e2b", {}, "f32", "plain.task");
  const Tokens tokens = oracle::GoldenPrompts()[3];
  EXPECT_EQ(Logits(elastic, "e2b", Kernels::kXnnpack, tokens), Logits(plain, "", Kernels::kXnnpack, tokens));
  EXPECT_EQ(Must(ReadBundle(elastic)).SizeNames(), (std::vector<std::string>{"mixed", "e2b"}));
}

// E9: what is wrong with an inactive root is found when that size is loaded, and said of it.
TEST_F(ElasticBundleTest, ARootWhoseBuffersPointOutsideIsRefused) {
  const std::filesystem::path path = Convert("e4b", {"e2b"}, "f32", "a.litertlm");
  std::string bytes = ReadFileBytes(path);
  const BundleSize size = Must(ReadBundle(path)).sizes[1];
  ByteSpan root = std::as_writable_bytes(std::span(bytes)).subspan(size.offset, size.root_bytes);
  // The largest buffer's end is the member's; one more 64 bytes is outside.
  const Graph graph = Must(ReadTflite(size.bytes));
  uint64_t furthest = 0;
  for (size_t i = 0; i + 8 <= root.size(); i += 4) {
    const auto value = LoadLittle<uint64_t>(root.data() + i);
    if (value % 64 == 0 && value > size.root_bytes && value < size.bytes->size()) furthest = std::max(furthest, value);
  }
  for (size_t i = 0; i + 8 <= root.size(); i += 4) {
    if (LoadLittle<uint64_t>(root.data() + i) == furthest) StoreLittle(root.data() + i, furthest + (uint64_t{1} << 40));
  }
  const Bundle bundle = Must(ReadBundle(MakeMemorySource(AsBytes(bytes)), "lie.litertlm"));
  EXPECT_TRUE(LoadBundleModel(bundle).has_value()) << "the active size is untouched";
  const Result<BundleModel> model = LoadBundleModel(bundle, "e2b");
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, ErrorCode::kTfliteReference) << model.error().message;
  EXPECT_NE(model.error().message.find("size \"e2b\""), std::string::npos) << model.error().message;
  EXPECT_FALSE(VerifyChecksums(bundle).has_value());
}

class ElasticCommandTest : public ElasticBundleTest {
 protected:
  ElasticCommandTest() {
    const Finished done = Taskpress({"convert", Micro(), "-o", bundle_, "--elastic", Spec("e2b") + "," + Spec("mixed"), "--quant",
                                     "dynamic_int8", "--context", "96", "--prefill", "8,32", "--progress", "none"});
    EXPECT_EQ(done.status, 0) << done.err;
  }
  std::string bundle_ = Path("micro.task").string();
};

TEST_F(ElasticCommandTest, InspectListsTheSizes) {
  const nlohmann::json sizes = TaskpressJson({"inspect", bundle_}).at("sizes");
  ASSERT_EQ(sizes.size(), 3U);
  EXPECT_EQ(sizes[0].at("name"), "e4b");
  EXPECT_EQ(sizes[0].at("active"), true);
  EXPECT_EQ(sizes[1].at("name"), "e2b");
  EXPECT_EQ(sizes[1].at("active"), false);
  EXPECT_LT(sizes[1].at("parameters"), sizes[2].at("parameters"));
  const Finished text = Taskpress({"inspect", bundle_});
  EXPECT_NE(text.out.find("size e4b"), std::string::npos);
  EXPECT_FALSE(TaskpressJson({"inspect", bundle_}).at("sections").empty());
}

TEST_F(ElasticCommandTest, RunScoreBenchAndCompareTakeASize) {
  const auto tokens = [&](const std::string& size) {
    std::vector<std::string> command{"run", bundle_, "--tokens", "2,5,9", "-n", "24"};
    if (!size.empty()) command.insert(command.end(), {"--size", size});
    return TaskpressJson(command).at("tokens");
  };
  EXPECT_EQ(tokens(""), tokens("e4b"));
  EXPECT_NE(tokens("e2b"), tokens("e4b"));
  const auto nll = [&](const std::string& size) {
    return TaskpressJson({"score", bundle_, "--tokens", "2,5,9,100,200", "--size", size}).at("nll").get<double>();
  };
  EXPECT_NE(nll("mixed"), nll("E2B"));
  EXPECT_GT(TaskpressJson({"bench", bundle_, "-p", "8", "-n", "2", "-r", "1", "--size", "mixed"}).at("load_s"), 0.0);
  EXPECT_EQ(TaskpressJson({"compare", bundle_, bundle_, "--tokens", "2,5,9,100", "--size", "e2b", "--size-b", "e2b"}).at("kl_mean"), 0.0);
  EXPECT_GT(TaskpressJson({"compare", bundle_, bundle_, "--tokens", "2,5,9,100", "--size", "e2b"}).at("kl_mean"), 0.0);
  EXPECT_LT(TaskpressJson({"compare", bundle_, Micro(), "--tokens", "2,5,9,100", "--size", "e2b", "--size-b", Spec("e2b")}).at("kl_mean"),
            TaskpressJson({"compare", bundle_, Micro(), "--tokens", "2,5,9,100", "--size", "e2b"}).at("kl_mean"));
  const Finished unknown = Taskpress({"run", bundle_, "--tokens", "2", "--size", "e3b"});
  EXPECT_EQ(unknown.status, 2);
  EXPECT_NE(unknown.err.find("it has e4b, e2b, mixed"), std::string::npos) << unknown.err;
}

TEST_F(ElasticCommandTest, VerifyChecksEverySize) {
  const auto names = [](const nlohmann::json& document) {
    std::vector<std::string> all;
    for (const auto& check : document.at("checks")) {
      EXPECT_EQ(check.at("ok"), true) << check;
      all.push_back(check.at("name"));
    }
    return all;
  };
  EXPECT_EQ(names(TaskpressJson({"verify", bundle_})),
            (std::vector<std::string>{"container", "checksums", "size e4b: members and metadata", "size e4b: smoke run",
                                      "size e2b: members and metadata", "size e2b: smoke run", "size mixed: members and metadata",
                                      "size mixed: smoke run"}));
  EXPECT_EQ(names(TaskpressJson({"verify", bundle_, "--size", "e2b"})).size(), 4U);
  const std::vector<std::string> against =
      names(TaskpressJson({"verify", bundle_, "--against", Micro(), "--elastic", Spec("e2b") + "," + Spec("mixed")}));
  EXPECT_EQ(against.size(), 8U + 9U);
  EXPECT_EQ(against.back(), "size mixed: predictions against the float checkpoint");
}

// The scales of a smaller size are its own; the bytes behind them are not. Both are looked at.
TEST_F(ElasticCommandTest, VerifyNoticesWrongScalesInASmallerSizesRoot) {
  std::string bytes = ReadFileBytes(bundle_);
  const BundleSize size = Must(ReadBundle(bundle_)).sizes[1];
  const Graph graph = Must(ReadTflite(size.bytes));
  // All scales of one matrix three times what they should be.
  for (const Subgraph& subgraph : graph.subgraphs) {
    for (const Tensor& tensor : subgraph.tensors) {
      if (tensor.name != "layers.3.mlp.up_proj.weight" || tensor.quantization == kNone) continue;
      const std::span<const float> scales = ScalesOf(graph.quantizations[static_cast<size_t>(tensor.quantization)]);
      const auto at = static_cast<size_t>(reinterpret_cast<const std::byte*>(scales.data()) - size.bytes->view().data()) + size.offset;
      for (size_t i = 0; i < scales.size(); ++i) StoreLittle(reinterpret_cast<std::byte*>(bytes.data()) + at + 4 * i, scales[i] * 3);
      break;
    }
    break;
  }
  SizeList list = ListOf(Must(ReadBundle(bundle_)));
  // An honest list of the changed file: only the numbers of the model are wrong.
  const Bundle original = Must(ReadBundle(bundle_));
  const std::string old_text = EncodeSizes(list);
  for (ListedSize& listed : list.sizes) {
    listed.crc32 =
        Crc32(0, AsBytes(std::string_view(bytes).substr(original.sizes[0].offset + listed.offset, list.region_bytes - listed.offset)));
  }
  const auto replace_all = [&](std::string_view text, std::string_view instead) {
    for (size_t at = bytes.find(text); at != std::string::npos; at = bytes.find(text, at + text.size())) {
      bytes.replace(at, text.size(), instead);
    }
  };
  const auto number = [](uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof(value)); };
  const std::string new_text = EncodeSizes(list);
  replace_all(old_text, new_text);
  replace_all(number(original.sizes[0].crc32), number(list.sizes[0].crc32));
  replace_all(number(Crc32(0, AsBytes(old_text))), number(Crc32(0, AsBytes(new_text))));
  const std::filesystem::path lie = folder_.Write("lie.task", bytes);
  const Finished verified = Taskpress({"verify", lie.string(), "--against", Micro(), "--elastic", Spec("e2b") + "," + Spec("mixed")});
  EXPECT_EQ(verified.status, 1) << verified.out << verified.err;
  EXPECT_NE(verified.out.find("FAILED size e2b: matrices"), std::string::npos) << verified.out << verified.err;
}

TEST_F(ElasticCommandTest, ConvertRefusesSizesThatAreNotInside) {
  folder_.Write("wide.json", R"({"ffn": 512})");
  folder_.Write("owner.json", R"({"ffn": 256, "skip": [3]})");
  const auto refuse = [&](const std::string& slice, const std::string& elastic) {
    const Finished done =
        Taskpress({"convert", Micro(), "-o", Path("no.task").string(), "--slice", slice, "--elastic", elastic, "--dry-run"});
    EXPECT_EQ(done.status, 2) << done.err;
    return done.err;
  };
  EXPECT_NE(refuse(Spec("e2b"), Spec("mixed")).find("E12"), std::string::npos);
  EXPECT_NE(refuse("e4b", Path("owner.json").string()).find("leaves out layer 3"), std::string::npos);
  EXPECT_NE(refuse("e4b", Path("wide.json").string()).find("are the same model"), std::string::npos);
  EXPECT_NE(refuse("e4b", Spec("e2b") + "," + Spec("e2b")).find("two sizes are called"), std::string::npos);
}

}  // namespace
}  // namespace taskpress::testing
