#include "schema/text_contract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/testing/toy_graph.h"

namespace taskpress {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::RandomFloats;
using testing::ToyGraph;

constexpr int64_t kHidden = 4;
constexpr int64_t kLayers = 3;
constexpr int64_t kPerLayer = 2;
constexpr int64_t kVocab = 8;
constexpr int64_t kContext = 64;

Graph LookupMember(Shape table, Shape out) {
  ToyGraph toy;
  toy.Begin("lookup");
  const TensorId ids = toy.Op(OpKind::kReshape, {toy.Input("token_ids", DType::kI32, {1, 1}), toy.Ints({1})}, {1}, {}, DType::kI32);
  const TensorId row = toy.Op(OpKind::kEmbeddingLookup, {ids, toy.Floats(table, RandomFloats(table[0] * table[1], 1))}, {1, table[1]});
  toy.Output("out", toy.Op(OpKind::kReshape, {row, toy.Ints({1, 1, 1, 1})}, std::move(out)));
  return toy.Take();
}

void AddCall(ToyGraph& toy, const std::string& key, int64_t tokens, bool logits) {
  toy.Begin(key);
  const TensorId embeddings = toy.Input("embeddings", DType::kF32, {1, tokens, kHidden});
  toy.Input("per_layer_embeddings", DType::kF32, {1, tokens, kLayers, kPerLayer});
  toy.Input("input_pos", DType::kI32, {tokens});
  toy.Input("mask", DType::kF32, {1, 1, tokens, kContext});
  for (const char* name : {"kv_cache_k_0", "kv_cache_v_0", "kv_cache_k_1", "kv_cache_v_1"}) {
    const TensorId cache = toy.Input(name, DType::kF32, {1, 2, kContext, 4});
    toy.Output(name, toy.Op(OpKind::kAdd, {cache, cache}, {1, 2, kContext, 4}));
  }
  const TensorId head = toy.Floats({kVocab, kHidden}, RandomFloats(kVocab * kHidden, 2));
  const TensorId scores = toy.Op(OpKind::kFullyConnected, {embeddings, head}, {1, tokens, kVocab}, FullyConnectedAttributes{});
  if (logits) toy.Output("logits", scores);
}

struct Members {
  Graph embedder;
  Graph per_layer_embedder;
  Graph main;
};

Members HonestMembers() {
  ToyGraph toy;
  AddCall(toy, "prefill_32", 32, false);
  AddCall(toy, "prefill_8", 8, false);
  AddCall(toy, "decode", 1, true);
  AddCall(toy, "score_16", 16, true);
  return {.embedder = LookupMember({kVocab, kHidden}, {1, 1, kHidden}),
          .per_layer_embedder = LookupMember({kVocab, kLayers * kPerLayer}, {1, 1, kLayers, kPerLayer}),
          .main = toy.Take()};
}

Result<TextContract> Check(const Members& members) {
  return CheckTextContract(members.embedder, &members.per_layer_embedder, members.main);
}

// Indices of HonestMembers' signatures, each with a subgraph of the same index.
enum : size_t { kPrefill32, kPrefill8, kDecode, kScore };

Signature& SignatureAt(Members& members, size_t index) { return members.main.signatures[index]; }

Tensor& Named(Graph& graph, size_t index, std::string_view name) {
  Signature& signature = graph.signatures[index];
  const TensorId input = FindTensor(signature.inputs, name);
  const TensorId id = input != kNone ? input : FindTensor(signature.outputs, name);
  return graph.subgraphs[index].tensors[static_cast<size_t>(id)];
}
Tensor& Named(Members& members, size_t index, std::string_view name) { return Named(members.main, index, name); }

void Rename(std::vector<NamedTensor>& side, std::string_view from, std::string to) {
  std::ranges::find(side, from, &NamedTensor::first)->first = std::move(to);
}

void Remove(std::vector<NamedTensor>& side, std::string_view name) { side.erase(std::ranges::find(side, name, &NamedTensor::first)); }

TEST(TextContractTest, TellsTheSizesThatTheMembersAgreeOn) {
  const Members members = HonestMembers();
  for (const Graph* graph : {&members.embedder, &members.per_layer_embedder, &members.main}) {
    const Status valid = ValidateGraph(*graph);
    ASSERT_TRUE(valid.has_value()) << valid.error().message;
  }
  const Result<TextContract> contract = Check(members);
  ASSERT_TRUE(contract.has_value()) << contract.error().message;
  EXPECT_EQ(contract->context, kContext);
  EXPECT_EQ(contract->vocab_size, kVocab);
  EXPECT_EQ(contract->hidden_size, kHidden);
  EXPECT_EQ(contract->num_layers, kLayers);
  EXPECT_EQ(contract->per_layer_size, kPerLayer);
  EXPECT_EQ(contract->num_caches, 2);
  EXPECT_THAT(contract->prefill_lengths, ElementsAre(8, 32));
  EXPECT_EQ(contract->score_length, 16);
}

TEST(TextContractTest, AFamilyWithoutPerLayerEmbeddingsHasNoSuchInput) {
  Members members = HonestMembers();
  EXPECT_EQ(CheckTextContract(members.embedder, nullptr, members.main).error().code, ErrorCode::kBundleContract);
  for (Signature& signature : members.main.signatures) Remove(signature.inputs, "per_layer_embeddings");
  const Result<TextContract> contract = CheckTextContract(members.embedder, nullptr, members.main);
  ASSERT_TRUE(contract.has_value()) << contract.error().message;
  EXPECT_EQ(contract->num_layers, 0);
}

TEST(TextContractTest, SignaturesThatClientsDoNotCallAreNotLookedAt) {
  Members members = HonestMembers();
  SignatureAt(members, kScore).key = "verify";
  SignatureAt(members, kScore).inputs.clear();
  const Result<TextContract> contract = Check(members);
  ASSERT_TRUE(contract.has_value()) << contract.error().message;
  EXPECT_EQ(contract->score_length, std::nullopt);
}

TEST(TextContractTest, PrefillMayHaveLogits) {
  ToyGraph toy;
  AddCall(toy, "prefill", 8, true);
  AddCall(toy, "decode", 1, true);
  Members members = HonestMembers();
  members.main = toy.Take();
  EXPECT_TRUE(Check(members).has_value());
}

struct Lie {
  std::string name;
  std::function<void(Members&)> tell;
  std::string message;
};
std::string NameOfLie(const ::testing::TestParamInfo<Lie>& lie) { return lie.param.name; }
void PrintTo(const Lie& lie, std::ostream* out) { *out << lie.name; }

class ContractLieTest : public ::testing::TestWithParam<Lie> {};

TEST_P(ContractLieTest, IsRefused) {
  Members members = HonestMembers();
  GetParam().tell(members);
  const Result<TextContract> contract = Check(members);
  ASSERT_FALSE(contract.has_value());
  EXPECT_EQ(contract.error().code, ErrorCode::kBundleContract);
  EXPECT_THAT(contract.error().message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Embedders, ContractLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"NoSignature", [](Members& m) { m.embedder.signatures.clear(); }, "embedder: one signature"},
        {"TwoSignatures", [](Members& m) { m.embedder.signatures.push_back(m.embedder.signatures[0]); }, "embedder: one signature"},
        {"TwoInputs", [](Members& m) { m.embedder.signatures[0].inputs.emplace_back("more", 0); }, "one input"},
        {"NoOutput", [](Members& m) { m.per_layer_embedder.signatures[0].outputs.clear(); }, "per_layer_embedder: one signature"},
        {"TwoTokens", [](Members& m) { Named(m.embedder, 0, "token_ids").shape = {1, 2}; }, "found i32 [1,2]"},
        {"TokensOfOtherType", [](Members& m) { Named(m.embedder, 0, "token_ids").type = DType::kI64; }, "found i64 [1,1]"},
        {"RowOfOtherType", [](Members& m) { Named(m.embedder, 0, "out").type = DType::kF16; }, "found f16"},
        {"RowOfRankTwo", [](Members& m) { Named(m.embedder, 0, "out").shape = {1, kHidden}; }, "found f32 [1,4]"},
        {"RowOfRankFour", [](Members& m) { Named(m.embedder, 0, "out").shape = {1, 1, 1, kHidden}; }, "found f32 [1,1,1,4]"},
        {"TwoRows", [](Members& m) { Named(m.embedder, 0, "out").shape = {1, 2, kHidden}; }, "found f32 [1,2,4]"},
        {"PerLayerRowOfRankThree", [](Members& m) { Named(m.per_layer_embedder, 0, "out").shape = {1, 1, 6}; }, "found f32 [1,1,6]"},
        {"OtherHiddenSize", [](Members& m) { Named(m.embedder, 0, "out").shape = {1, 1, 5}; }, "f32 [1,32,5] expected, found f32 [1,32,4]"},
        {"OtherLayers", [](Members& m) { Named(m.per_layer_embedder, 0, "out").shape = {1, 1, 2, 3}; }, "f32 [1,32,2,3] expected"},
        {"FewerRowsThanLogits", [](Members& m) { m.embedder = LookupMember({kVocab - 1, kHidden}, {1, 1, kHidden}); },
         "embedder: table \"t3\" [7,4] has fewer rows than there are logits, 8"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    Calls, ContractLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"NoDecode", [](Members& m) { SignatureAt(m, kDecode).key = "Decode"; }, "no signature \"decode\""},
        {"NoPrefill",
         [](Members& m) {
           SignatureAt(m, kPrefill8).key = "warm_up";
           SignatureAt(m, kPrefill32).key = "warm_up_long";
         },
         "no prefill signature"},
        {"OtherName", [](Members& m) { Rename(SignatureAt(m, kPrefill8).inputs, "input_pos", "pos"); },
         "\"prefill_8\" has no tensor \"input_pos\""},
        {"NoMask", [](Members& m) { Remove(SignatureAt(m, kPrefill8).inputs, "mask"); }, "\"prefill_8\" has no tensor \"mask\""},
        {"NoMaskInDecode", [](Members& m) { Remove(SignatureAt(m, kDecode).inputs, "mask"); }, "\"decode\" has no tensor \"mask\""},
        {"NoEmbeddings", [](Members& m) { Rename(SignatureAt(m, kDecode).inputs, "embeddings", "embeds"); }, "no tensor \"embeddings\""},
        {"OneMoreInput", [](Members& m) { SignatureAt(m, kDecode).inputs.emplace_back("temperature", 0); }, "9 inputs, clients fill 8"},
        {"PositionsOfRankTwo", [](Members& m) { Named(m, kPrefill8, "input_pos").shape = {1, 8}; }, "found i32 [1,8]"},
        {"PositionsOfOtherType", [](Members& m) { Named(m, kPrefill8, "input_pos").type = DType::kI64; }, "found i64 [8]"},
        {"PositionsOfOtherLength", [](Members& m) { Named(m, kPrefill8, "input_pos").shape = {9}; }, "f32 [1,9,4] expected"},
        {"MaskOfOtherType", [](Members& m) { Named(m, kPrefill8, "mask").type = DType::kBool; }, "found bool"},
        {"MaskOfOtherContext", [](Members& m) { Named(m, kPrefill8, "mask").shape = {1, 1, 8, 63}; }, "f32 [1,1,8,64] expected"},
        {"MaskOfRankThree", [](Members& m) { Named(m, kDecode, "mask").shape = {1, 1, kContext}; }, "rank 4 expected"},
        {"DecodeOfTwoTokens",
         [](Members& m) {
           Named(m, kDecode, "input_pos").shape = {2};
           Named(m, kDecode, "embeddings").shape = {1, 2, kHidden};
           Named(m, kDecode, "per_layer_embeddings").shape = {1, 2, kLayers, kPerLayer};
           Named(m, kDecode, "mask").shape = {1, 1, 2, kContext};
           Named(m, kDecode, "logits").shape = {1, 2, kVocab};
         },
         "decode takes one token"},
        {"LogitsMissing", [](Members& m) { Remove(SignatureAt(m, kDecode).outputs, "logits"); }, "no tensor \"logits\""},
        {"LogitsOfRankTwo", [](Members& m) { Named(m, kDecode, "logits").shape = {1, kVocab}; }, "rank 3 expected"},
        {"LogitsOfOtherType", [](Members& m) { Named(m, kDecode, "logits").type = DType::kF16; }, "found f16"},
        {"ScoreWithoutLogits", [](Members& m) { Remove(SignatureAt(m, kScore).outputs, "logits"); },
         "\"score_16\" has no tensor \"logits\""},
        {"ScoreOfOtherVocabulary", [](Members& m) { Named(m, kScore, "logits").shape = {1, 16, 7}; }, "f32 [1,16,8] expected"},
    }),
    NameOfLie);

