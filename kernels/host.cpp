// The host build: every kernel, and which of the builds this CPU runs.

#include "all.cu"

// The level of x86-64 whose instructions this CPU has: 3 for AVX2, 4 for AVX-512, else 1.
extern "C" __attribute__((visibility("default"))) int fieldshot_cpu_level() {
#if defined(__x86_64__)
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))) return 1;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl")
             ? 4
             : 3;
#else
  return 1;
#endif
}
