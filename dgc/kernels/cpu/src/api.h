// What api.cpp offers to the other files of the library.
#pragma once
#include "infer/abi.h"

extern "C" {

int dgc_supports(int isa);
int dgc_openmp_found();  // openmp.cpp, where it is linked in
int dgc_features(int isa);
int dgc_registers(int isa);
int dgc_run(const DgcRun* run, int isa);  // a DgcAnswer
}
