// The host build: every kernel, and which CPUs the wide build is for.

#include "all.cu"

extern "C" __attribute__((visibility("default"))) int fieldshot_cpu_has_v3() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
  return 0;
#endif
}
