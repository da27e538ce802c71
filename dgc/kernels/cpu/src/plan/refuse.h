// A refusal: a code and one line, written where the caller wants it. No byte of a file goes into a
// line as text: only numbers do.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "dgc_plan.h"

namespace dgc_plan {

__attribute__((format(printf, 3, 4))) inline bool refuse(DgcError* why, int code,
                                                         const char* format, ...) {
    if (why) {
        why->code = code;
        va_list words;
        va_start(words, format);
        vsnprintf(why->text, sizeof why->text, format, words);
        va_end(words);
    }
    return false;
}

}  // namespace dgc_plan
