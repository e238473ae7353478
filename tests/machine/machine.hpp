// What kernels/simt.cuh needs of the check machine: blocks of 256 lanes, each lane a fiber, run in shuffled order.
// The templates here are compiled with the kernel, and so is their instrumentation; all else is in machine.cpp.
//
// From Python, beside the kernels' own fieldshot_<name>:
//   fieldshot_check_seed(seed)            the order of blocks and lanes of every later launch
//   fieldshot_check_region(begin, bytes)  global memory that kernels may touch; with no region they may touch any
//   fieldshot_check_regions_clear()
//   fieldshot_check_report()              the faults of the last launch, one a line; "" if there were none
#pragma once

#include <cstddef>

namespace simt {

constexpr int LANES = 256, WARP = 32;

namespace machine {
// Runs body(closure) once for each lane of blocks first..last-1; returns the number of faults.
int run(void (*body)(const void*), const void* closure, size_t closure_bytes, const char* name, int first, int last,
        int blocks, size_t shared_bytes);
// Replaces the value by that of the lane whose number differs by `offset`; `mask` names the lanes that take part.
void exchange(unsigned mask, void* value, size_t bytes, int offset, const char* file, int line);
}  // namespace machine

int lane();
int block();
int blocks();

// A call site is a place in the source: lanes that meet must come from one and the same.
void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE());

void* shared_memory();
void* shared_static(const char* file, int line, size_t bytes);

template <typename T>
T shuffle_xor_masked(unsigned mask, T value, int offset, const char* file = __builtin_FILE(),
                     int line = __builtin_LINE()) {
  static_assert(sizeof(T) <= 16, "a lane passes on at most 16 bytes");
  machine::exchange(mask, &value, sizeof value, offset, file, line);
  return value;
}

template <typename T>
T shuffle_xor(T value, int offset, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return shuffle_xor_masked(0xffffffffu, value, offset, file, line);
}

template <typename Body>
int launch(Body body, const char* name, int first, int last, int blocks, size_t shared_bytes) {
  return machine::run([](const void* closure) { (*(const Body*)closure)(); }, &body, sizeof body, name, first, last,
                      blocks, shared_bytes);
}

}  // namespace simt
