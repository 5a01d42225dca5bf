// Trains a rewritten training step in any ONNX Runtime, from C++.
//
//     isaac-rewrite onnx/spiral_step.onnx -o step.onnx --lambda 1
//     g++ -std=c++17 -I$ORT/include examples/train.cpp -L$ORT/lib -lonnxruntime -o train
//     ./train step.onnx target/release/libisaac.so

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s STEP.onnx libisaac.so\n", argv[0]);
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::SessionOptions options;
  options.RegisterCustomOpsLibrary(argv[2]);
  Ort::Session session(env, argv[1], options);

  // Two interleaved spirals.
  constexpr int64_t kRows = 200;
  std::vector<float> points;
  std::vector<int64_t> labels;
  for (int64_t row = 0; row < kRows; ++row) {
    const int64_t arm = row / 100;
    const double t = (row % 100 + 1) / 100.0, angle = 4 * t + arm * std::acos(-1.0);
    points.insert(points.end(), {float(t * std::cos(angle)), float(t * std::sin(angle))});
    labels.push_back(arm);
  }
  float learning_rate = 3;

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<int64_t, 2> points_shape{kRows, 2};
  const std::array<int64_t, 1> labels_shape{kRows};
  std::vector<std::string> names{"x", "labels", "learning_rate"};
  std::vector<Ort::Value> feeds;
  feeds.push_back(Ort::Value::CreateTensor<float>(memory, points.data(), points.size(), points_shape.data(), 2));
  feeds.push_back(Ort::Value::CreateTensor<int64_t>(memory, labels.data(), labels.size(), labels_shape.data(), 1));
  feeds.push_back(Ort::Value::CreateTensor<float>(memory, &learning_rate, 1, nullptr, 0));

  // The first output is the loss, the others are `<weight>.updated`. Before the first step the weights have defaults.
  const std::vector<std::string> results = session.GetOutputNames();
  std::vector<const char*> outputs;
  for (const std::string& name : results) outputs.push_back(name.c_str());
  for (int step = 0; step < 200; ++step) {
    std::vector<const char*> inputs;
    for (const std::string& name : names) inputs.push_back(name.c_str());
    auto values = session.Run({}, inputs.data(), feeds.data(), feeds.size(), outputs.data(), outputs.size());
    const float loss = *values[0].GetTensorData<float>();
    names.resize(3);
    feeds.resize(3);
    for (size_t i = 1; i < values.size(); ++i) {
      names.push_back(results[i].substr(0, results[i].rfind(".updated")));
      feeds.push_back(std::move(values[i]));
    }
    if (step == 0) std::printf("first loss %.4f\n", loss);
    if (step == 199) std::printf("last loss %.4f\n", loss);
  }
}
