/* Plan files: a trained network as one file that is mapped, checked and run. C99 and C++.
 *
 *     DgcError why;
 *     DgcPlan* plan = dgc_plan_open("model.dgc", &why);
 *     DgcRunner* runner = dgc_runner_new(plan, NULL, &why);
 *     dgc_runner_run(runner, images, 1, logits, &why);
 *     dgc_runner_free(runner), dgc_plan_close(plan);
 *
 * Every function that can fail takes a DgcError (or null) and answers null or a code that is not
 * DGC_OK. Nothing is thrown, nothing ends the process, nothing is printed. A plan is only read: any
 * number of threads may use it at once. A runner holds the memory that is computed in: one thread at
 * a time. */
#ifndef DGC_PLAN_H
#define DGC_PLAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DGC_PLAN_API 1 /* what dgc_plan_api answers; another number: other functions */

enum DgcCode { /* the exit codes of `dgcctl` */
    DGC_OK = 0,
    DGC_USAGE = 2,     /* an argument that cannot be */
    DGC_DATA = 3,      /* the file cannot be read */
    DGC_INTEGRITY = 4, /* it is no plan file, or a damaged one */
    DGC_RESOURCES = 7  /* no memory */
};

typedef struct DgcError {
    int code;
    char text[244]; /* one line: what is wrong, where, what to do */
} DgcError;

typedef struct DgcPlan DgcPlan;
typedef struct DgcRunner DgcRunner;

typedef struct DgcShape { /* of the images that a program of the file takes, and of its answers */
    int64_t channels, height, width;
    int64_t out_dims, out[3]; /* 1: out[0] logits; 3: planes, rows, columns */
    int64_t in_floats, out_floats; /* of one image and its answer */
    int64_t precision;             /* 0: float32, 1: 8 bits */
} DgcShape;

/* What an image goes through: the shorter side to `resize` pixels (0: to image_size), the
 * middle image_size x image_size, made grey (and given three times) where channels is 1, divided by
 * 255, minus mean, divided by std. */
typedef struct DgcPreprocessing {
    double mean[3], std[3];
    int64_t resize, image_size, channels, crop; /* crop: 1, the middle */
} DgcPreprocessing;

typedef struct DgcOptions {
    int64_t height, width;  /* 0: those of the file's first program */
    int64_t images;         /* that are computed at once; 0: 1 */
    int64_t threads;        /* 0: 1 */
    int64_t isa;            /* 0: the widest that the machine has; else 1 + a level of dgc_supports */
    void* memory;           /* null: the library's own; else zeroed, at a multiple of 64 */
    int64_t memory_bytes;   /* of it, at least dgc_runner_bytes */
} DgcOptions;

int dgc_plan_api(void);

DgcPlan* dgc_plan_open(const char* path, DgcError* why);
/* The same of a file's bytes, at a multiple of 64, which stay with the caller and outlive the plan. */
DgcPlan* dgc_plan_from_memory(const void* bytes, int64_t size, DgcError* why);
void dgc_plan_close(DgcPlan* plan);

int64_t dgc_plan_shapes(const DgcPlan* plan); /* how many image sizes it has programs for */
int dgc_plan_shape(const DgcPlan* plan, int64_t index, DgcShape* shape);
int64_t dgc_plan_classes(const DgcPlan* plan);                       /* 0: nobody named them */
const char* dgc_plan_class(const DgcPlan* plan, int64_t index);      /* UTF-8; null: there is none */
const DgcPreprocessing* dgc_plan_preprocessing(const DgcPlan* plan); /* null: nobody said */
const char* dgc_plan_origin(const DgcPlan* plan, int64_t* bytes);    /* JSON; null: nobody said */

int64_t dgc_runner_bytes(const DgcPlan* plan, const DgcOptions* options, DgcError* why); /* -1 */
DgcRunner* dgc_runner_new(const DgcPlan* plan, const DgcOptions* options, DgcError* why);
/* Any number of images, float, [channels][height][width] each; answers as DgcShape.out. */
int dgc_runner_run(DgcRunner* runner, const float* images, int64_t count, float* answers,
                   DgcError* why);
const DgcShape* dgc_runner_shape(const DgcRunner* runner);
void dgc_runner_free(DgcRunner* runner);

#ifdef __cplusplus
}
#endif
#endif
