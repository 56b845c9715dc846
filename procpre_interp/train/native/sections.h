// Where the time goes, for experiments/bench_kernel.py: compiled with -DPROFILE, a single thread's time since the last call
// of `section` counts for the section that began then. Otherwise nothing is left of it.
#pragma once

#include <chrono>

enum Section { PRODUCTS, ATTENTION, LAYER_NORM, LAYOUT, LOSS, EMBEDDING, PACKING, OUTSIDE };

#if defined(PROFILE)
inline double section_seconds[OUTSIDE + 1];
inline void section(Section next) {
    using Clock = std::chrono::steady_clock;
    static Section current = OUTSIDE;
    static Clock::time_point begun = Clock::now();
    const Clock::time_point now = Clock::now();
    section_seconds[current] += std::chrono::duration<double>(now - begun).count();
    current = next, begun = now;
}
#else
inline void section(Section) {}
#endif
