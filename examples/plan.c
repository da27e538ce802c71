/* A plan file in C: floats from a file in, logits out.   plan MODEL.dgc IMAGES OUT [THREADS]
 * Build: cc plan.c $(python -m dgc.runtime --cflags) -o plan */
#include <dgc_plan.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
    if (argc < 4) return fprintf(stderr, "usage: plan MODEL.dgc IMAGES OUT [THREADS]\n"), 2;
    DgcError why;
    DgcOptions options = {0};
    options.threads = argc > 4 ? atoi(argv[4]) : 1;
    DgcPlan* plan = dgc_plan_open(argv[1], &why);
    DgcRunner* runner = plan ? dgc_runner_new(plan, &options, &why) : NULL;
    if (!runner) return fprintf(stderr, "error: %s: %s\n", argv[1], why.text), why.code;

    const DgcShape* shape = dgc_runner_shape(runner);
    float* image = malloc(shape->in_floats * sizeof(float));
    float* answer = malloc(shape->out_floats * sizeof(float));
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
    while (in && out && image && answer &&
           fread(image, sizeof(float), shape->in_floats, in) == (size_t)shape->in_floats) {
        if (dgc_runner_run(runner, image, 1, answer, &why)) return why.code;
        fwrite(answer, sizeof(float), shape->out_floats, out);
    }
    if (!in || !out || fclose(out)) return fprintf(stderr, "error: images or answers\n"), 3;
    dgc_runner_free(runner), dgc_plan_close(plan);
    return 0;
}
