// OpenMP without a library of our own, for the kernels of training: what GCC's code calls, handed on
// to the OpenMP runtime that the process has already (PyTorch's, so that both share one pool of
// threads), else to the system's, else done by one thread. So the library loads anywhere, and brings
// no second OpenMP. Compiled without -fopenmp, and linked in where the compiler is GCC on Linux (kernels.cmake).
//
// Which functions GCC calls depends on what the kernels say: parallel regions with a number of
// threads, static loops, barriers. Who uses more of OpenMP finds out when linking.
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <string.h>

namespace {

struct Runtime {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    void (*barrier)();
    int (*threads)();
    int (*thread)();
};

Runtime runtime;  // all null: there is none
pthread_once_t looked = PTHREAD_ONCE_INIT;

bool take(void* library) {
    if (!library) return false;
    Runtime found;
    *(void**)&found.parallel = dlsym(library, "GOMP_parallel");
    *(void**)&found.barrier = dlsym(library, "GOMP_barrier");
    *(void**)&found.threads = dlsym(library, "omp_get_num_threads");
    *(void**)&found.thread = dlsym(library, "omp_get_thread_num");
    if (!found.parallel || !found.barrier || !found.threads || !found.thread) return false;
    runtime = found;
    return true;
}

// Stops (1) at a loaded library that is an OpenMP runtime: GCC's, or LLVM's and Intel's, which have
// GCC's names too.
int is_runtime(dl_phdr_info* info, size_t, void*) {
    const char* name = strrchr(info->dlpi_name, '/');
    name = name ? name + 1 : info->dlpi_name;
    const char* const names[] = {"libgomp", "libomp", "libiomp"};
    for (const char* known : names)
        if (!strncmp(name, known, strlen(known)))
            return take(dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD));
    return 0;
}

void look() {
    if (!dl_iterate_phdr(is_runtime, nullptr)) take(dlopen("libgomp.so.1", RTLD_NOW));
}

const Runtime& openmp() {
    pthread_once(&looked, look);
    return runtime;
}

}  // namespace

#pragma GCC visibility push(hidden)
extern "C" {

void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags) {
    openmp().parallel ? openmp().parallel(work, data, threads, flags) : work(data);
}
void GOMP_barrier() {
    if (openmp().barrier) openmp().barrier();
}
int omp_get_num_threads() {
    return openmp().threads ? openmp().threads() : 1;
}
int omp_get_thread_num() {
    return openmp().thread ? openmp().thread() : 0;
}

int dgc_openmp_found() {
    return openmp().parallel != nullptr;
}
}
#pragma GCC visibility pop
