// Whose matrix is in memory: of the steps that stream their weights (Kernels::kStreamed) one at a time.
#ifndef TASKPRESS_RUNTIME_STREAMED_WEIGHTS_H_
#define TASKPRESS_RUNTIME_STREAMED_WEIGHTS_H_

namespace taskpress {

// Keeps its matrix until it is told to forget it, so that a step that runs several times in a row reads its weights once.
class StreamedMatrix {
 public:
  StreamedMatrix() = default;
  StreamedMatrix(const StreamedMatrix&) = delete;
  StreamedMatrix& operator=(const StreamedMatrix&) = delete;
  virtual void Forget() = 0;

 protected:
  ~StreamedMatrix() = default;
};

class StreamedWeights {
 public:
  // `matrix` may keep its weights; the one that did before it forgets its own.
  void Take(StreamedMatrix& matrix) {
    if (keeper_ != nullptr && keeper_ != &matrix) keeper_->Forget();
    keeper_ = &matrix;
  }
  // Before `matrix` goes.
  void Leave(const StreamedMatrix& matrix) {
    if (keeper_ == &matrix) keeper_ = nullptr;
  }

 private:
  StreamedMatrix* keeper_ = nullptr;
};

}  // namespace taskpress

#endif  // TASKPRESS_RUNTIME_STREAMED_WEIGHTS_H_
