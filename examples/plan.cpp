// The same in C++, with all images of the file at once.   plan MODEL.dgc IMAGES OUT [THREADS]
// Build: c++ -std=c++17 plan.cpp $(python -m dgc.runtime --cflags) -o plan
#include <dgc_plan.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

int main(int argc, char** argv) {
    if (argc < 4) return std::cerr << "usage: plan MODEL.dgc IMAGES OUT [THREADS]\n", 2;
    DgcError why{};
    DgcOptions options{};
    options.images = 4, options.threads = argc > 4 ? std::stoi(argv[4]) : 1;
    std::unique_ptr<DgcPlan, decltype(&dgc_plan_close)> plan(dgc_plan_open(argv[1], &why),
                                                             dgc_plan_close);
    std::unique_ptr<DgcRunner, decltype(&dgc_runner_free)> runner(
        plan ? dgc_runner_new(plan.get(), &options, &why) : nullptr, dgc_runner_free);
    if (!runner) return std::cerr << "error: " << argv[1] << ": " << why.text << "\n", why.code;

    std::ifstream in(argv[2], std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    std::vector<float> images(bytes.size() / sizeof(float));
    bytes.copy(reinterpret_cast<char*>(images.data()), images.size() * sizeof(float));
    const DgcShape& shape = *dgc_runner_shape(runner.get());
    const int64_t count = int64_t(images.size()) / shape.in_floats;
    std::vector<float> answers(size_t(count * shape.out_floats));
    if (dgc_runner_run(runner.get(), images.data(), count, answers.data(), &why)) return why.code;
    std::ofstream(argv[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(answers.data()),
               std::streamsize(answers.size() * sizeof(float)));
}