INSTANTIATE_TEST_SUITE_P(
    CachesAndLengths, ContractLieTest,
    ::testing::ValuesIn(std::vector<Lie>{
        {"NoCaches",
         [](Members& m) {
           for (Signature& signature : m.main.signatures) {
             for (const char* name : {"kv_cache_k_0", "kv_cache_v_0", "kv_cache_k_1", "kv_cache_v_1"}) Remove(signature.inputs, name);
           }
         },
         "no \"kv_cache_k_0\""},
        {"GapInNumbers",
         [](Members& m) {
           for (Signature& signature : m.main.signatures) Rename(signature.inputs, "kv_cache_k_1", "kv_cache_k_2");
         },
         "no tensor \"kv_cache_k_1\""},
        {"ValuesMissing", [](Members& m) { Remove(SignatureAt(m, kDecode).inputs, "kv_cache_v_1"); }, "no tensor \"kv_cache_v_1\""},
        {"NotReturned", [](Members& m) { Remove(SignatureAt(m, kPrefill8).outputs, "kv_cache_v_0"); }, "no tensor \"kv_cache_v_0\""},
        {"ReturnedInOtherShape",
         [](Members& m) {
           Signature& signature = SignatureAt(m, kPrefill8);
           const TensorId id = FindTensor(signature.outputs, "kv_cache_k_0");
           m.main.subgraphs[kPrefill8].tensors[static_cast<size_t>(id)].shape = {1, 2, 4, kContext};
         },
         "found f32 [1,2,4,64]"},
        {"OtherShapeThanDecodes", [](Members& m) { Named(m, kPrefill8, "kv_cache_k_0").shape = {1, 1, kContext, 4}; },
         "f32 [1,2,64,4] expected, found f32 [1,1,64,4]"},
        {"HalfPrecision", [](Members& m) { Named(m, kDecode, "kv_cache_k_0").type = DType::kF16; }, "rank 4 with batch 1 expected"},
        {"RankThree", [](Members& m) { Named(m, kDecode, "kv_cache_v_0").shape = {2, kContext, 4}; }, "rank 4 with batch 1 expected"},
        {"BatchOfTwo", [](Members& m) { Named(m, kDecode, "kv_cache_v_0").shape = {2, 1, kContext, 4}; }, "rank 4 with batch 1 expected"},
        {"OneLengthTwice",
         [](Members& m) {
           ToyGraph toy;
           AddCall(toy, "prefill_8", 8, false);
           AddCall(toy, "prefill_eight", 8, false);
           AddCall(toy, "decode", 1, true);
           m.main = toy.Take();
         },
         "the same length"},
        {"NoShortPrefill",
         [](Members& m) {
           ToyGraph toy;
           AddCall(toy, "prefill_33", 33, false);
           AddCall(toy, "decode", 1, true);
           m.main = toy.Take();
         },
         "the shortest prefill has 33 tokens"},
        {"PrefillBeyondTheContext",
         [](Members& m) {
           ToyGraph toy;
           AddCall(toy, "prefill_8", 8, false);
           AddCall(toy, "prefill_65", 65, false);
           AddCall(toy, "decode", 1, true);
           m.main = toy.Take();
         },
         "65 tokens exceed the context of 64"},
        {"ScoreBeyondTheContext",
         [](Members& m) {
           ToyGraph toy;
           AddCall(toy, "prefill_8", 8, false);
           AddCall(toy, "decode", 1, true);
           AddCall(toy, "score_65", 65, true);
           m.main = toy.Take();
         },
         "65 tokens exceed the context of 64"},
    }),
    NameOfLie);

}  // namespace
}  // namespace taskpress
