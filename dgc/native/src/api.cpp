// The C interface: which instruction sets this build and this machine have, and running a program with one of them.
#include "abi.h"
#include "train_abi.h"

#define DGC_DECLARE(isa) \
    namespace isa { \
    void execute(const DgcRun& run); \
    double peak(); \
    int registers(); \
    void train(const DgcTrain& pass); \
    int64_t train_room(const DgcTrain& pass); \
    }

#if defined(__x86_64__) || defined(_M_X64)
DGC_DECLARE(dgc_avx512)
DGC_DECLARE(dgc_avx2)
#define DGC_X86 1
#endif
DGC_DECLARE(dgc_baseline)

#ifndef DGC_BUILT_FROM  // built by hand, not by kernels.cmake
#define DGC_BUILT_FROM "unknown"
#define DGC_COMPILER "unknown"
#endif

extern "C" {

// Read by the call, and from the file by those who must not load it: keep the words (dgc/kernel_sources.py).
const char* dgc_built_from() { return "dgc kernels built from " DGC_BUILT_FROM " by " DGC_COMPILER; }

int dgc_abi_version() { return 2; }
int64_t dgc_op_size() { return sizeof(DgcOp); }

// 0 baseline, 1 AVX2 + FMA, 2 AVX-512 (F, VL, DQ, BW)
int dgc_supports(int isa) {
#ifdef DGC_X86
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == 0;
}

int dgc_has_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int dgc_run(const DgcRun* run, int isa) {
    if (!dgc_supports(isa)) return 1;
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::execute(*run), 0;
    if (isa == 1) return dgc_avx2::execute(*run), 0;
#endif
    return dgc_baseline::execute(*run), 0;
}

// Floats of scratch that each thread needs for a pass; the same for every instruction set.
int64_t dgc_train_room(const DgcTrain* pass) { return dgc_baseline::train_room(*pass); }
int64_t dgc_train_size() { return sizeof(DgcTrain); }

int dgc_train(const DgcTrain* pass, int isa) {
    if (!dgc_supports(isa)) return 1;
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::train(*pass), 0;
    if (isa == 1) return dgc_avx2::train(*pass), 0;
#endif
    return dgc_baseline::train(*pass), 0;
}

double dgc_peak(int isa) {
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::peak();
    if (isa == 1) return dgc_avx2::peak();
#endif
    return isa == 0 ? dgc_baseline::peak() : 0;
}

int dgc_registers(int isa) {
#ifdef DGC_X86
    if (isa == 2) return dgc_avx512::registers();
    if (isa == 1) return dgc_avx2::registers();
#endif
    return isa == 0 ? dgc_baseline::registers() : 0;
}
}
