// Runs a plan that a test wrote to a file, where there is no Python: run_plan PLAN OUTPUT THREADS.
// The file: ten integers (see Head), the operations, the constants they point at, the input.
#include "../../dgc/kernels/cpu/src/abi.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" int dgc_run(const DgcRun* run, int isa);
extern "C" int64_t dgc_op_size();

struct Head {
    int64_t count, thread_floats, sample_floats, scratch_floats, in_floats, out_floats, samples, op_size;
    uint64_t constants, bytes;  // where the constants lay when the operations were written, and how many there are
};

static void read_all(std::FILE* file, void* to, size_t bytes) {
    if (std::fread(to, 1, bytes, file) != bytes) std::exit(2);
}

int main(int, char** argv) {
    std::FILE* file = std::fopen(argv[1], "rb");
    Head h;
    read_all(file, &h, sizeof h);
    if (h.op_size != dgc_op_size()) return 3;
    std::vector<uint64_t> words(h.count * h.op_size / 8);
    read_all(file, words.data(), words.size() * 8);
    char* constants = (char*)std::aligned_alloc(64, (h.bytes + 63) / 64 * 64);
    read_all(file, constants, h.bytes);
    for (uint64_t& word : words)  // all fields are of 64 bits, and no number is as large as an address
        if (word >= h.constants && word < h.constants + h.bytes) word = (uint64_t)constants + (word - h.constants);
    std::vector<float> input(h.samples * h.in_floats), output(h.samples * h.out_floats);
    read_all(file, input.data(), input.size() * 4);
    std::fclose(file);

    const int64_t threads = std::atol(argv[3]);
    const size_t floats = threads * (h.thread_floats + h.scratch_floats) + h.samples * h.sample_floats;
    float* arena = (float*)std::aligned_alloc(64, (floats * 4 + 63) / 64 * 64);
    std::memset(arena, 0, floats * 4);
    const DgcProgram program = {(const DgcOp*)words.data(), h.count, h.thread_floats, h.sample_floats, h.scratch_floats,
                                h.in_floats, h.out_floats};
    const DgcRun run = {&program, input.data(), output.data(), arena, h.samples, threads, nullptr};
    if (dgc_run(&run, 0)) return 4;
    file = std::fopen(argv[2], "wb");
    std::fwrite(output.data(), 4, output.size(), file);
    return std::fclose(file);
}
