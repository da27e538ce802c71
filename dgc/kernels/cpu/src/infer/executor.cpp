// Runs a program. Compiled once for each instruction set, in a namespace of its own; no C++ library
// is used, because a template instantiated here with wide vectors could be picked by the linker for
// a machine without them.
#include "crew.h"

namespace DGC_ISA {

inline void run_alone(const DgcRun& run) {
    const Context c = context_of(run, 0, 1);
    Step step;
    for (bool more = begin_stretch(c, 0, &step); more; more = next_step(c, &step))
        run_items(step, c, {0, step.items});
}

void execute(const DgcRun& run) {
#ifdef DGC_DEBUG
    DGC_CHECK((uintptr_t)run.workspace % (4 * kAlign) == 0);  // whole lines of it are stored at once
    check_program(run);
#endif
    if (run.threads == 1 || !run_together(run)) run_alone(run);
}

int registers() {
    return kRegisters;
}

// Multiply-adds per second of one core with everything in registers: what no kernel can exceed.
double peak() {
    // As many sums at once as it takes to hide the
    // latency of a multiply-add, and as registers hold.
    constexpr int kChains = kRegisters >= 32 ? 24 : 12;
    constexpr int64_t kRounds = 1 << 20;
    V acc[kChains] = {};
    const V a = splat(1.0000001f), b = splat(1e-9f);
    timespec start, end;
    double best = 0;
    for (int attempt = 0; attempt < 10; ++attempt) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int64_t i = 0; i < kRounds; ++i)
#pragma GCC unroll 24
            for (int k = 0; k < kChains; ++k) acc[k] = acc[k] * a + b;
        clock_gettime(CLOCK_MONOTONIC, &end);
        const double s =
            double(end.tv_sec - start.tv_sec) + 1e-9 * double(end.tv_nsec - start.tv_nsec);
        const double rate = double(kRounds) * kChains * VL / s;
        best = rate > best ? rate : best;
    }
    // Or the compiler would leave out what nobody reads.
    volatile float used = 0;
    for (int k = 0; k < kChains; ++k) used = used + sum(acc[k]);
    return best;
}

}  // namespace DGC_ISA
