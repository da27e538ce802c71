// Runs a plan that a test wrote to a file, where there is no Python: run_plan PLAN OUTPUT THREADS.
// The file: four integers (see Head), the block with the program at its start, the input.
#include "../../dgc/kernels/cpu/src/infer/abi.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" int dgc_run(const DgcRun* run, int isa);
extern "C" int64_t dgc_op_size();
extern "C" int dgc_abi_version();

struct Head {
    int64_t abi_version, op_size, block_bytes, samples;
};

static void read_all(std::FILE* file, void* to, size_t bytes) {
    if (std::fread(to, 1, bytes, file) != bytes) std::exit(2);
}

static void* zeros(int64_t bytes) {
    const size_t whole = (bytes + 63) / 64 * 64;
    return std::memset(std::aligned_alloc(64, whole), 0, whole);
}

int main(int, char** argv) {
    std::FILE* file = std::fopen(argv[1], "rb");
    Head h;
    read_all(file, &h, sizeof h);
    if (h.abi_version != dgc_abi_version() || h.op_size != dgc_op_size()) return 3;
    void* block = zeros(h.block_bytes);
    read_all(file, block, h.block_bytes);
    const DgcProgram& p = *(const DgcProgram*)block;
    std::vector<float> input(h.samples * p.in_floats), output(h.samples * p.out_floats);
    read_all(file, input.data(), input.size() * 4);
    std::fclose(file);

    const int64_t threads = std::atol(argv[3]);
    const int64_t floats =
        threads * (p.thread_floats + p.scratch_floats) + h.samples * p.sample_floats;
    const DgcRun run = {block,
                        h.block_bytes,
                        0,
                        input.data(),
                        output.data(),
                        (float*)zeros(floats * 4),
                        floats,
                        h.samples,
                        threads,
                        0,
                        nullptr};
    if (dgc_run(&run, 0)) return 4;
    file = std::fopen(argv[2], "wb");
    std::fwrite(output.data(), 4, output.size(), file);
    return std::fclose(file);
}
